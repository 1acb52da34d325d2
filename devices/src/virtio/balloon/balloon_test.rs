use super::*;
use crate::testing::{Buffer, FakeGuest, FakeRam, FrameState};
use crate::virtio::balloon::{REPORTING_QUEUE, REPORTING_QUEUE_LINUX};

pub(super) const FRAMES: usize = 4096;
pub(super) const INFLATE: u32 = INFLATE_QUEUE as u32;
pub(super) const DEFLATE: u32 = DEFLATE_QUEUE as u32;
pub(super) const STATS: u32 = STATS_QUEUE as u32;

const NUM_PAGES: u64 = 0;
const ACTUAL: u64 = 4;

pub(super) fn all() -> BalloonOptions {
    BalloonOptions { deflate_on_oom: true, free_page_reporting: true, stats: true }
}

pub(super) fn machine(options: BalloonOptions) -> (FakeGuest<Balloon>, FakeRam) {
    let ram = FakeRam::new(FRAMES);
    let balloon = Balloon::new(FRAMES as u64, Box::new(ram.clone()), options);
    (FakeGuest::ready(FRAMES << 12, balloon, u64::MAX), ram)
}

pub(super) fn pfns(guest: &mut FakeGuest<Balloon>, list: impl IntoIterator<Item = u32>) -> Buffer {
    let bytes: Vec<u8> = list.into_iter().flat_map(u32::to_le_bytes).collect();
    guest.readable(&bytes)
}

pub(super) fn send(guest: &mut FakeGuest<Balloon>, queue: u32, list: impl IntoIterator<Item = u32>) {
    let buffer = pfns(guest, list);
    assert_eq!(guest.send(queue, &[buffer]), Some(0));
}

fn stats(guest: &mut FakeGuest<Balloon>, entries: &[(u16, u64)]) -> Buffer {
    let bytes: Vec<u8> = entries
        .iter()
        .flat_map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()[..]].concat())
        .collect();
    guest.readable(&bytes)
}

fn request_stats(guest: &FakeGuest<Balloon>) -> bool {
    let mut transport = guest.transport();
    let asked = transport.device_mut().request_stats();
    transport.queue_event(STATS_QUEUE);
    asked
}

fn set_target(guest: &FakeGuest<Balloon>, frames: u32) {
    let mut transport = guest.transport();
    assert!(transport.device_mut().set_target(frames));
    transport.config_changed();
}

fn events(guest: &FakeGuest<Balloon>) -> Vec<BalloonEvent> {
    guest.transport().device_mut().take_events()
}

#[test]
fn only_features_that_are_served_are_offered() {
    for bits in 0..8 {
        let options = BalloonOptions {
            deflate_on_oom: bits & 1 != 0,
            free_page_reporting: bits & 2 != 0,
            stats: bits & 4 != 0,
        };
        let (guest, _) = machine(options);
        let transport = guest.transport();
        let features = transport.device().features();
        let has = |bit: u32| features & 1 << bit != 0;
        assert!(has(feature::MUST_TELL_HOST));
        assert_eq!(has(feature::DEFLATE_ON_OOM), options.deflate_on_oom);
        assert_eq!(has(feature::STATS_VQ), options.stats);
        assert_eq!(has(feature::PAGE_REPORTING), options.free_page_reporting);
        assert_eq!(features & !0b100111, 0, "neither hinting nor poison is served");
        // Every queue has a purpose, and every feature with a queue has one, by either numbering.
        let roles: Vec<Role> =
            (0..transport.queue_count()).map(|index| transport.device().role(index)).collect();
        assert!(!roles.contains(&Role::None), "{roles:?}");
        assert_eq!(roles.get(STATS_QUEUE) == Some(&Role::Stats), options.stats);
        if options.free_page_reporting {
            let linux = if options.stats { REPORTING_QUEUE_LINUX } else { STATS_QUEUE };
            assert_eq!([roles[linux], roles[REPORTING_QUEUE]], [Role::Reporting; 2]);
        }
    }
}

#[test]
fn the_target_reaches_the_driver_and_actual_comes_back() {
    let (guest, _) = machine(all());
    set_target(&guest, 1000);
    assert_eq!(guest.acknowledge(), 2, "a configuration interrupt");
    assert_eq!(u32::from_le_bytes(guest.read_config(NUM_PAGES)), 1000);
    guest.write_config(ACTUAL, &700u32.to_le_bytes());
    let transport = guest.transport();
    assert_eq!((transport.device().target_frames(), transport.device().actual_frames()), (1000, 700));
    drop(transport);
    let features = guest.transport().offered_features();
    let expected = [BalloonEvent::DriverReady { features }, BalloonEvent::ActualChanged { frames: 700 }];
    assert_eq!(events(&guest), expected);
    let mut transport = guest.transport();
    assert!(!transport.device_mut().set_target(1000), "nothing new");
    assert!(transport.device_mut().set_target(u32::MAX));
    assert_eq!(transport.device().target_frames(), FRAMES as u32, "no more than there is");
}

