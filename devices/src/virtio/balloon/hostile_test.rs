//! What no honest driver sends.

use super::tests::{DEFLATE, FRAMES, INFLATE, STATS, all, machine, pfns, send};
use super::*;
use crate::testing::{Buffer, FakeGuest, FrameState};
use crate::virtio::balloon::{CHAIN_PFNS_MAX, EVENTS_MAX, REPORTING_QUEUE};
use proptest::prelude::*;

const REPORTING: u32 = REPORTING_QUEUE as u32;

fn counters(guest: &FakeGuest<Balloon>) -> BalloonCounters {
    *guest.transport().device().counters()
}

#[test]
fn frame_numbers_outside_ram_are_refused_one_by_one() {
    let (mut guest, ram) = machine(all());
    let end = FRAMES as u32;
    send(&mut guest, INFLATE, (end - 10..end + 10).chain([u32::MAX, 1 << 30]));
    assert_eq!(ram.count(FrameState::Ballooned), 10);
    assert_eq!(counters(&guest).refused_pfns, 12);
    assert_eq!((counters(&guest).batches, counters(&guest).runs), (1, 1));
    assert_eq!(guest.transport().device().held_frames(), 10);
}

#[test]
fn a_frame_inflated_twice_counts_once() {
    let (mut guest, ram) = machine(all());
    send(&mut guest, INFLATE, [1000, 1000, 1001, 1000]);
    send(&mut guest, INFLATE, [1000]);
    assert_eq!(ram.count(FrameState::Ballooned), 2);
    let transport = guest.transport();
    assert_eq!((transport.device().held_frames(), transport.device().counters().repeated_frames), (2, 3));
}

#[test]
fn a_frame_that_was_never_given_can_not_be_taken_back() {
    let (mut guest, _) = machine(all());
    send(&mut guest, INFLATE, [1000]);
    send(&mut guest, DEFLATE, 1000..2000);
    send(&mut guest, DEFLATE, 1000..2000);
    let transport = guest.transport();
    assert_eq!((transport.device().held_frames(), transport.device().counters().deflated_frames), (0, 1));
}

#[test]
fn bad_chains_are_answered_and_do_nothing() {
    let (mut guest, ram) = machine(all());
    let list = pfns(&mut guest, 1000..1010);
    let bad = [
        Buffer { writable: true, ..list },
        Buffer { len: 39, ..list },
        Buffer { len: 1, ..list },
        Buffer { gpa: u64::MAX, ..list },
        Buffer { gpa: (FRAMES as u64) << 12, ..list },
        Buffer { len: u32::MAX, ..list },
        Buffer { len: 4 * CHAIN_PFNS_MAX as u32 + 4, ..list },
    ];
    for buffer in bad {
        for queue in [INFLATE, DEFLATE] {
            assert_eq!(guest.send(queue, &[buffer]), Some(0), "{buffer:?}");
        }
    }
    assert_eq!(counters(&guest).bad_chains, 14);
    assert!(ram.calls().is_empty());
    assert_eq!(guest.send(INFLATE, &[list]), Some(0));
    assert_eq!(ram.count(FrameState::Ballooned), 10);
}

#[test]
fn an_empty_list_is_nothing() {
    let (mut guest, ram) = machine(all());
    let nothing = Buffer { gpa: 0x5000, len: 0, writable: false };
    assert_eq!(guest.send(INFLATE, &[nothing]), Some(0));
    assert!(ram.calls().is_empty());
}

#[test]
fn a_loop_of_descriptors_ends() {
    let (mut guest, ram) = machine(all());
    let list = pfns(&mut guest, [1000]);
    guest.write_descriptor(INFLATE, 100, list.gpa, list.len, 1, 101);
    guest.write_descriptor(INFLATE, 101, list.gpa, list.len, 1, 100);
    guest.publish(INFLATE, 100);
    guest.notify(INFLATE);
    assert_eq!(guest.used(INFLATE), [(100, 0)]);
    assert_eq!((counters(&guest).bad_chains, ram.calls().len()), (1, 0));
}

#[test]
fn reports_outside_ram_or_of_the_wrong_direction_are_refused() {
    let (mut guest, ram) = machine(all());
    let end = (FRAMES as u64) << 12;
    for (gpa, len) in
        [(end, 4096), (end - 4096, 8192), (u64::MAX - 4095, 4096), (4096, u32::MAX), (4096, 100)]
    {
        assert_eq!(guest.send(REPORTING, &[Buffer { gpa, len, writable: true }]), Some(0));
    }
    assert_eq!(guest.send(REPORTING, &[Buffer { gpa: 4096, len: 4096, writable: false }]), Some(0));
    assert!(ram.calls().is_empty());
    assert_eq!((counters(&guest).refused_reports, counters(&guest).bad_chains), (5, 1));
}

#[test]
fn statistics_without_a_request_are_returned_unread() {
    let (mut guest, _) = machine(all());
    let buffer = guest.readable(&[0; 10]);
    for turn in 0..100 {
        guest.add(STATS, &[buffer]);
        guest.notify(STATS);
        assert_eq!(guest.used(STATS).len(), usize::from(turn > 0));
    }
    assert_eq!(guest.transport().device().stats(), None);
    assert_eq!(counters(&guest).unasked_stats, 99);
}

