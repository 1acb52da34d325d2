//! A limit on descriptors. In a process of its own, because it applies to the whole process.

#![allow(clippy::unwrap_used, reason = "a test")]

use vmm::objects::{FdLimit, fds_expected};

#[test]
fn a_limit_on_descriptors_is_never_below_the_open_ones() {
    let (before, open) = (FdLimit::read().unwrap(), u64::from(fds_expected()));
    let whole = before.set(None).unwrap();
    let bounded = before.set(Some(0)).unwrap();
    assert!(bounded >= open && bounded < whole, "{bounded} of {whole} with {open} in use");
    let opened: Vec<_> = (0..=bounded).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
    assert!(!opened.is_empty() && (opened.len() as u64) < bounded, "{} were opened", opened.len());
    drop(opened);
    assert_eq!(before.set(Some(u32::MAX)).unwrap(), whole, "never above the limit at the start");
    assert_eq!(before.set(None).unwrap(), whole);
    let many: Vec<_> = (0..=bounded).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
    assert!(many.len() as u64 > bounded);
}
