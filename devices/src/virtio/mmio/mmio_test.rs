use super::*;
use crate::bus::BusDevice;
use crate::testing::{FakeGuest, RecordingIrq};
use crate::virtio::{Entropy, QueueOutcome, read_config_bytes};
use proptest::prelude::*;
use std::sync::Mutex;
use virtio_bindings::virtio_mmio as reg;
use virtio_queue::Queue;

const RAM: usize = 1 << 20;

/// A device with a writable configuration that leaves its queues to a real one.
#[derive(Debug, Default)]
struct Probe {
    entropy: Entropy,
    config: [u8; 8],
    activated: Vec<u64>,
    resets: usize,
}

impl VirtioDevice for Probe {
    fn id(&self) -> u32 {
        42
    }
    fn features(&self) -> u64 {
        0b101 | 1 << 40
    }
    fn queue_sizes(&self) -> &[u16] {
        &[64, 8]
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config, offset, data);
    }
    fn write_config(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some(end) = (offset as usize).checked_add(data.len()) else { return false };
        self.config.get_mut(offset as usize..end).map(|place| place.copy_from_slice(data)).is_some()
    }
    fn activate(&mut self, features: u64) {
        self.activated.push(features);
    }
    fn process_queue(&mut self, mem: &DeviceMemory, index: usize, queue: &mut Queue) -> QueueOutcome {
        self.entropy.process_queue(mem, index, queue)
    }
    fn reset(&mut self) {
        self.resets += 1;
    }
}

fn guest() -> FakeGuest<Probe> {
    FakeGuest::new(RAM, Probe::default())
}

fn ready() -> FakeGuest<Probe> {
    FakeGuest::ready(RAM, Probe::default(), u64::MAX)
}

#[test]
fn a_driver_finds_the_device_and_negotiates() {
    let mut guest = guest();
    assert_eq!(guest.get(reg::VIRTIO_MMIO_DEVICE_ID), 42);
    assert_eq!(guest.get(reg::VIRTIO_MMIO_VENDOR_ID).to_le_bytes(), *b"BLST");
    assert_eq!(guest.probe(0b100 | 1 << 40), 0b100 | 1 << 40 | 1 << 32);
    let transport = guest.transport();
    assert!(transport.is_live());
    assert_eq!(transport.device().activated, [0b100 | 1 << 40 | 1 << 32]);
    let expected = TransportCounters { resets: 1, queue_events: 2, ..Default::default() };
    assert_eq!(*transport.counters(), expected, "nothing bad is counted");
}

#[test]
fn only_features_that_are_served_are_offered() {
    assert_eq!(guest().transport().offered_features(), 0b101 | 1 << 40 | 1 << 32);
}

