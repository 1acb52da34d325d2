//! What archivers write in different ways.

use super::*;

/// Key and value of an extended header.
type Record<'a> = (&'a str, &'a [u8]);

/// A block with fields at their places, and its checksum.
fn block(fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut header = Header::new_old();
    for (at, bytes) in fields {
        header.as_mut_bytes()[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn ended(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend([0; 1024]);
    bytes
}

fn nodes_of(bytes: &[u8]) -> Nodes {
    let out = tempfile::tempdir().unwrap();
    image(&written(&out, bytes)).0
}

/// What is left out of an archive.
fn warnings(bytes: &[u8]) -> Vec<String> {
    let out = tempfile::tempdir().unwrap();
    let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
    let mut watch = Watch::new(&cancelled, &mut report);
    open(&written(&out, bytes), out.path(), &mut watch).unwrap();
    watch.warnings()
}

#[test]
fn a_leading_slash_is_the_root_of_the_image() {
    let nodes = nodes_of(&archive(&[
        ("/", "", DIR),
        ("/usr/bin/a", "1", FILE),
        ("./usr/bin/../b", "2", FILE),
        ("/usr/c", "/usr/bin/a", LINK),
        ("s", "/usr", SYMLINK),
        ("s/d", "3", FILE),
    ]));
    assert_eq!((nodes["/usr/c"].links, nodes["/usr/b"].held.as_slice()), (2, b"2".as_slice()));
    assert_eq!((nodes["/usr/d"].held.as_slice(), nodes["/"].mode), (b"3".as_slice(), 0o040_644));
}

#[test]
fn the_last_entry_of_a_name_wins_whatever_it_was() {
    let nodes = nodes_of(&archive(&[
        ("d/x", "1", FILE),
        ("d", "a file", FILE),
        ("f", "x", FILE),
        ("f/", "", DIR),
        ("f/x", "2", FILE),
        ("l", "nowhere", SYMLINK),
        ("l/", "", DIR),
        ("e/x", "1", FILE),
        ("e", "f/x", LINK),
    ]));
    assert_eq!(
        (nodes["/d"].held.as_slice(), nodes["/f/x"].held.as_slice()),
        (b"a file".as_slice(), b"2".as_slice())
    );
    assert_eq!((nodes["/l"].mode, nodes["/e"].links), (0o040_644, 2));
    assert!(!nodes.contains_key("/d/x"));
}

#[test]
fn blank_binary_and_signed_numbers_and_old_headers_are_read() {
    let mut bytes = block(&[(0, b"blank"), (108, b"        "), (156, b"0")]);
    bytes.extend(block(&[
        (0, b"binary"),
        (100, b"0000644\0"),
        (108, b"\x80\0\0\0\xff\xff\xff\xfe"),
        (116, b"   1750 "),
        (124, b"\x80\0\0\0\0\0\0\0\0\0\0\x03"),
        (156, b"0"),
        (257, b"ustar  \0"),
    ]));
    bytes.extend(b"abc");
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    // A folder of before 1988, and a link whose header has the length of its target.
    bytes.extend(block(&[(0, b"old/"), (100, b"0000700\0"), (124, b"00000000000\0")]));
    bytes.extend(block(&[(0, b"link"), (124, b"00000000006\0"), (156, b"2"), (157, b"binary")]));
    let mut signed = block(&[(0, b"caf\xe9"), (100, b"0000644\0"), (156, b"0")]);
    let sum: i32 = signed.iter().map(|byte| i32::from(byte.cast_signed())).sum::<i32>()
        - signed[148..156].iter().map(|byte| i32::from(*byte)).sum::<i32>()
        + 8 * 32;
    signed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes.extend(signed);
    let nodes = nodes_of(&ended(bytes));
    assert_eq!((nodes["/blank"].mode, nodes["/blank"].owner), (0o100_000, (0, 0)));
    assert_eq!(
        (nodes["/binary"].owner, nodes["/binary"].held.as_slice()),
        ((4_294_967_294, 1000), b"abc".as_slice())
    );
    assert_eq!((nodes["/old"].mode, nodes["/link"].held.as_slice()), (0o040_700, b"binary".as_slice()));
    assert_eq!(nodes.len(), 6);
}

fn with_records(global: &[(&str, &[u8])], local: &[(&str, &[u8])], member: Header, held: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, records) in [(EntryType::XGlobalHeader, global), (EntryType::XHeader, local)] {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|length| rest + length.to_string().len() == *length).unwrap();
            text.extend(format!("{length} {key}=").as_bytes());
            text.extend(*value);
            text.push(b'\n');
        }
        bytes.extend(raw("pax", "", header(kind, text.len() as u64)).as_bytes());
        bytes.extend(text);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend(member.as_bytes());
    bytes.extend(held);
    ended(bytes)
}

#[test]
fn a_global_header_holds_until_a_local_one_says_otherwise() {
    let global: [(&str, &[u8]); 4] = [("uid", b"7"), ("gid", b"8"), ("path", b"no"), ("comment", b"x")];
    let nodes = nodes_of(&with_records(
        &global,
        &[("uid", b"9"), ("path", b"")],
        raw("x", "", header(FILE, 1)),
        b"1",
    ));
    assert_eq!(nodes["/x"].owner, (9, 8));
}

#[test]
fn sparse_files_of_every_version_have_their_holes() {
    let segments = "512,3,2048,2";
    let mut held = vec![0; 2050];
    held[512..515].copy_from_slice(b"abc");
    held[2048..].copy_from_slice(b"de");
    let mut with_map = b"2\n512\n3\n2048\n2\n".to_vec();
    with_map.resize(512, 0);
    with_map.extend(b"abcde");
    let records: [(&[Record<'_>], &[u8]); 3] = [
        (
            &[
                ("GNU.sparse.size", b"2050"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"512"),
                ("GNU.sparse.numbytes", b"3"),
                ("GNU.sparse.offset", b"2048"),
                ("GNU.sparse.numbytes", b"2"),
            ],
            b"abcde",
        ),
        (&[("GNU.sparse.size", b"2050"), ("GNU.sparse.map", segments.as_bytes())], b"abcde"),
        (
            &[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"x"),
                ("GNU.sparse.realsize", b"2050"),
            ],
            &with_map,
        ),
    ];
    for (records, stored) in records {
        let member = raw("x", "", header(FILE, stored.len() as u64));
        assert_eq!(nodes_of(&with_records(&[], records, member, stored))["/x"].held, held, "{records:?}");
    }
    // The old form, with a block of segments behind the header.
    let mut bytes = block(&[
        (0, b"x"),
        (124, b"00000000005\0"),
        (156, b"S"),
        (257, b"ustar  \0"),
        (386, b"00000001000\x0000000000003\x00"),
        (482, b"\x01"),
        (483, b"00000004002\0"),
    ]);
    let mut more = vec![0; 512];
    more[..24].copy_from_slice(b"00000004000\x0000000000002\x00");
    bytes.extend(more);
    bytes.extend(b"abcde");
    assert_eq!(nodes_of(&ended(bytes))["/x"].held, held);
    for map in ["512,3,100,2", "512,3,2049,2", "512,3,2048,9", "512", "1,x"] {
        let records: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"2050"), ("GNU.sparse.map", map.as_bytes())];
        let out = tempfile::tempdir().unwrap();
        let bytes = with_records(&[], &records, raw("x", "", header(FILE, 5)), b"abcde");
        assert!(refusal(&written(&out, &bytes)).contains("--sparse"), "{map}");
    }
}

