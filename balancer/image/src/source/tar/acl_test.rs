use super::*;

#[test]
fn long_short_and_star_texts_are_one_list() {
    let texts = [
        "user::rw-,user:1000:rw-,group::r--,mask::rw-,other::---",
        "u::rw-\nu:1000:rw-\ng::r--\nm::rw-\no::---\n",
        "other::---,mask::rw-,group::r--,user:joe:rw-:1000,user::rw-",
        "user::rw-\nuser:1000:rwx\t#effective:rw-\ngroup::r--\nmask:rw-\nother:---".trim(),
        "default:user::rw-,default:user:1000:6,default:group::r--,default:mask::rw-,default:other::0",
    ];
    let lists = texts.map(|text| Acl::parse(text.as_bytes()).unwrap());
    assert!(lists[0] == lists[1] && lists[0] == lists[2] && lists[0] == lists[4]);
    assert_eq!(lists[3].0[1], (USER, 1000, 7));
    assert!(lists[0].is_extended());
    assert_eq!(lists[0].permissions(), 0o660);
    let bytes = [
        [2, 0, 0, 0].as_slice(),
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 6, 0, 0xe8, 3, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 6, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ];
    assert_eq!(lists[0].encode(), bytes.concat());
}

#[test]
fn a_list_that_cannot_be_kept_says_what_the_group_may() {
    let named = Acl::parse(b"user::rwx,user:joe:rwx,group::r-x,mask::rw-,other::---").unwrap_err();
    assert!(named.why.contains("\"joe\" is a name"));
    assert_eq!(named.group, Some(4));
    for text in
        ["user::rw-", "user::rw-,group::r--,other::---,user:1:r--", "user::rwz,group::r--,other::---", "x"]
    {
        assert!(Acl::parse(text.as_bytes()).is_err(), "{text}");
    }
    let minimal = Acl::parse(b"user::rw-,group::r--,other::---").unwrap();
    assert!(!minimal.is_extended() && minimal.permissions() == 0o640);
    assert!(Acl::parse(b"\n").unwrap().is_empty());
}