#[test]
fn absurd_statistics_are_counted() {
    let (mut guest, _) = machine(all());
    for buffer in [
        Buffer { gpa: 0, len: 1 << 20, writable: false },
        Buffer { gpa: u64::MAX, len: 10, writable: false },
        Buffer { gpa: 0x5000, len: 10, writable: true },
    ] {
        assert_eq!(guest.send(STATS, &[buffer]), None);
        let mut transport = guest.transport();
        assert!(transport.device_mut().request_stats());
        transport.queue_event(STATS_QUEUE);
        drop(transport);
        assert_eq!(guest.used(STATS).len(), 1);
    }
    assert_eq!(counters(&guest).bad_chains, 2);
}

#[test]
fn the_guest_can_write_actual_and_nothing_else() {
    let (guest, _) = machine(all());
    guest.write_config(0, &9u32.to_le_bytes());
    guest.write_config(4, &[1, 2]);
    guest.write_config(8, &9u32.to_le_bytes());
    let transport = guest.transport();
    assert_eq!((transport.device().target_frames(), transport.device().actual_frames()), (0, 0));
    assert_eq!(transport.counters().refused_config_writes, 3);
}

#[test]
fn one_event_does_a_bounded_amount_of_work() {
    let (mut guest, ram) = machine(all());
    for frame in 0..100u32 {
        let buffer = pfns(&mut guest, [1000 + frame]);
        guest.add(INFLATE, &[buffer]);
    }
    assert!(guest.transport().queue_event(INFLATE_QUEUE));
    assert_eq!(ram.count(FrameState::Ballooned), 16);
    guest.notify(INFLATE);
    assert_eq!(ram.count(FrameState::Ballooned), 100);
    assert_eq!(guest.used(INFLATE).len(), 100);
}

#[test]
fn events_that_are_not_fetched_are_dropped_and_counted() {
    let (mut guest, _) = machine(all());
    let before = guest.transport().device_mut().take_events().len();
    assert_eq!(before, 1, "the driver is ready");
    for turn in 0..EVENTS_MAX as u32 + 5 {
        // Two kinds alternate, so that they do not merge.
        guest.write_config(4, &turn.to_le_bytes());
        send(&mut guest, INFLATE, [turn * 2, turn * 2 + 1]);
        guest.transport().device_mut().set_target(turn + 1);
        send(&mut guest, DEFLATE, [turn * 2, turn * 2 + 1]);
    }
    let fetched = guest.transport().device_mut().take_events();
    assert_eq!(fetched.len(), EVENTS_MAX);
    assert!(counters(&guest).dropped_events > 0);
}

#[test]
fn a_queue_that_is_stopped_and_set_up_again_starts_anew() {
    let (mut guest, ram) = machine(all());
    send(&mut guest, INFLATE, [1000]);
    let buffer = guest.readable(&[0; 10]);
    assert_eq!(guest.send(STATS, &[buffer]), None);
    for queue in [INFLATE, STATS] {
        guest.set(0x30, queue);
        guest.set(0x44, 0);
        guest.set_up_queue(queue);
    }
    send(&mut guest, INFLATE, [1001]);
    assert_eq!(ram.count(FrameState::Ballooned), 2);
    // The earlier buffer is returned into rings that never had it: the driver caused it, and it harms only itself.
    let mut transport = guest.transport();
    assert!(transport.device_mut().request_stats());
    transport.queue_event(STATS_QUEUE);
    assert!(transport.is_live());
}

proptest! {
    #[test]
    fn the_host_count_always_equals_the_frames_ballooned(
        steps in prop::collection::vec((0..3u32, prop::collection::vec(0..5000u32, 0..50)), 1..40)
    ) {
        let (mut guest, ram) = machine(all());
        for (kind, list) in steps {
            match kind {
                0 => send(&mut guest, INFLATE, list),
                1 => send(&mut guest, DEFLATE, list),
                _ => {
                    let blocks: Vec<Buffer> = list.iter().take(32)
                        .map(|&frame| Buffer { gpa: u64::from(frame) << 12, len: frame * 7, writable: true })
                        .collect();
                    if !blocks.is_empty() {
                        guest.send(REPORTING, &blocks);
                    }
                }
            }
            prop_assert_eq!(guest.transport().device().held_frames(), ram.count(FrameState::Ballooned));
        }
        let counters = counters(&guest);
        prop_assert_eq!(counters.inflated_frames - counters.deflated_frames, ram.count(FrameState::Ballooned));
        prop_assert_eq!(guest.transport().counters().queue_errors, 0);
    }

    #[test]
    fn any_descriptors_are_answered_or_need_a_reset(
        descriptors in prop::collection::vec((any::<u64>(), any::<u32>(), 0..8u16, 0..200u16), 1..128),
        heads in prop::collection::vec(0..140u16, 1..64),
        queue in 0..5u32,
    ) {
        let (mut guest, _) = machine(all());
        let size = guest.transport().device().queue_sizes()[queue as usize];
        for (at, (gpa, len, flags, next)) in descriptors.into_iter().enumerate().take(size.into()) {
            let gpa = if flags & 4 == 0 { gpa % (1 << 25) } else { gpa };
            guest.write_descriptor(queue, at as u16, gpa, len >> 8, flags, next);
        }
        let heads: Vec<u16> = heads.into_iter().take(size.into()).collect();
        let honest = heads.iter().all(|&head| head < size);
        for &head in &heads {
            guest.publish(queue, head);
        }
        guest.notify(queue);
        let live = guest.transport().is_live();
        prop_assert_eq!(live, honest);
        if live {
            // The host keeps one statistics buffer.
            let kept = usize::from(queue == STATS);
            prop_assert_eq!(guest.used(queue).len(), heads.len() - kept);
        }
    }
}