#[test]
fn inflation_gives_frames_back_and_deflation_returns_them() {
    let (mut guest, ram) = machine(all());
    send(&mut guest, INFLATE, (512..768).rev());
    assert_eq!(ram.count(FrameState::Ballooned), 256);
    assert_eq!(ram.calls(), [vec![FrameRun { first: 512, count: 256 }]]);
    assert_eq!(guest.transport().device().held_frames(), 256);
    send(&mut guest, DEFLATE, 512..600);
    assert_eq!(ram.count(FrameState::Ballooned), 168);
    let transport = guest.transport();
    let counters = transport.device().counters();
    assert_eq!((counters.inflated_frames, counters.deflated_frames), (256, 88));
    assert_eq!((counters.freed_bytes, transport.device().held_frames()), (256 << 12, 168));
    assert_eq!(guest.irq.count(), 2);
}

#[test]
fn chains_and_descriptors_of_one_event_are_one_call() {
    let (mut guest, ram) = machine(all());
    let bytes: Vec<u8> = (100..200u32).flat_map(u32::to_le_bytes).collect();
    // A frame number may be cut in two by a descriptor.
    let cut = [guest.readable(&bytes[..6]), guest.readable(&bytes[6..203]), guest.readable(&bytes[203..])];
    guest.add(INFLATE, &cut);
    for start in [300, 200] {
        let buffer = pfns(&mut guest, start..start + 100);
        guest.add(INFLATE, &[buffer]);
    }
    guest.notify(INFLATE);
    assert_eq!(guest.used(INFLATE).len(), 3);
    assert_eq!(ram.calls(), [vec![FrameRun { first: 100, count: 300 }]]);
}

#[test]
fn the_used_entry_comes_after_the_memory_is_gone() {
    /// Looks at the used ring from within the call.
    struct Observer(crate::DeviceMemory, FakeRam);
    impl BalloonBackend for Observer {
        fn is_ram(&self, run: FrameRun) -> bool {
            self.1.is_ram(run)
        }
        fn inflate(&mut self, runs: &[FrameRun]) -> Outcome {
            let index: u16 = vm_memory::Bytes::read_obj(&self.0, vm_memory::GuestAddress(0x4002)).unwrap();
            assert_eq!(index, 0, "no used entry yet");
            self.1.inflate(runs)
        }
        fn deflate(&mut self, runs: &[FrameRun]) -> Outcome {
            let index: u16 = vm_memory::Bytes::read_obj(&self.0, vm_memory::GuestAddress(0x8002)).unwrap();
            assert_eq!(index, 0, "no used entry yet");
            self.1.deflate(runs)
        }
        fn report(&mut self, runs: &[FrameRun]) -> Outcome {
            self.1.report(runs)
        }
        fn driver_reset(&mut self) -> Outcome {
            self.1.driver_reset()
        }
        fn ballooned_frames(&self) -> u64 {
            self.1.ballooned_frames()
        }
    }
    let (donor, ram) = machine(all());
    let balloon = Balloon::new(FRAMES as u64, Box::new(Observer(donor.mem.clone(), ram.clone())), all());
    let mut guest = FakeGuest::on(donor.mem.clone(), balloon);
    guest.probe(u64::MAX);
    for queue in [INFLATE, DEFLATE] {
        for start in [1000, 2000] {
            let buffer = pfns(&mut guest, start..start + 10);
            guest.add(queue, &[buffer]);
        }
        guest.notify(queue);
        assert_eq!(guest.used(queue).len(), 2);
    }
    assert_eq!(ram.calls().len(), 2);
}

#[test]
fn free_pages_are_reported_by_either_queue_number() {
    for queue in [REPORTING_QUEUE_LINUX, REPORTING_QUEUE] {
        let (mut guest, ram) = machine(all());
        let blocks: Vec<Buffer> =
            [1024, 512, 2048].map(|frame| Buffer { gpa: frame << 12, len: 512 << 12, writable: true }).into();
        assert_eq!(guest.send(queue as u32, &blocks), Some(0));
        assert_eq!(ram.count(FrameState::Reported), 3 * 512);
        let joined = FrameRun { first: 512, count: 1024 };
        assert_eq!(ram.calls(), [vec![joined, FrameRun { first: 2048, count: 512 }]]);
        assert_eq!(guest.transport().device().counters().reported_frames, 3 * 512);
    }
}

