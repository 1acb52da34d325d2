use super::*;
use crate::testing::{Buffer, FakeGuest};
use crate::virtio::entropy::Entropy;
use crate::virtio::queue::pop;
use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};

const RAM: usize = 1 << 20;
const NEXT: u16 = 1;
const INDIRECT: u16 = 4;

/// A guest with one queue of 64 entries, and that queue as a device sees it.
fn guest() -> (FakeGuest<Entropy>, Queue) {
    let guest = FakeGuest::ready(RAM, Entropy::new(), u64::MAX);
    let mut queue = Queue::new(64).unwrap();
    queue.set_desc_table_address(Some(0x1000), None);
    queue.set_avail_ring_address(Some(0x3000), None);
    queue.set_used_ring_address(Some(0x4000), None);
    queue.set_ready(true);
    (guest, queue)
}

fn of(guest: &FakeGuest<Entropy>, queue: &mut Queue) -> Result<(usize, usize), ChainError> {
    let chain = pop(&guest.mem, queue).unwrap().expect("a chain is available");
    Buffers::of(&guest.mem, chain).map(|buffers| (buffers.readable.len(), buffers.writable.len()))
}

#[test]
fn readable_and_writable_bytes_are_kept_apart() {
    let (mut guest, mut queue) = guest();
    let chain = [guest.readable(b"abc"), guest.readable(b"de"), guest.writable(7)];
    guest.add(0, &chain);
    assert_eq!(of(&guest, &mut queue), Ok((5, 7)));
}

#[test]
fn chains_that_a_driver_must_not_send_are_refused() {
    let (mut guest, mut queue) = guest();
    let (readable, writable) = (guest.readable(b"abc"), guest.writable(3));
    guest.add(0, &[writable, readable]);
    assert_eq!(of(&guest, &mut queue), Err(ChainError::Direction));

    let end = RAM as u64;
    for (gpa, len) in [(end, 1), (end - 1, 2), (u64::MAX, 1), (u64::MAX - 5, 100), (0, u32::MAX)] {
        guest.add(0, &[Buffer { gpa, len, writable: false }]);
        assert_eq!(of(&guest, &mut queue), Err(ChainError::OutsideRam { gpa, len }));
    }

    // A loop, a descriptor that does not exist, and indirect tables that are not there or say nothing.
    for (flags, next, len, gpa) in [
        (NEXT, 40, 1, 0x1000),
        (NEXT, 64, 1, 0x1000),
        (NEXT, u16::MAX, 1, 0x1000),
        (INDIRECT, 0, 16, u64::MAX),
        (INDIRECT, 0, 15, 0x1000),
        (INDIRECT, 0, 0, 0x1000),
        (INDIRECT | NEXT, 0, u32::MAX, 0x1000),
    ] {
        guest.write_descriptor(0, 40, gpa, len, flags, next);
        guest.publish(0, 40);
        assert_eq!(of(&guest, &mut queue), Err(ChainError::Broken), "flags {flags} next {next} len {len}");
    }

    // Each buffer is in RAM, and they overlap: that is odd, but does no harm.
    let big = Buffer { gpa: 0, len: RAM as u32, writable: false };
    guest.add(0, &vec![big; 63]);
    assert_eq!(of(&guest, &mut queue), Ok((63 * RAM, 0)));
}

proptest! {
    #[test]
    fn bytes_come_out_as_they_lie_however_they_are_cut(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..10),
        cuts in prop::collection::vec(0..50usize, 0..20),
    ) {
        let (mut guest, mut queue) = guest();
        let buffers: Vec<Buffer> = pieces.iter().map(|piece| guest.readable(piece)).collect();
        guest.add(0, &buffers);
        let chain = pop(&guest.mem, &mut queue).unwrap().unwrap();
        let mut segments = Buffers::of(&guest.mem, chain).unwrap().readable;
        let all = pieces.concat();
        let mut seen = Vec::new();
        for cut in cuts {
            let mut part = vec![0; cut];
            let before = segments.len();
            let count = segments.read(&mut part);
            prop_assert_eq!(count, cut.min(before));
            prop_assert_eq!(segments.len(), before - count);
            seen.extend_from_slice(&part[..count]);
        }
        prop_assert_eq!(&seen[..], &all[..seen.len()]);
        prop_assert_eq!(segments.len(), all.len() - seen.len());
    }

    #[test]
    fn bytes_go_where_they_belong(
        lens in prop::collection::vec(0..40usize, 1..10),
        data in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let (mut guest, mut queue) = guest();
        let buffers: Vec<Buffer> = lens.iter().map(|&len| guest.writable(len)).collect();
        guest.add(0, &buffers);
        let chain = pop(&guest.mem, &mut queue).unwrap().unwrap();
        let room: usize = lens.iter().sum();
        let mut segments = Buffers::of(&guest.mem, chain).unwrap().writable;
        prop_assert_eq!(segments.write(&data), room.min(data.len()));
        let written: Vec<u8> = buffers.iter().flat_map(|&buffer| guest.contents(buffer)).collect();
        let count = room.min(data.len());
        prop_assert_eq!(&written[..count], &data[..count]);
        prop_assert!(written[count..].iter().all(|&byte| byte == 0));
    }
}
