//! A machine without KVM and without a driver.

use super::*;
use crate::memory::{Ram, RamBalloon};
use devices::DeviceMemory;
use devices::testing::RecordingIrq;
use devices::virtio::balloon::BalloonOptions;
use protocol::frames::FrameTable;
use std::sync::Mutex;

const RAM_BYTES: u64 = 64 << 20;

fn machine() -> KvmMachine {
    let ram = Arc::new(Ram::new(RAM_BYTES).unwrap());
    let table = Arc::new(FrameTable::new(ram.regions()).unwrap());
    let backend = RamBalloon::new(Arc::clone(&ram), table).unwrap();
    let balloon = Balloon::new(RAM_BYTES / FRAME_BYTES, Box::new(backend), BalloonOptions::default());
    let transport =
        VirtioMmio::new(DeviceMemory::new(ram.guest().clone()), balloon, Arc::new(RecordingIrq::default()));
    let attached = Attached { device: Arc::new(Mutex::new(transport)), kicks: vec![] };
    KvmMachine::new(attached, RAM_BYTES, Arc::default())
}

/// Bytes that the driver is asked to put into the balloon.
fn ballooned_bytes(machine: &KvmMachine) -> u64 {
    u64::from(machine.transport().device().target_frames()) * FRAME_BYTES
}

#[test]
fn a_target_is_whole_frames_and_never_more_than_ram() {
    let mut machine = machine();
    for (target, ballooned) in
        [(RAM_BYTES, 0), (RAM_BYTES - 1, 4096), (0, RAM_BYTES), (u64::MAX, 0), (1, RAM_BYTES)]
    {
        machine.set_target(target);
        assert_eq!(ballooned_bytes(&machine), ballooned, "{target}");
        assert_eq!(machine.balloon().target_bytes, RAM_BYTES - ballooned, "{target}");
    }
}

#[test]
fn the_target_follows_a_guest_that_is_out_of_memory() {
    let mut machine = machine();
    machine.set_target(48 << 20);
    assert_eq!(ballooned_bytes(&machine), 16 << 20);
    // The balloon is empty: the guest deflated all of it.
    follow_oom(&mut machine.transport());
    assert_eq!(ballooned_bytes(&machine), 0);
}

#[test]
fn a_sample_of_a_machine_without_a_driver_reports_its_balloon_at_once() {
    let mut machine = machine();
    let Some(GuestUpdate::Balloon(balloon)) = machine.sample() else { panic!("no update") };
    assert_eq!((balloon.driver_ready, balloon.actual_bytes), (false, RAM_BYTES));
}