#[test]
fn zeros_behind_the_end_are_padding_and_other_bytes_a_warning() {
    let tar = archive(&[("a", "1", FILE)]);
    for packed in [gzip(&tar), zstd(&tar)] {
        let padded = [packed.clone(), vec![0; 10_240]].concat();
        assert!(warnings(&padded).is_empty());
        let more = warnings(&[packed, b"\nmore".to_vec()].concat());
        assert!(more.len() == 1 && more[0].contains("5 bytes behind its compressed part"), "{more:?}");
    }
    assert!(warnings(&[tar.clone(), vec![0; 2 << 20]].concat()).is_empty());
    let two = warnings(&[tar.clone(), tar.clone()].concat());
    assert!(two.len() == 1 && two[0].contains("behind the end of the tar"), "{two:?}");
    // A tar that does not end before its compressed part does is truncated, whatever follows.
    let out = tempfile::tempdir().unwrap();
    let torn = [gzip(&tar[..tar.len() - 1024]), b"more".to_vec()].concat();
    assert!(refusal(&written(&out, &torn)).contains("truncated"));
}

#[test]
fn what_is_left_out_of_a_member_is_a_warning_with_its_name() {
    let records: [(&str, &[u8]); 1] =
        [("SCHILY.acl.access", b"user::rw-,user:joe:rw-,group::r--,mask::rw-,other::---")];
    let bytes = with_records(&[], &records, raw("srv/x", "", header(FILE, 0)), b"");
    let said = warnings(&bytes);
    assert!(said.len() == 1 && said[0].contains("\"srv/x\"") && said[0].contains("joe"), "{said:?}");
}
