//! Writes the inputs that fuzzing starts from: archives of a few kinds, two layers, and the documents of an image.
//!
//! `seeds FOLDER` makes a folder of each target in it.

use std::path::Path;
use tar::{Builder, EntryType, Header};

const SEPARATOR: &[u8] = b"\0--\0";
const INDEX: &str = r#"{"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", @1,
    "platform": {"os": "linux", "architecture": "amd64", "variant": "v2"}, "annotations": null}]}"#;
const MANIFEST: &str = r#"{"schemaVersion": 2, "config": {"mediaType": "application/vnd.oci.image.config.v1+json", @2},
    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", @3}]}"#;
const CONFIG: &str = r#"{"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": []}}"#;

/// A member: name, type, target, contents.
type Member<'a> = (&'a str, u8, &'a str, &'a [u8]);

fn archive(records: &[(&str, &[u8])], members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    if !records.is_empty() {
        builder.append_pax_extensions(records.iter().copied()).expect("in memory");
    }
    for (name, kind, link, contents) in members {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(*kind));
        header.set_mode(0o755);
        header.set_size(contents.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, *contents).expect("in memory");
    }
    builder.into_inner().expect("in memory")
}

fn main() {
    let folder = std::env::args_os().nth(1).expect("seeds FOLDER");
    let plain = archive(
        &[],
        &[
            ("d/", b'5', "", b""),
            ("d/f", b'0', "", b"held"),
            ("l", b'2', "d", b""),
            ("l/h", b'1', "/d/f", b""),
        ],
    );
    let attributes = archive(
        &[
            ("SCHILY.xattr.user.a", b"1"),
            ("LIBARCHIVE.xattr.user.b", b"AQID"),
            ("SCHILY.acl.access", b"user::rw-,user:1:r--,group::r--,mask::r--,other::---"),
        ],
        &[("f", b'0', "", b"x")],
    );
    let sparse = archive(
        &[("GNU.sparse.size", b"2050"), ("GNU.sparse.map", b"512,3,2048,2")],
        &[("f", b'0', "", b"abcde")],
    );
    let long = archive(&[], &[("././@LongLink", b'L', "", b"a/long/name\0"), ("short", b'0', "", b"x")]);
    let upper = archive(
        &[],
        &[("d/.wh.f", b'0', "", b""), ("l/.wh..wh..opq", b'0', "", b""), ("h", b'1', "d/f", b"")],
    );
    let layers = [plain.as_slice(), SEPARATOR, &upper].concat();
    let parts = [INDEX.as_bytes(), MANIFEST.as_bytes(), CONFIG.as_bytes(), &plain];
    let layout = parts.join(SEPARATOR);
    for (target, seeds) in [
        ("archive", vec![plain, attributes, sparse, long]),
        ("layers", vec![layers]),
        ("layout", vec![layout, INDEX.into(), MANIFEST.into()]),
    ] {
        let folder = Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder).expect("a folder");
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(number.to_string()), seed).expect("a file");
        }
    }
}
