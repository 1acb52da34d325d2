//! Layers that are read against those below them.

use super::layouts::Layout;
use super::*;

/// The images of layers, each of which is a tar.
fn layers(tars: &[Vec<u8>]) -> Vec<Nodes> {
    let layout = Layout::new();
    let blobs: Vec<_> = tars.iter().map(|tar| layout.layer(tar)).collect();
    layout.index(&[layout.named(&blobs, "x")]);
    images(layout.path()).unwrap().into_iter().map(|(nodes, _)| nodes).collect()
}

/// A folder with a mode and an owner, then other members.
fn with_folder(path: &str, mode: u32, owner: u64, rest: &[Entry<'_>]) -> Vec<u8> {
    let mut header = header(DIR, 0);
    header.set_mode(mode);
    header.set_uid(owner);
    let mut bytes = raw(path, "", header).as_bytes().to_vec();
    bytes.extend(archive(rest));
    bytes
}

fn mode(nodes: &Nodes, path: &str) -> (u16, u32) {
    (nodes[path].mode, nodes[path].owner.0)
}

#[test]
fn folders_that_a_layer_does_not_list_keep_what_the_layers_below_say() {
    let base = with_folder("tmp/", 0o1777, 7, &[("tmp/gone", "x", FILE)]);
    for upper in [("tmp/a/b", "1", FILE), ("tmp/.wh.gone", "", FILE), ("tmp/.wh..wh..opq", "", FILE)] {
        let images = layers(&[base.clone(), archive(&[("etc/x", "2", FILE)]), archive(&[upper])]);
        assert_eq!(mode(&images[2], "/tmp"), (0o041_777, 7), "{upper:?}");
    }
    // The root is a folder as any other.
    let images = layers(&[with_folder("./", 0o700, 7, &[]), archive(&[("x", "2", FILE)])]);
    assert_eq!(mode(&images[0], "/"), (0o040_700, 7));
    // A folder that the layer hides first is another one.
    let images = layers(&[base, archive(&[(".wh.tmp", "", FILE), ("tmp/x", "1", FILE)])]);
    assert_eq!(mode(&images[1], "/tmp"), (0o040_755, 0));
    assert!(images[1]["/tmp"].xattrs.contains_key(b"trusted.overlay.opaque".as_slice()));
}

#[test]
fn names_lead_through_symbolic_links_of_lower_layers_inside_the_tree() {
    let base = archive(&[
        ("usr/lib/ld.so", "loader", FILE),
        ("lib", "usr/lib", SYMLINK),
        ("opt", "/../usr/./lib", SYMLINK),
        ("var/run", "../run", SYMLINK),
    ]);
    let upper = archive(&[
        ("lib/a", "1", FILE),
        ("opt/b", "2", FILE),
        ("var/run/c", "3", FILE),
        ("lib/.wh.ld.so", "", FILE),
        ("d", "lib/a", LINK),
    ]);
    let images = layers(&[base.clone(), upper]);
    let nodes = &images[1];
    assert_eq!(nodes["/usr/lib/a"].held, b"1");
    assert_eq!(nodes["/usr/lib/b"].held, b"2");
    assert_eq!(nodes["/run/c"].held, b"3");
    assert_eq!(nodes["/usr/lib/ld.so"].mode, 0o020_000);
    assert_eq!(nodes["/d"].links, 2);
    assert!(!nodes.contains_key("/lib") && !nodes.contains_key("/opt"));
    // A member that is the folder itself replaces the link, and a whiteout of the link hides it.
    for upper in [[("lib/", "", DIR), ("lib/a", "1", FILE)], [(".wh.lib", "", FILE), ("lib/a", "1", FILE)]] {
        let images = layers(&[base.clone(), archive(&upper)]);
        assert_eq!(images[1]["/lib/a"].held, b"1", "{upper:?}");
    }
}

#[test]
fn hard_links_reach_files_of_lower_layers_with_all_their_names() {
    let base = archive(&[("a/x", "held", FILE), ("b", "a/x", LINK), ("s", "a/x", SYMLINK)]);
    let images = layers(&[base, archive(&[("c", "/a/x", LINK), ("t", "s", LINK)])]);
    let nodes = &images[1];
    assert_eq!((nodes["/c"].held.as_slice(), nodes["/c"].links), (b"held".as_slice(), 3));
    assert_eq!((&nodes["/a/x"].first, &nodes["/b"].first), (&nodes["/c"].first, &nodes["/c"].first));
    assert_eq!((nodes["/t"].links, nodes["/t"].held.as_slice()), (2, b"a/x".as_slice()));
}

#[test]
fn whiteouts_of_nothing_and_an_opaque_root_leave_no_mark() {
    let base = archive(&[("a", "1", FILE), ("d/b", "2", FILE)]);
    let images =
        layers(&[base.clone(), archive(&[(".wh.z", "", FILE), ("d/.wh.z", "", FILE), ("y", "", FILE)])]);
    assert_eq!(images[1].keys().collect::<Vec<_>>(), ["/", "/y"]);
    let images = layers(&[base, archive(&[(".wh..wh..opq", "", FILE), ("y", "", FILE)])]);
    assert_eq!(images.len(), 1, "an overlay would not look at the mark");
    assert_eq!(images[0].keys().collect::<Vec<_>>(), ["/", "/y"]);
    assert!(images[0]["/"].xattrs.is_empty());
}

#[test]
fn layers_that_change_nothing_are_left_out() {
    let (base, empty) = (archive(&[("a", "1", FILE)]), archive(&[]));
    assert_eq!(layers(&[empty.clone(), base.clone(), empty.clone(), archive(&[("./", "", DIR)])]).len(), 2);
    assert_eq!(layers(&[empty.clone(), base.clone(), empty.clone()]).len(), 1);
    assert_eq!(layers(&[empty.clone(), empty]).len(), 1, "an image of nothing is an image");
}

#[test]
fn of_many_layers_the_upper_ones_become_one_image_that_hides_what_they_hide() {
    let mut tars: Vec<_> = (0..14).map(|index| archive(&[(&format!("f{index}"), "x", FILE)])).collect();
    tars.extend([
        archive(&[("d/a", "1", FILE), ("d/b", "2", FILE)]),
        archive(&[(".wh.f1", "", FILE), ("e/x", "3", FILE), ("d/c", "3", FILE)]),
        archive(&[("d/.wh.c", "", FILE), (".wh.e", "", FILE), (".wh.f2", "", FILE)]),
        archive(&[("f1", "again", FILE), ("d/.wh.a", "", FILE), ("f2/x", "a folder", FILE)]),
    ]);
    let images = layers(&tars);
    assert_eq!(images.len(), IMAGES_MAX);
    let upper = &images[IMAGES_MAX - 1];
    assert_eq!(upper["/f1"].held, b"again");
    assert_eq!((upper["/d/c"].mode, upper["/d/a"].mode), (0o020_000, 0o020_000));
    assert!(upper["/f2"].xattrs.contains_key(b"trusted.overlay.opaque".as_slice()));
    assert!(!upper.contains_key("/d/b"));
    let layout = Layout::new();
    let blobs: Vec<_> = tars.iter().map(|tar| layout.layer(tar)).collect();
    layout.index(&[layout.named(&blobs, "x")]);
    let last = sources(layout.path()).unwrap().pop().unwrap().origin().layer.unwrap();
    assert_eq!((last.index, last.last), (15, Some(17)));
}
