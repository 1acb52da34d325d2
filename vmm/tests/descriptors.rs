//! A limit on descriptors, in a process of its own: it holds for all of it.

#![allow(clippy::unwrap_used, reason = "a test")]

use vmm::objects::{FdLimit, fds_expected};

#[test]
fn descriptors_are_bounded_but_never_below_what_is_open() {
    let (before, open) = (FdLimit::read().unwrap(), u64::from(fds_expected()));
    let whole = before.set(None).unwrap();
    let bounded = before.set(Some(0)).unwrap();
    assert!(bounded >= open && bounded < whole, "{bounded} of {whole} with {open} in use");
    let opened: Vec<_> = (0..=bounded).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
    assert!(!opened.is_empty() && (opened.len() as u64) < bounded, "{} were opened", opened.len());
    drop(opened);
    assert_eq!(before.set(Some(u32::MAX)).unwrap(), whole, "never above what it was");
    assert_eq!(before.set(None).unwrap(), whole);
    let many: Vec<_> = (0..=bounded).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
    assert!(many.len() as u64 > bounded);
}
