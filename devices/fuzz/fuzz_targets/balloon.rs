//! A guest whose balloon queues hold whatever the fuzzer likes: descriptors, rings and lists of frame numbers.
//!
//! Input: records of a queue number, then a descriptor table entry, list bytes, or a head to publish.

#![no_main]

use devices::testing::{FakeGuest, FakeRam, FrameState};
use devices::virtio::Balloon;
use devices::virtio::balloon::{BalloonOptions, STATS_QUEUE};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

const FRAMES: usize = 256;
const LISTS_BASE: u64 = 0x40_000;

fuzz_target!(|data: &[u8]| {
    let options = BalloonOptions { deflate_on_oom: true, free_page_reporting: true, stats: true };
    let ram = FakeRam::new(FRAMES);
    let balloon = Balloon::new(FRAMES as u64, Box::new(ram.clone()), options);
    let mut guest = FakeGuest::ready(FRAMES << 12, balloon, u64::MAX);
    let (records, _) = data.as_chunks::<16>();
    for record in records {
        let [op, queue, at, flags, next, lens @ ..] = *record;
        let queue = u32::from(queue % 5);
        match op % 8 {
            0..=2 => {
                let len = u32::from_le_bytes([lens[0], lens[1], 0, 0]);
                let offset = u64::from(u16::from_le_bytes([lens[2], lens[3]]));
                let wild = u64::from(lens[4] & 1) << 40;
                let at = u16::from(at) % 16;
                guest.write_descriptor(queue, at, LISTS_BASE + offset + wild, len, flags.into(), next.into());
            }
            3 => {
                let place = LISTS_BASE + u64::from(at) * 4;
                guest.mem.write_slice(&lens, GuestAddress(place)).expect("lists are in RAM");
            }
            4..=5 => guest.publish(queue, u16::from(at) % 16),
            6 if flags % 8 == 0 => guest.set_avail_index(queue, u16::from_le_bytes([lens[0], lens[1]])),
            6 => {
                let mut transport = guest.transport();
                transport.device_mut().request_stats();
                transport.queue_event(STATS_QUEUE);
            }
            _ => guest.notify(queue),
        }
        let transport = guest.transport();
        assert_eq!(transport.device().held_frames(), ram.count(FrameState::Ballooned));
    }
});
