//! A control whose machine is a table of figures.

use super::*;
use crate::disk_cache::DiskCache;
use crate::memory::Ram;
use protocol::message::Balloon;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

const MIB: u64 = 1 << 20;
const RAM_BYTES: u64 = 64 * MIB;

/// A machine without a guest.
struct TestMachine {
    balloon: Balloon,
    overhead_bytes: u64,
    paused: bool,
    targets: Vec<u64>,
}

impl Machine for TestMachine {
    const OVERHEAD_INTERVAL: Option<Duration> = Some(Duration::from_secs(1));

    fn watch(&self, _: &mut EventOps<'_>, _: u32) {}

    fn serve(&mut self, _: u32) -> Vec<GuestUpdate> {
        vec![GuestUpdate::Statistics(Box::default())]
    }

    fn balloon(&self) -> Balloon {
        self.balloon.clone()
    }

    fn ram_bytes(&self) -> u64 {
        RAM_BYTES
    }

    fn set_target(&mut self, target_bytes: u64) {
        self.balloon.target_bytes = target_bytes;
        self.targets.push(target_bytes);
    }

    fn sample(&mut self) -> Option<GuestUpdate> {
        None
    }

    fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    fn set_fds_max(&mut self, _: Option<u32>) {}

    fn detach(&mut self) {}

    fn overhead_bytes(&self) -> u64 {
        self.overhead_bytes
    }
}

fn control() -> (Control<TestMachine>, Arc<Ram>) {
    let ram = Arc::new(Ram::new(RAM_BYTES).unwrap());
    let table = Arc::new(FrameTable::new(ram.regions()).unwrap());
    let reconciler =
        Reconciler::start(Arc::clone(&ram), Arc::default(), Arc::clone(&table), DiskCache::default())
            .unwrap();
    let balloon = Balloon { target_bytes: RAM_BYTES, actual_bytes: RAM_BYTES, ..Balloon::default() };
    let machine = TestMachine { balloon, overhead_bytes: 0, paused: false, targets: vec![] };
    (Control::new(machine, table, reconciler), ram)
}

/// The guest deflated its whole balloon because it was out of memory.
fn out_of_memory(control: &mut Control<TestMachine>) {
    control.machine.set_target(RAM_BYTES);
    control.report_all([GuestUpdate::OutOfMemory]);
}

/// Makes the timer of the limit expire, and serves it. The timer would take its time; the test does not.
fn expire(control: &mut Control<TestMachine>) {
    control.standalone.as_mut().unwrap().timer.reset(Duration::from_micros(1), None).unwrap();
    control.enforce_limit();
}

#[test]
fn a_limit_without_a_balancer_is_enforced_again_after_the_guest_was_out_of_memory() {
    let (mut control, _ram) = control();
    control.limit_standalone(48 * MIB, 16 * MIB).unwrap();
    assert_eq!(control.machine.targets, [48 * MIB]);
    for hold in [30, 60, 120, 240, 480, 600, 600] {
        assert_eq!(control.standalone.as_ref().unwrap().hold_next(), Duration::from_secs(hold));
        out_of_memory(&mut control);
        assert_eq!(control.machine.balloon.target_bytes, RAM_BYTES);
        expire(&mut control);
        assert_eq!(control.machine.balloon.target_bytes, 48 * MIB);
    }
}

#[test]
fn a_limit_just_below_ram_is_enforced_at_first_and_after_the_guest_was_out_of_memory() {
    let (mut control, _ram) = control();
    let limit = RAM_BYTES - MIB / 2;
    control.limit_standalone(limit, 16 * MIB).unwrap();
    assert_eq!(control.machine.targets, [limit]);
    out_of_memory(&mut control);
    expire(&mut control);
    assert_eq!(control.machine.balloon.target_bytes, limit);
}

#[test]
fn a_limit_without_a_balancer_also_covers_the_overhead_of_the_machine() {
    let (mut control, _ram) = control();
    control.machine.overhead_bytes = 10 * MIB;
    control.limit_standalone(48 * MIB, 16 * MIB).unwrap();
    for (overhead, target) in [(20, 28), (12, 36), (40, 16), (0, 48)] {
        control.machine.overhead_bytes = overhead * MIB;
        expire(&mut control);
        assert_eq!(control.machine.balloon.target_bytes, target * MIB, "overhead of {overhead} MiB");
    }
    let count = control.machine.targets.len();
    control.machine.overhead_bytes = MIB / 2;
    expire(&mut control);
    assert_eq!(control.machine.targets.len(), count, "a small change does not move the target");
}

#[test]
fn a_guest_is_paused_and_resumed_by_messages() {
    let (mut control, _ram) = control();
    for paused in [true, false] {
        control.apply(&ToVmm::Pause { paused });
        assert_eq!(control.machine.paused, paused);
    }
}

/// Waits until the reconciler has applied a charge.
fn applied(control: &mut Control<TestMachine>, charge_id: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let done = control.reconciler.take();
        if done.payers.iter().any(|payer| payer.charge_id == charge_id) {
            return;
        }
        assert!(Instant::now() < deadline, "charge {charge_id} is not applied");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn charge(charge_id: u64, owner: u16, with_charges: bool) -> Charge {
    Charge {
        order: charge_id,
        question: (!with_charges).then_some(charge_id),
        container: "/b".parse().unwrap(),
        charge_to: None,
        owner,
        with_charges,
        owners: vec![owner],
    }
}

#[test]
fn frames_are_charged_to_the_payer_of_the_moment_in_which_they_were_touched() {
    let (mut control, ram) = control();
    let reader = protocol::frames::FrameReader::open(control.table.fd()).unwrap();
    let touch = |block: u64, blocks: u64| {
        for frame in block * 512..(block + blocks) * 512 {
            ram.guest().write_obj(1u8, GuestAddress(frame * 4096)).unwrap();
        }
    };
    control.table.set_owner(5);
    touch(0, 3);
    // No pass has run since: without the pass of the charge, the next payer would be charged for these frames.
    for (charge_id, owner, block, blocks) in [(1, 6, 4, 2), (2, 7, 8, 5), (3, 6, 16, 1), (4, 5, 20, 4)] {
        control.apply(&ToVmm::Charge(charge(charge_id, owner, false)));
        applied(&mut control, charge_id);
        touch(block, blocks);
    }
    control.apply(&ToVmm::Charge(charge(5, 8, false)));
    applied(&mut control, 5);
    assert_eq!(reader.private_by_owner(), [(5, 7 * 512), (6, 3 * 512), (7, 5 * 512)].into());
    control.apply(&ToVmm::Charge(charge(6, 9, true)));
    applied(&mut control, 6);
    assert_eq!(reader.private_by_owner(), [(9, 15 * 512)].into());
    assert_eq!((reader.totals().untiled, reader.totals_from_entries().untiled), (0, 0));
}
