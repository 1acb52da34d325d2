use super::*;
use crate::testing::{Buffer, FakeGuest, IMAGE_BASE, memory_with_image};

const RAM: usize = 1 << 20;

fn guest() -> FakeGuest<Pmem> {
    let mut guest = FakeGuest::on(memory_with_image(RAM, &[7; 8192]), Pmem::new(IMAGE_BASE, 8192));
    guest.probe(u64::MAX);
    guest
}

fn request(guest: &mut FakeGuest<Pmem>, kind: u32) -> (Option<u32>, Vec<u8>) {
    let (question, answer) = (guest.readable(&kind.to_le_bytes()), guest.readable(&[0xee; 4]));
    let written = guest.send(0, &[question, Buffer { writable: true, ..answer }]);
    (written, guest.contents(answer))
}

#[test]
fn the_configuration_says_where_the_image_is() {
    let guest = guest();
    assert_eq!(u64::from_le_bytes(guest.read_config(0)), IMAGE_BASE);
    assert_eq!(u64::from_le_bytes(guest.read_config(8)), 8192);
    assert_eq!(guest.read_config::<4>(16), [0; 4]);
    guest.write_config(0, &[1; 8]);
    assert_eq!(guest.transport().counters().refused_config_writes, 1);
    let transport = guest.transport();
    assert_eq!((transport.device().id(), transport.device().features()), (27, 0));
}

#[test]
fn flushes_are_answered_at_once_however_many() {
    let mut guest = guest();
    for _ in 0..500 {
        assert_eq!(request(&mut guest, 0), (Some(4), vec![0; 4]));
    }
    assert_eq!(guest.transport().device().counters(), &PmemCounters { flushes: 500, ..Default::default() });
}

#[test]
fn a_request_other_than_a_flush_is_an_error_for_the_guest() {
    let mut guest = guest();
    for kind in [1, 2, 0x8000_0000, u32::MAX] {
        assert_eq!(request(&mut guest, kind), (Some(4), vec![1, 0, 0, 0]));
    }
    assert_eq!(guest.transport().device().counters().unsupported, 4);
}

#[test]
fn malformed_requests_are_answered_and_counted() {
    let mut guest = guest();
    let (question, answer) = (guest.readable(&[0; 4]), guest.writable(4));
    let (short, little) = (guest.readable(&[0; 3]), guest.writable(3));
    let outside = Buffer { gpa: 1 << 40, len: 4, writable: true };
    for chain in [
        &[question][..],
        &[answer],
        &[short, answer],
        &[question, little],
        &[answer, question],
        &[question, outside],
    ] {
        assert_eq!(guest.send(0, chain), Some(0), "{chain:?}");
    }
    assert_eq!(guest.transport().device().counters().bad_chains, 6);
    assert_eq!(request(&mut guest, 0), (Some(4), vec![0; 4]));
}

/// I3: an answer into the image is not written; a request may lie there.
#[test]
fn i3_a_flush_that_wants_its_answer_in_the_image_gets_none() {
    let mut guest = guest();
    let question = guest.readable(&[0; 4]);
    let inside = Buffer { gpa: IMAGE_BASE, len: 4, writable: true };
    assert_eq!(guest.send(0, &[question, inside]), Some(0));
    assert_eq!(guest.contents(inside), [7; 4]);
    let answer = guest.writable(4);
    assert_eq!(guest.send(0, &[Buffer { writable: false, ..inside }, answer]), Some(4));
    assert_eq!(guest.contents(answer), [1, 0, 0, 0], "7 7 7 7 is not a request of the specification");
}