#[test]
fn features_that_are_not_offered_are_refused() {
    for (low, high) in [(0b10, 1), (0b1, 2 | 1), (0b1, 0), (u32::MAX, u32::MAX)] {
        let guest = guest();
        guest.set(reg::VIRTIO_MMIO_STATUS, 1);
        guest.set(reg::VIRTIO_MMIO_STATUS, 3);
        for (half, value) in [(0, low), (1, high)] {
            guest.set(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            guest.set(reg::VIRTIO_MMIO_DRIVER_FEATURES, value);
        }
        guest.set(reg::VIRTIO_MMIO_STATUS, 0b1011);
        assert_eq!(guest.get(reg::VIRTIO_MMIO_STATUS), 3, "FEATURES_OK stays clear for {low:#x} {high:#x}");
        guest.set(reg::VIRTIO_MMIO_STATUS, 0b1111);
        assert!(!guest.transport().is_live());
        assert_eq!(guest.transport().counters().refused_features, 2);
    }
}

#[test]
fn features_are_fixed_after_features_ok() {
    let mut guest = guest();
    guest.negotiate(0b1);
    guest.set(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    guest.set(reg::VIRTIO_MMIO_DRIVER_FEATURES, 0b101);
    guest.driver_ok();
    assert_eq!(guest.transport().device().activated, [0b1 | 1 << 32]);
    assert_eq!(guest.transport().counters().bad_accesses, 1);
}

#[test]
fn status_only_ever_goes_forward() {
    let guest = guest();
    for bad in [2, 4, 8, 0b1001, 0b111, 16, 0x100, u32::MAX] {
        guest.set(reg::VIRTIO_MMIO_STATUS, bad);
        assert_eq!(guest.get(reg::VIRTIO_MMIO_STATUS), 0, "{bad:#x}");
    }
    guest.set(reg::VIRTIO_MMIO_STATUS, 3);
    guest.set(reg::VIRTIO_MMIO_STATUS, 1);
    guest.set(reg::VIRTIO_MMIO_STATUS, 2);
    assert_eq!(guest.get(reg::VIRTIO_MMIO_STATUS), 3);
    assert_eq!(guest.transport().counters().bad_status_writes, 10);
    guest.set(reg::VIRTIO_MMIO_STATUS, 0x83);
    assert_eq!(guest.get(reg::VIRTIO_MMIO_STATUS), 0x83, "FAILED may come at any time");
    guest.set(reg::VIRTIO_MMIO_STATUS, 0);
    assert_eq!(guest.get(reg::VIRTIO_MMIO_STATUS), 0);
}

#[test]
fn queues_that_make_no_sense_never_get_ready() {
    let end = RAM as u64;
    let good = (64, [0x1000, 0x2000, 0x3000]);
    let cases = [
        (0, good.1),
        (3, good.1),
        (128, good.1),
        (65536 + 64, good.1),
        (u32::MAX, good.1),
        (64, [0x1008, 0x2000, 0x3000]),
        (64, [0x1000, 0x2001, 0x3000]),
        (64, [0x1000, 0x2000, 0x3002]),
        (64, [end, 0x2000, 0x3000]),
        (64, [end - 1008, 0x2000, 0x3000]),
        (64, [0x1000, end - 132, 0x3000]),
        (64, [0x1000, 0x2000, end - 516]),
        (64, [0x1000, u64::MAX - 1, 0x3000]),
        (64, [u64::MAX - 15, 0x2000, 0x3000]),
        (64, [0, 0x2000, 0x3000]),
        (64, [0x1000, 0, 0x3000]),
        (64, [0x1000, 0x2000, 0]),
    ];
    let mut guest = guest();
    guest.negotiate(0);
    let mut bad = 0;
    for (entries, addresses) in cases.into_iter().chain([good]) {
        guest.set(reg::VIRTIO_MMIO_QUEUE_NUM, entries);
        for (low, gpa) in [0x80, 0x90, 0xa0].into_iter().zip(addresses) {
            guest.set(low, gpa as u32);
            guest.set(low + 4, (gpa >> 32) as u32);
        }
        guest.set(reg::VIRTIO_MMIO_QUEUE_READY, 1);
        let ready = (entries, addresses) == good;
        assert_eq!(guest.get(reg::VIRTIO_MMIO_QUEUE_READY) == 1, ready, "{entries} {addresses:x?}");
        bad += u64::from(!ready);
        assert_eq!(guest.transport().counters().bad_queue_setups, bad);
    }
    // Once ready, its addresses are fixed until it is stopped.
    guest.set(reg::VIRTIO_MMIO_QUEUE_DESC_LOW, 0x5000);
    assert_eq!(guest.transport().counters().bad_accesses, 1);
    guest.set(reg::VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(guest.get(reg::VIRTIO_MMIO_QUEUE_READY), 0);
}

#[test]
fn queues_that_do_not_exist_read_as_such() {
    let mut guest = guest();
    guest.negotiate(0);
    for index in [2, 3, 255, u32::MAX] {
        guest.set(reg::VIRTIO_MMIO_QUEUE_SEL, index);
        assert_eq!(guest.get(reg::VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
        guest.set(reg::VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(guest.get(reg::VIRTIO_MMIO_QUEUE_READY), 0);
        guest.notify(index);
    }
}

#[test]
fn a_served_queue_interrupts_unless_the_driver_asks_for_silence() {
    let mut guest = ready();
    let buffer = guest.writable(8);
    assert_eq!(guest.send(0, &[buffer]), Some(8));
    assert_eq!((guest.irq.count(), guest.acknowledge(), guest.acknowledge()), (1, 1, 0));
    guest.set_avail_flags(0, 1);
    assert_eq!(guest.send(0, &[buffer]), Some(8));
    assert_eq!((guest.irq.count(), guest.acknowledge()), (1, 0));
    guest.notify(0);
    assert_eq!(guest.irq.count(), 1, "nothing served, nothing raised");
    assert_eq!(guest.transport().counters().queue_interrupts, 1);
}

#[test]
fn buffers_from_before_driver_ok_are_served_then() {
    let mut guest = guest();
    guest.negotiate(0);
    guest.set_up_queue(0);
    for _ in 0..60 {
        let buffer = guest.writable(8);
        guest.add(0, &[buffer]);
    }
    guest.notify(0);
    assert_eq!(guest.used(0), []);
    guest.driver_ok();
    assert_eq!(guest.used(0).len(), 60);
}

#[test]
fn a_batch_is_bounded_and_says_that_work_is_left() {
    let mut guest = ready();
    for _ in 0..40 {
        let buffer = guest.writable(8);
        guest.add(0, &[buffer]);
    }
    let more: Vec<bool> = (0..4).map(|_| guest.transport().queue_event(0)).collect();
    assert_eq!(more, [true, true, false, false]);
    assert_eq!(guest.used(0).len(), 40);
}

#[test]
fn an_available_index_that_jumps_needs_a_reset() {
    let mut guest = ready();
    guest.set_avail_index(0, 1000);
    guest.notify(0);
    assert_eq!(guest.get(reg::VIRTIO_MMIO_STATUS), 0x4f);
    assert_eq!(guest.acknowledge(), 2, "the driver gets an interrupt");
    assert_eq!(guest.transport().counters().queue_errors, 1);
    guest.notify(0);
    assert!(!guest.transport().queue_event(1));
    assert_eq!(guest.transport().counters().queue_errors, 1, "a broken device stays quiet");
    guest.probe(u64::MAX);
    let buffer = guest.writable(8);
    assert_eq!(guest.send(0, &[buffer]), Some(8));
}

#[test]
fn a_head_beyond_the_table_needs_a_reset() {
    let mut guest = ready();
    guest.publish(0, 64);
    guest.notify(0);
    assert_eq!(guest.get(reg::VIRTIO_MMIO_STATUS) & 0x40, 0x40);
}

#[test]
fn a_driver_that_is_ready_is_notified_of_configuration_changes() {
    let mut guest = guest();
    let generation = guest.get(reg::VIRTIO_MMIO_CONFIG_GENERATION);
    guest.transport().config_changed();
    assert_eq!(guest.get(reg::VIRTIO_MMIO_CONFIG_GENERATION), generation + 1);
    assert_eq!((guest.irq.count(), guest.acknowledge()), (0, 0));
    guest.probe(0);
    guest.transport().config_changed();
    assert_eq!((guest.irq.count(), guest.acknowledge()), (1, 2));
    assert_eq!(guest.transport().counters().config_interrupts, 1);
}

#[test]
fn registers_are_four_bytes_wide_and_the_configuration_any() {
    let guest = guest();
    let transport = Mutex::new(VirtioMmio::new(guest.mem.clone(), Probe::default(), guest.irq.clone()));
    for width in [0, 1, 2, 3, 5, 8] {
        let mut data = vec![0xee; width];
        transport.read(0, &mut data);
        assert_eq!(data, vec![0; width]);
        transport.write(u64::from(reg::VIRTIO_MMIO_STATUS), &vec![1; width]);
    }
    transport.read(2, &mut [0; 4]);
    let mut status = [0xee; 4];
    transport.read(u64::from(reg::VIRTIO_MMIO_STATUS), &mut status);
    assert_eq!(status, [0; 4]);
    assert_eq!(transport.lock().unwrap().counters().bad_accesses, 13);

    transport.write(0x100, &[1, 2, 3, 4, 5, 6, 7, 8]);
    for width in 1..=8 {
        let mut data = vec![0; width];
        transport.read(0x100, &mut data);
        assert_eq!(data, (1..=width as u8).collect::<Vec<_>>());
    }
    transport.write(0x108, &[1]);
    assert_eq!(transport.lock().unwrap().counters().refused_config_writes, 1);
}

#[test]
fn there_is_no_shared_memory() {
    let guest = guest();
    guest.set(reg::VIRTIO_MMIO_SHM_SEL, 0);
    assert_eq!(guest.get(reg::VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
    assert_eq!(guest.get(reg::VIRTIO_MMIO_SHM_LEN_HIGH), u32::MAX);
}

#[derive(Clone, Debug)]
enum Access {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Register(u32, u32),
    Event(usize),
    Changed,
}

/// Registers and values that get somewhere, and some that do not.
fn access() -> impl Strategy<Value = Access> {
    let value = prop_oneof![
        4 => prop::sample::select(vec![0u32, 1, 2, 3, 8, 11, 15, 64, 0x1000, 0x2000, 0x3000, 0xffff_ffff]),
        1 => any::<u32>(),
    ];
    prop_oneof![
        8 => ((0..64u32).prop_map(|word| word * 4), value).prop_map(|(at, value)| Access::Register(at, value)),
        2 => (0..0x200u64, 0..9usize).prop_map(|(at, width)| Access::Read(at, width)),
        1 => (any::<u64>(), 0..9usize).prop_map(|(at, width)| Access::Read(at, width)),
        1 => (any::<u64>(), prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(at, data)| Access::Write(at, data)),
        1 => (0..4usize).prop_map(Access::Event),
        1 => Just(Access::Changed),
    ]
}

proptest! {
    #[test]
    fn no_register_traffic_breaks_the_transport(
        list in prop::collection::vec(access(), 0..200),
        noise in any::<u64>(),
    ) {
        let mem = crate::testing::memory(0x8000);
        let bytes: Vec<u8> = (0..0x8000u64).map(|at| (at.wrapping_mul(noise) >> 13) as u8).collect();
        vm_memory::Bytes::write_slice(&mem, &bytes, vm_memory::GuestAddress(0)).unwrap();
        let irq = Arc::new(RecordingIrq::default());
        let transport = Mutex::new(VirtioMmio::new(mem, Probe::default(), irq));
        for access in list {
            match access {
                Access::Read(at, width) => transport.read(at, &mut vec![0; width]),
                Access::Write(at, data) => { transport.write(at, &data); }
                Access::Register(at, value) => { transport.write(at.into(), &value.to_le_bytes()); }
                Access::Event(index) => { transport.lock().unwrap().queue_event(index); }
                Access::Changed => transport.lock().unwrap().config_changed(),
            }
            let transport = transport.lock().unwrap();
            let probe = transport.device();
            prop_assert!(probe.activated.len() <= probe.resets + 1, "once per negotiation");
            for features in &probe.activated {
                prop_assert_eq!(features & !transport.offered_features(), 0);
                prop_assert_ne!(features & 1 << 32, 0);
            }
        }
    }
}
