use super::*;
use crate::testing::{Buffer, FakeGuest};

fn guest() -> FakeGuest<Entropy> {
    FakeGuest::ready(1 << 20, Entropy::new(), u64::MAX)
}

#[test]
fn a_buffer_comes_back_random() {
    let mut guest = guest();
    let (one, two) = (guest.writable(64), guest.writable(64));
    assert_eq!(guest.send(0, &[one]), Some(64));
    assert_eq!(guest.send(0, &[two]), Some(64));
    assert_ne!(guest.contents(one), guest.contents(two));
    assert_ne!(guest.contents(one), [0; 64]);
    assert_eq!(guest.transport().device().counters().given_bytes, 128);
}

#[test]
fn a_request_is_bounded() {
    let mut guest = guest();
    let big = guest.writable(3 * REQUEST_BYTES_MAX);
    assert_eq!(guest.send(0, &[big]), Some(REQUEST_BYTES_MAX as u32));
    assert!(guest.contents(big)[REQUEST_BYTES_MAX..].iter().all(|&byte| byte == 0));
}

#[test]
fn bad_requests_are_answered_and_counted() {
    let mut guest = guest();
    let readable = guest.readable(b"secret");
    assert_eq!(guest.send(0, &[readable]), Some(0));
    assert_eq!(guest.contents(readable), b"secret");
    assert_eq!(guest.send(0, &[Buffer { gpa: 1 << 40, len: 8, writable: true }]), Some(0));
    assert_eq!(guest.transport().device().counters().bad_chains, 2);
    let good = guest.writable(8);
    assert_eq!(guest.send(0, &[good]), Some(8));
}
