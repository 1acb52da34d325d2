use super::folders::folder;
use super::*;

#[test]
fn a_folder_and_its_tar_compressed_or_not_are_the_same_image() {
    let (dir, out) = (folder(false), tempfile::tempdir().unwrap());
    let mut builder = Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", dir.path()).unwrap();
    let plain = builder.into_inner().unwrap();
    let (mut nodes, digest) = image(dir.path());
    let (unlinked, tarred) = image(&written(&out, &plain));
    // Crate tar writes hard links as two files: all else is equal.
    for name in ["/z", "/sub/link"] {
        let node = nodes.get_mut(name).unwrap();
        (node.links, node.first) = (1, name.into());
    }
    assert_eq!(unlinked, nodes);
    assert_ne!(tarred, digest);
    let half = plain.len() / 2;
    // Frames one after the other, and one to skip between them.
    let frames =
        [zstd(&plain[..half]), b"\x51\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(&plain[half..])].concat();
    for compressed in
        [gzip(&plain), zstd(&plain), frames, [gzip(&plain[..half]), gzip(&plain[half..])].concat()]
    {
        assert_eq!(image(&written(&out, &compressed)).1, tarred);
    }
}

#[test]
fn the_order_of_a_tar_does_not_matter_and_hard_links_are_one_file() {
    let out = tempfile::tempdir().unwrap();
    let one = [("a/", "", DIR), ("a/x", "1", FILE), ("b", "2", FILE), ("c", "a/x", LINK)];
    let two = [("b", "2", FILE), ("c", "1", FILE), ("a/", "", DIR), ("./a//x", "c", LINK)];
    let (nodes, digest) = image(&written(&out, &archive(&one)));
    assert_eq!(image(&written(&out, &archive(&two))).1, digest);
    assert_eq!((nodes["/c"].links, nodes["/c"].held.as_slice()), (2, b"1".as_slice()));
}

#[test]
fn a_later_member_replaces_an_earlier_one() {
    let out = tempfile::tempdir().unwrap();
    let entries = [
        ("x", "first", FILE),
        ("y", "x", LINK),
        ("x", "second", FILE),
        ("s", "x", SYMLINK),
        ("s", "third", FILE),
    ];
    let (nodes, _) = image(&written(&out, &archive(&entries)));
    let held = |path: &str| (nodes[path].held.as_slice(), nodes[path].links);
    assert_eq!(held("/x"), (b"second".as_slice(), 1));
    assert_eq!(held("/y"), (b"first".as_slice(), 1));
    assert_eq!(held("/s"), (b"third".as_slice(), 1));
}

#[test]
fn long_names_large_owners_and_attributes_with_line_ends_are_read() {
    let out = tempfile::tempdir().unwrap();
    let mut builder = Builder::new(Vec::new());
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    builder.append_data(&mut header(FILE, 3), &long, &b"gnu"[..]).unwrap();
    let capability = [1, 0, 0, 2, 0, b'\n', 0, 0, b'\n', b'='];
    let records: [(&str, &[u8]); 6] = [
        ("path", b"pax/\xc3\xa9"),
        ("uid", b"4000000000"),
        ("size", b"4"),
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.security.selinux", b"label"),
        ("mtime", b"12.5"),
    ];
    builder.append_pax_extensions(records).unwrap();
    builder.append(&raw("short", "", header(FILE, 4)), &b"fine"[..]).unwrap();
    let (nodes, _) = image(&written(&out, &builder.into_inner().unwrap()));
    assert_eq!(nodes[&format!("/{long}")].held, b"gnu");
    let node = &nodes["/pax/é"];
    assert_eq!((node.owner.0, node.held.as_slice()), (4_000_000_000, b"fine".as_slice()));
    assert_eq!(node.xattrs, BTreeMap::from([(b"security.capability".to_vec(), capability.to_vec())]));
}

#[test]
fn hostile_and_damaged_tars_are_refused_by_what_is_wrong() {
    let out = tempfile::tempdir().unwrap();
    let long: String = "x".repeat(99);
    let cases: [(&[Entry<'_>], &str); 11] = [
        (&[("a/../../x", "x", FILE)], "has \"..\""),
        (&[("..", "", DIR)], "has \"..\""),
        (&[("a", "b", SYMLINK), ("b", "a", SYMLINK), ("a/x", "x", FILE)], "more than 40 symbolic links"),
        (&[("f", "x", FILE), ("f/x", "x", FILE)], "leads through \"f\", which is no folder"),
        (&[("l", "/etc/passwd", LINK)], "hard link to \"/etc/passwd\", which is not before it"),
        (&[("l", "../x", LINK)], "leads out of the tree"),
        (&[("l", "later", LINK), ("later", "x", FILE)], "\"later\", which is not before it"),
        (&[("d", "", DIR), ("l", "d", LINK)], "hard link to the folder"),
        (&[(".", "x", FILE)], "it has no name"),
        (&[("s", "", SYMLINK)], "symbolic link has 0 bytes"),
        (&[("odd", "", EntryType::new(b'Z'))], "type 'Z' is not known"),
    ];
    for (entries, words) in cases {
        let text = refusal(&written(&out, &archive(entries)));
        assert!(text.contains(words), "{entries:?}: {text}");
    }
    let good = archive(&[(&long, &"contents ".repeat(300), FILE)]);
    for (bytes, words) in [
        (&good[..300], "ends within a header"),
        (&good[..1000], "ends within the contents"),
        (&good[..good.len() - 1024], "without the block of zeros"),
        (&gzip(&good)[..60], "cannot be read"),
        (&zstd(&good)[..60], "cannot be read"),
    ] {
        let text = refusal(&written(&out, bytes));
        assert!(text.contains(words), "{words}: {text}");
    }
    let trailing = [good.clone(), vec![0; 65 << 20]].concat();
    assert!(refusal(&written(&out, &gzip(&trailing))).contains("behind its end"));
    let mut damaged = gzip(&good);
    let at = damaged.len() - 6;
    damaged[at] ^= 1;
    assert!(refusal(&written(&out, &damaged)).contains("cannot be read"));
}

#[test]
fn absurd_numbers_in_headers_are_refused_at_once() {
    let out = tempfile::tempdir().unwrap();
    let with = |header: Header| -> Vec<u8> { [header.as_bytes().as_slice(), &[0_u8; 2048]].concat() };
    let mut device = header(EntryType::Char, 0);
    device.set_device_major(5000).unwrap();
    device.set_device_minor(0).unwrap();
    let pax = |records: &[(&str, &[u8])]| {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        builder.append(&raw("x", "", header(FILE, 0)), &b""[..]).unwrap();
        builder.into_inner().unwrap()
    };
    let mut owner = header(FILE, 0);
    owner.set_uid(1 << 40);
    let mut sum = raw("x", "", header(FILE, 0));
    sum.as_mut_bytes()[0] = b'y';
    for (bytes, words) in [
        (with(raw("x", "", header(FILE, 1 << 62))), "more than 1099511627776 bytes"),
        (with(raw("x", "", header(FILE, u64::MAX))), "no readable length"),
        (with(raw("x", "", header(EntryType::XHeader, 1 << 40))), "at most 1048576 are read"),
        (with(raw("x", "", header(EntryType::GNULongName, 1 << 30))), "at most 1048576 are read"),
        (with(raw("x", "", owner)), "no readable owner"),
        (with(raw("x", "", device)), "device 5000:0"),
        (with(sum), "checksum is wrong"),
        (pax(&[("GNU.sparse.major", b"1")]), "sparse"),
        (pax(&[("size", b"many")]), "no readable length"),
        (pax(&[("size", b"18446744073709551615")]), "no readable length"),
        (pax(&[("uid", b"-1")]), "no readable owner"),
        (with(raw("x", "", header(EntryType::XHeader, 3))), "malformed"),
    ] {
        let text = refusal(&written(&out, &bytes));
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_tar_that_changes_between_two_readings_is_refused() {
    let out = tempfile::tempdir().unwrap();
    let path = written(&out, &archive(&[("a", "12345", FILE), ("b", "x", FILE)]));
    let mut layer = sources(&path).unwrap().remove(0);
    let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
    let tree = layer.tree(&mut Watch::new(&cancelled, &mut report)).unwrap();
    for now in [&[("a", "123456", FILE), ("b", "x", FILE)][..], &[("a", "12345", FILE)]] {
        fs::write(&path, archive(now)).unwrap();
        let error = layer.contents(&tree, &tree.traversal(), &mut |_, _| Ok(())).unwrap_err();
        assert!(matches!(error, BuildError::Changed { .. }), "{error}");
    }
}
