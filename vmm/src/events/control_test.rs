use super::*;
use crate::disk_cache::DiskCache;
use crate::memory::{Ram, RamBalloon};
use devices::DeviceMemory;
use devices::testing::RecordingIrq;
use devices::virtio::VirtioMmio;
use devices::virtio::balloon::BalloonOptions;
use std::sync::Mutex;

const RAM_BYTES: u64 = 64 << 20;

/// The control of a guest without KVM, driver or balancer.
fn control() -> Control {
    control_with_ram().0
}

fn control_with_ram() -> (Control, Arc<Ram>) {
    let ram = Arc::new(Ram::new(RAM_BYTES).unwrap());
    let table = Arc::new(FrameTable::new(ram.regions()).unwrap());
    let backend = RamBalloon::new(Arc::clone(&ram), Arc::clone(&table)).unwrap();
    let balloon = Balloon::new(RAM_BYTES / FRAME_BYTES, Box::new(backend), BalloonOptions::default());
    let transport =
        VirtioMmio::new(DeviceMemory::new(ram.guest().clone()), balloon, Arc::new(RecordingIrq::default()));
    let attached = Attached { device: Arc::new(Mutex::new(transport)), kicks: vec![] };
    let reconciler =
        Reconciler::start(Arc::clone(&ram), Arc::default(), Arc::clone(&table), DiskCache::default())
            .unwrap();
    (Control::new(attached, table, RAM_BYTES, reconciler), ram)
}

fn asked_for(control: &Control) -> u64 {
    u64::from(control.balloon.device.lock().unwrap().device().target_frames()) * FRAME_BYTES
}

#[test]
fn a_limit_without_a_balancer_comes_back_after_the_guest_was_in_need() {
    let mut control = control();
    control.limit_alone(48 << 20).unwrap();
    assert_eq!(asked_for(&control), 16 << 20);
    for hold in [30, 60, 120, 240, 480, 600, 600] {
        assert_eq!(control.alone.as_ref().unwrap().hold, Duration::from_secs(hold));
        // The balloon is empty: all of it was taken back.
        control.follow_oom();
        assert_eq!(asked_for(&control), 0);
        // The timer would wait so long; the test does not.
        control.alone.as_mut().unwrap().timer.reset(Duration::from_micros(1), None).unwrap();
        control.limit_again();
        assert_eq!(asked_for(&control), 16 << 20);
    }
}

#[test]
fn a_target_is_whole_frames_and_never_more_than_ram() {
    let mut control = control();
    for (target, ballooned) in
        [(RAM_BYTES, 0), (RAM_BYTES - 1, 4096), (0, RAM_BYTES), (u64::MAX, 0), (1, RAM_BYTES)]
    {
        control.set_target(target);
        assert_eq!(asked_for(&control), ballooned, "{target}");
    }
}

/// Waits until the reconciler has put payers in place.
fn put_in_place(control: &mut Control, order: u64) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let done = control.reconciler.take();
        if done.payers.iter().any(|payer| payer.order == order) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "order {order} is not carried out");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn charge(order: u64, owner: u16, with_charges: bool) -> Charge {
    Charge {
        order,
        question: (!with_charges).then_some(order),
        container: "/b".parse().unwrap(),
        charge_to: None,
        owner,
        with_charges,
        owners: vec![owner],
    }
}

#[test]
fn frames_are_charged_to_who_paid_when_they_were_touched() {
    use vm_memory::{Bytes, GuestAddress};
    let (mut control, ram) = control_with_ram();
    let reader = protocol::frames::FrameReader::open(control.table.fd()).unwrap();
    let touch = |block: u64, blocks: u64| {
        for frame in block * 512..(block + blocks) * 512 {
            ram.guest().write_obj(1u8, GuestAddress(frame * FRAME_BYTES)).unwrap();
        }
    };
    control.table.set_owner(5);
    touch(0, 3);
    // Nothing was compared since: the frames are charged by the order that is to come otherwise.
    for (order, owner, block, blocks) in [(1, 6, 4, 2), (2, 7, 8, 5), (3, 6, 16, 1), (4, 5, 20, 4)] {
        control.obey(&ToVmm::Charge(charge(order, owner, false)));
        put_in_place(&mut control, order);
        touch(block, blocks);
    }
    control.obey(&ToVmm::Charge(charge(5, 8, false)));
    put_in_place(&mut control, 5);
    assert_eq!(reader.private_by_owner(), [(5, 7 * 512), (6, 3 * 512), (7, 5 * 512)].into());
    control.obey(&ToVmm::Charge(charge(6, 9, true)));
    put_in_place(&mut control, 6);
    assert_eq!(reader.private_by_owner(), [(9, 15 * 512)].into());
    assert_eq!((reader.totals().untiled, reader.totals_from_entries().untiled), (0, 0));
}