#[test]
fn without_statistics_linux_reports_by_the_third_queue() {
    let (mut guest, ram) = machine(BalloonOptions { stats: false, ..all() });
    let block = Buffer { gpa: 512 << 12, len: 512 << 12, writable: true };
    assert_eq!(guest.send(STATS, &[block]), Some(0));
    assert_eq!(ram.count(FrameState::Reported), 512);
    // The same when statistics are offered and the driver does not want them.
    let (mut guest, ram) = machine(all());
    guest.probe(!(1 << feature::STATS_VQ));
    assert_eq!(guest.send(STATS, &[block]), Some(0));
    assert_eq!(ram.count(FrameState::Reported), 512);
}

#[test]
fn the_first_statistics_buffer_is_no_sample() {
    let (mut guest, _) = machine(all());
    assert!(!request_stats(&guest), "there is no buffer yet");
    let old = stats(&mut guest, &[(4, 1)]);
    assert_eq!(guest.send(STATS, &[old]), None, "the host keeps the buffer");
    assert_eq!(guest.transport().device().stats(), None);

    for sequence in 1..=3 {
        events(&guest);
        assert!(request_stats(&guest));
        assert_eq!(guest.used(STATS).len(), 1, "the buffer goes back");
        assert!(!request_stats(&guest), "the driver owes an answer");
        let new = stats(&mut guest, &[(4, 100 * sequence), (10, 5), (77, 1)]);
        assert_eq!(guest.send(STATS, &[new]), None);
        let transport = guest.transport();
        let sample = transport.device().stats().unwrap();
        assert_eq!(sample.stats.free_memory_bytes, Some(100 * sequence));
        assert_eq!((sample.stats.oom_kill, sample.stats.alloc_stall), (Some(5), None));
        assert_eq!(sample.sequence, sequence);
        assert!(sample.age().as_secs() < 60);
        assert_eq!(transport.device().counters().unknown_stats, sequence);
        drop(transport);
        assert_eq!(events(&guest), [BalloonEvent::StatsUpdated]);
    }
}

#[test]
fn a_statistics_buffer_from_before_driver_ok_is_not_lost() {
    let (mut guest, _) = machine(all());
    guest.negotiate(u64::MAX);
    guest.set_up_queue(STATS);
    let old = stats(&mut guest, &[(4, 1)]);
    guest.add(STATS, &[old]);
    guest.notify(STATS);
    guest.driver_ok();
    assert!(request_stats(&guest));
    assert_eq!(guest.used(STATS).len(), 1);
}

#[test]
fn a_guest_out_of_memory_is_noticed() {
    let (mut guest, _) = machine(all());
    set_target(&guest, 1000);
    send(&mut guest, INFLATE, 1000..2000);
    // A page that moves.
    send(&mut guest, INFLATE, [2500]);
    send(&mut guest, DEFLATE, [1000]);
    // A target that falls.
    set_target(&guest, 900);
    send(&mut guest, DEFLATE, 1001..1101);
    events(&guest);
    // The device did not ask for this.
    send(&mut guest, DEFLATE, 1200..1456);
    assert_eq!(events(&guest), [BalloonEvent::OomDeflated { frames: 256 }]);
}

#[test]
fn without_the_feature_a_deflation_is_not_taken_for_lack_of_memory() {
    let (mut guest, _) = machine(BalloonOptions { deflate_on_oom: false, ..all() });
    set_target(&guest, 100);
    send(&mut guest, INFLATE, 1000..1100);
    events(&guest);
    send(&mut guest, DEFLATE, 1000..1100);
    assert_eq!(events(&guest), []);
}

#[test]
fn a_driver_that_is_reset_has_forgotten_its_balloon() {
    let (mut guest, ram) = machine(all());
    set_target(&guest, 100);
    send(&mut guest, INFLATE, 1000..1100);
    guest.write_config(ACTUAL, &100u32.to_le_bytes());
    events(&guest);
    guest.probe(u64::MAX);
    let transport = guest.transport();
    let balloon = transport.device();
    assert_eq!((balloon.held_frames(), balloon.actual_frames(), balloon.target_frames()), (0, 0, 100));
    assert_eq!(ram.count(FrameState::Ballooned), 0);
    drop(transport);
    assert!(matches!(events(&guest)[..], [BalloonEvent::DriverReset, BalloonEvent::DriverReady { .. }]));
}
