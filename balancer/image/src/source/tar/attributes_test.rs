use super::*;

fn of(records: &[(&str, &[u8])], mode: u16) -> Attributes {
    let records = records.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.to_vec()));
    Attributes::of(records.collect(), mode)
}

#[test]
fn every_spelling_of_an_attribute_is_read_and_the_first_of_the_table_wins() {
    let found = of(
        &[
            ("SCHILY.xattr.user.a%3Db%25", b"\n=\0"),
            ("LIBARCHIVE.xattr.user.c%20d", b"AQIDBA"),
            ("LIBARCHIVE.xattr.user.e", b"AQID\n"),
            ("SCHILY.xattr.user.e", b"own"),
            ("RHT.security.capability", b"cap"),
            ("RHT.security.selinux", b"label"),
            ("SCHILY.xattr.user.empty", b""),
            ("mtime", b"1"),
        ],
        0o644,
    );
    let expected: [(&[u8], &[u8]); 5] = [
        (b"security.capability", b"cap"),
        (b"user.a=b%", b"\n=\0"),
        (b"user.c d", b"\x01\x02\x03\x04"),
        (b"user.e", b"own"),
        (b"user.empty", b""),
    ];
    let found: Vec<(&[u8], &[u8])> =
        found.xattrs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(found, expected);
}

#[test]
fn access_control_lists_set_the_permissions_that_belong_to_them() {
    let list = b"user::rw-,user:1000:rw-,group::r--,mask::rw-,other::---";
    let found = of(&[("SCHILY.acl.access", list), ("SCHILY.acl.default", list)], 0o660);
    assert_eq!(found.permissions, Some(0o660));
    assert_eq!((found.xattrs.len(), found.remarks.len()), (2, 0));
    let minimal = of(&[("SCHILY.acl.access", b"user::rw-,group::r--,other::---")], 0o640);
    assert!(minimal.xattrs.is_empty());
    let named = of(&[("SCHILY.acl.access", b"u::rwx,u:joe:rwx,g::---,m::rwx,o::---")], 0o770);
    assert_eq!((named.permissions, named.xattrs.len()), (Some(0o700), 0));
    assert!(named.remarks[0].contains("--numeric-owner"), "{:?}", named.remarks);
    assert_eq!(of(&[("SCHILY.acl.ace", b"x"), ("LIBARCHIVE.xattr.user.x", b"!")], 0).remarks.len(), 2);
}
