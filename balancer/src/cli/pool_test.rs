use super::*;
use crate::objects::{PoolGuestObject, PoolPayerObject, PoolShortfall, SharerObject};
use protocol::image::Backing;

fn mib(n: u64) -> u64 {
    n << 20
}

fn pool() -> PoolObject {
    let sharer = |guest: &str| SharerObject { guest: guest.into(), mapped_bytes: mib(50), age_ms: Some(1) };
    let image = PoolImageObject {
        digest: Digest::new([0xab; 32]),
        domain: "web".into(),
        origin: "/srv/lib".into(),
        bytes: mib(256),
        backing: Backing::Pagecache,
        resident_bytes: mib(90),
        mapped_bytes: mib(80),
        alone_bytes: mib(200),
        saved_bytes: mib(120),
        error_bytes: 0,
        age_ms: Some(1),
        bound_to: Some("/lib".parse().unwrap()),
        changed: None,
        books_bytes: 0,
        sharers: vec![sharer("a"), sharer("b")],
    };
    PoolObject {
        container: "/common".parse().unwrap(),
        max_bytes: None,
        resident_bytes: mib(90),
        mapped_bytes: mib(80),
        alone_bytes: mib(200),
        charged_bytes: mib(90),
        saved_bytes: mib(120),
        would_have_saved_bytes: mib(7),
        error_bytes: 0,
        age_ms: Some(1),
        uncharged_frames: 0,
        images: vec![image],
        containers: vec![PoolPayerObject {
            container: "/common".parse().unwrap(),
            alone_bytes: 0,
            charged_bytes: mib(10),
            saved_bytes: 0,
        }],
        guests: vec![PoolGuestObject {
            guest: "a".into(),
            alone_bytes: mib(100),
            charged_bytes: mib(40),
            saved_bytes: mib(60),
        }],
        shortfalls: vec![PoolShortfall {
            container: "/lib".parse().unwrap(),
            max_bytes: mib(60),
            mapped_bytes: mib(80),
            kept_bytes: 0,
            missing_bytes: mib(20),
        }],
    }
}

#[test]
fn the_pool_is_shown_in_tables() {
    let text = report(&pool());
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(text.starts_with(
        "90M held, 80M of it mapped; without sharing the guests would hold 200M: 120M saved, 7M more"
    ));
    let image = &lines[3];
    assert_eq!(image[..7], ["sha256:abababababab", "web", "256M", "90M", "80M", "200M", "120M"]);
    assert_eq!(image[7..], ["a", "b", "bound", "to", "/lib"]);
    for row in [["/common", "0B", "10M", "0B"], ["a", "100M", "40M", "60M"]] {
        assert!(lines.iter().any(|line| line[..] == row), "{row:?} in {text}");
    }
    assert!(
        text.contains("/lib: max is 60M, but guests map 80M of the pages that it is charged for"),
        "{text}"
    );
    assert!(text.ends_with("next to them: 20M too much\n"), "{text}");
}

#[test]
fn a_path_becomes_absolute_and_a_name_stays() {
    assert_eq!(absolute("sha256:12345678"), "sha256:12345678");
    assert_eq!(absolute("/not/there"), "/not/there");
    assert!(absolute("./x").starts_with('/') && absolute(".").starts_with('/'));
}
