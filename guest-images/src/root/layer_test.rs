use super::*;
use crate::scratch::Scratch;
use std::fs;

/// Writes an archive as `mmdebstrap` does: a kind by the first letter of each line, a path, a content or a target.
fn archive(path: &Path, lines: &str) {
    let mut builder = Builder::new(File::create(path).unwrap());
    for line in lines.lines() {
        let words: Vec<&str> = line.trim().splitn(3, ' ').collect();
        let (kind, name, rest) = (words[0], format!("./{}", words[1]), words.get(2).copied().unwrap_or(""));
        let mut header = Header::new_gnu();
        header.set_mtime(77);
        header.set_mode(if kind == "d" { 0o755 } else { 0o640 });
        header.set_uid(5);
        header.set_gid(6);
        header.set_size(0);
        match kind {
            "d" => {
                header.set_entry_type(EntryType::Directory);
                builder.append_data(&mut header, name, io::empty()).unwrap();
            }
            "f" => {
                header.set_size(rest.len() as u64);
                builder.append_data(&mut header, name, rest.as_bytes()).unwrap();
            }
            "l" => {
                header.set_entry_type(EntryType::Symlink);
                builder.append_link(&mut header, name, rest).unwrap();
            }
            "h" => {
                header.set_entry_type(EntryType::Link);
                builder.append_link(&mut header, name, format!("./{rest}")).unwrap();
            }
            _ => {
                header.set_entry_type(EntryType::Char);
                builder.append_data(&mut header, name, io::empty()).unwrap();
            }
        }
    }
    builder.finish().unwrap();
}

/// What a layer says, a line for each entry.
fn layer(below: Option<&str>, lines: &str) -> Vec<String> {
    let scratch = Scratch::new("layer");
    let at = |name: &str| scratch.path().join(name);
    let tree = |name: &str, lines: &str| {
        archive(&at(name), lines);
        Tree::open(&at(name)).unwrap()
    };
    let below = below.map(|lines| tree("below", lines));
    tree("tree", lines).write(below.as_ref(), &at("out")).unwrap();
    let mut archive = Archive::new(File::open(at("out")).unwrap());
    let described = |entry: io::Result<tar::Entry<'_, File>>| {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        let link =
            entry.link_name().unwrap().map(|link| format!(" -> {}", link.display())).unwrap_or_default();
        let kind = if entry.header().entry_type() == EntryType::Link { "hard " } else { "" };
        format!("{kind}{}{link} {content}", entry.path().unwrap().display()).trim_end().to_string()
    };
    archive.entries().unwrap().map(described).collect()
}

#[test]
fn paths_are_in_order_and_times_are_gone() {
    assert_eq!(layer(None, "d b\nf b/y 1\nf a 2\nl c b/y"), ["a 2", "b", "b/y 1", "c -> b/y"]);
}

#[test]
fn what_is_below_is_not_said_again() {
    let below = "d etc\nf etc/passwd root\nf etc/same x\nd usr\nf usr/a 1";
    let above = "d etc\nf etc/passwd root redis\nf etc/same x\nd usr\nf usr/a 1\nd var\nf var/new 2";
    assert_eq!(layer(Some(below), above), ["etc", "etc/passwd root redis", "var", "var/new 2"]);
}

#[test]
fn what_is_gone_becomes_a_whiteout() {
    let below = "d a\nf a/x 1\nf a/y 2\nd gone\nf gone/z 3";
    assert_eq!(layer(Some(below), "d a\nf a/x 1"), ["a/.wh.y", ".wh.gone"]);
}

#[test]
fn a_second_name_of_a_file_below_becomes_a_file() {
    assert_eq!(layer(Some("f perl code"), "f perl code\nh perl5 perl"), ["perl5 code"]);
    assert_eq!(layer(None, "f perl code\nh perl5 perl"), ["perl code", "hard perl5 -> perl"]);
    assert_eq!(layer(None, "f z code\nh a z\nf b x"), ["b x", "z code", "hard a -> z"]);
}

#[test]
fn what_differs_by_machine_is_left_out() {
    let tree = "d dev\nc dev/null\nd var\nd var/log\nd var/log/nginx\nf var/log/nginx/error.log x\n\
                d usr\nd usr/share\nd usr/share/doc\nf usr/share/doc/x y\nd etc\nf etc/hostname me\n\
                l etc/0a1b2c.0 ssl-cert-snakeoil.pem\nf etc/hostname.d x";
    let kept = ["dev", "etc", "etc/hostname.d x", "usr", "usr/share", "var", "var/log", "var/log/nginx"];
    assert_eq!(layer(None, tree), kept);
}

#[test]
fn a_link_to_nothing_is_an_error() {
    let scratch = Scratch::new("layer-link");
    archive(&scratch.path().join("tree"), "h a b");
    let tree = Tree::open(&scratch.path().join("tree")).unwrap();
    let error = tree.write(None, &scratch.path().join("out")).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("a links to b"), "{error:?}");
    fs::write(scratch.path().join("noise"), [7; 5000]).unwrap();
    assert!(Tree::open(&scratch.path().join("noise")).is_err());
}

#[test]
fn versions_are_read() {
    let status = "Package: a\nStatus: install ok installed\nVersion: 1:2-3\n\nPackage: b\nVersion: 4\n\n";
    let expected =
        [("a", "1:2-3"), ("b", "4")].map(|(name, version)| (name.to_string(), version.to_string()));
    assert_eq!(packages(status), BTreeMap::from(expected));
}
