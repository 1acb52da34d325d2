//! Figures that are made of two samples of different moments: each of the two is late once, and no decision
//! follows from that.

use super::*;
use crate::guests::{GuestSeq, KernelSample, Reading, TableSample};
use crate::state::Balancer;
use crate::state::admission::admit::Candidate;
use crate::state::admission::admit::tests::{MIB, about, balancer};
use host::meminfo::HostMemory;
use protocol::bytes::FRAME_BYTES;
use protocol::disk::{CachedFile, FileId};
use protocol::frames::{ErrorSource, FrameReader, FrameTable, Region, State as FrameState, Transition};
use protocol::limits::LimitsPatch;
use protocol::message::{Register, ToVmm};
use protocol::path::ContainerPath;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const FRAMES_PER_MIB: u64 = MIB / FRAME_BYTES;
/// An image that the pool does not know.
const IMAGE: Region =
    Region { first: 1 << 20, count: 64 * FRAMES_PER_MIB, kind: protocol::frames::RegionKind::Image };

/// A guest with 512 MiB of RAM, its table and the messages to it.
struct Vmm {
    guest: GuestSeq,
    table: FrameTable,
    inbox: mpsc::Receiver<ToVmm>,
}

impl Vmm {
    fn register(balancer: &Balancer, about: Register) -> Self {
        let table = FrameTable::new(&[Region::ram(0, 512 * FRAMES_PER_MIB), IMAGE]).unwrap();
        let frames = Arc::new(FrameReader::open(table.fd()).unwrap());
        let (outbox, inbox) = mpsc::channel(64);
        let candidate = Candidate { about, pid: 4000, frames, outbox };
        let guest = balancer.register(&candidate, None).unwrap().seq;
        Self { guest, table, inbox }
    }

    fn set(&self, first_mib: u64, mib: u64, state: FrameState) {
        assert_eq!(
            self.table.set(first_mib * FRAMES_PER_MIB, mib * FRAMES_PER_MIB, state).changed,
            mib * FRAMES_PER_MIB
        );
    }

    fn drops(&mut self) -> usize {
        std::iter::from_fn(|| self.inbox.try_recv().ok())
            .filter(|message| matches!(message, ToVmm::DropDiskCache { .. }))
            .count()
    }
}

/// A reading of now in which the kernel says this of a guest.
fn read(state: &mut State, guest: GuestSeq, anonymous_mib: u64, file_mib: u64) {
    let at = Instant::now();
    let kernel = KernelSample {
        resident_bytes: (anonymous_mib + file_mib) * MIB,
        anonymous_bytes: anonymous_mib * MIB,
        swapped_bytes: 0,
        page_tables_bytes: 0,
        at,
    };
    let guest = state.guests.get_mut(guest).unwrap();
    let table = TableSample::take(&guest.frames, &guest.about.images);
    guest.figures.update(Reading { table, kernel, at, span: Duration::ZERO });
}

fn host(available_mib: u64) -> HostSample {
    let memory = HostMemory {
        total_bytes: 16_384 * MIB,
        available_bytes: available_mib * MIB,
        cached_bytes: 1024 * MIB,
        ..HostMemory::default()
    };
    HostSample { memory, at: Instant::now() }
}

/// What there is for guests by the policy's observation: what they hold and what is available. MiB.
fn for_guests(state: &State) -> u64 {
    let observation = state.observe(Instant::now()).observation;
    let held: u64 = observation.guests.iter().map(|guest| guest.usage_bytes).sum();
    (held + observation.host.unwrap().available_bytes) / MIB
}

#[test]
fn memory_for_guests_stays_the_same_whichever_of_host_and_guest_is_read_late() {
    let (_dir, _kernel, balancer) = balancer();
    let vmm = Vmm::register(&balancer, about("a"));
    let state = &mut *balancer.lock();
    vmm.set(0, 200, FrameState::Private);
    read(state, vmm.guest, 208, 4);
    state.take_host(host(4000));
    assert_eq!(for_guests(state), 4200);
    // The guest is read late: it touched 100 MiB since the host's figures were read, and its table shows that.
    vmm.set(200, 100, FrameState::Private);
    assert_eq!(for_guests(state), 4200, "what it touched is not available any more");
    read(state, vmm.guest, 308, 4);
    assert_eq!(for_guests(state), 4200);
    state.take_host(host(3900));
    assert_eq!(for_guests(state), 4200);
    // The host is read late: the guest released 150 MiB since the kernel's figure of it was read.
    vmm.set(0, 150, FrameState::Ballooned);
    state.take_host(host(4050));
    assert_eq!(for_guests(state), 4200, "what it released is not both held and available");
    read(state, vmm.guest, 158, 4);
    state.take_host(host(4050));
    assert_eq!(for_guests(state), 4200);
}

#[test]
fn a_page_of_an_image_makes_no_limit_bind_whichever_of_table_and_kernel_is_read_late() {
    let (_dir, _kernel, balancer) = balancer();
    let mut vmm = Vmm::register(&balancer, about("a"));
    let check = |missing_mib: u64| {
        vmm.table.checked(0, ErrorSource::KernelTotal);
        vmm.table.checked_images(missing_mib * FRAMES_PER_MIB);
    };
    let state = &mut *balancer.lock();
    vmm.set(0, 40, FrameState::Private);
    state.take_host(host(8000));
    let file = CachedFile { file: FileId { dev: 1, ino: 1 }, bytes: 10 * MIB, error_bytes: 0, stays: false };
    state.guests.get_mut(vmm.guest).unwrap().disk_cache.take(vec![file], 0, Instant::now());
    // 40 MiB of RAM, 8 MiB of the process, 10 MiB of page cache: 58 MiB, and room for 12 more.
    let path = "/a".parse().unwrap();
    let mut next = state.containers.tree().clone();
    next.alter(&path, &LimitsPatch { max_bytes: Some(Some(70 * MIB)), ..LimitsPatch::default() }).unwrap();
    state.adopt(next).unwrap();
    let usage = |state: &State| {
        let cost = state.usage_inside(&state.usage(), &path);
        (cost.bytes / MIB, cost.error_bytes / MIB)
    };
    check(0);
    read(state, vmm.guest, 44, 4);
    std::thread::sleep(Duration::from_millis(3));
    check(0);
    read(state, vmm.guest, 44, 4);
    assert_eq!(usage(state), (58, 0));
    // It maps 32 MiB of the image after its table was read and before the kernel was.
    std::thread::sleep(Duration::from_millis(3));
    check(0);
    read(state, vmm.guest, 44, 36);
    assert_eq!(usage(state), (58, 32), "the difference is the error bound");
    state.adjust(Instant::now());
    // Its vmm reads the total, then it scans, and the table is read before the kernel or after it.
    std::thread::sleep(Duration::from_millis(3));
    check(32);
    read(state, vmm.guest, 44, 36);
    assert_eq!(usage(state).0 + usage(state).1, 90);
    assert!(usage(state).0 <= 58);
    state.adjust(Instant::now());
    vmm.table.apply(IMAGE.first, 32 * FRAMES_PER_MIB, Transition::Map);
    std::thread::sleep(Duration::from_millis(3));
    vmm.table.checked_images(0);
    state.adjust(Instant::now());
    read(state, vmm.guest, 44, 36);
    assert_eq!(usage(state), (58, 32), "who else maps an image that no pool knows is not known");
    state.adjust(Instant::now());
    assert_eq!(vmm.drops(), 0, "page cache was dropped because an image was mapped");
}

#[test]
fn memory_touched_for_another_container_since_the_last_scan_is_the_error_bound_of_that_container() {
    let (_dir, _kernel, balancer) = balancer();
    let vmm = Vmm::register(&balancer, about("a"));
    let state = &mut *balancer.lock();
    let tenant: ContainerPath = "/t".parse().unwrap();
    let mut next = state.containers.tree().clone();
    next.ensure(&tenant).unwrap();
    let owner = next.get(&tenant).unwrap().owner;
    state.adopt(next).unwrap();
    let guest = state.guests.get_mut(vmm.guest).unwrap();
    guest.owners.insert(owner);
    guest.about.charge_to = Some(tenant.clone());
    vmm.table.set_owner(owner);
    let mib = |state: &State| {
        let cost = state.usage_inside(&state.memory_usage(), &tenant);
        (cost.bytes / MIB, cost.error_bytes / MIB)
    };
    let scan = |state: &mut State| {
        let guest = state.guests.get_mut(vmm.guest).unwrap();
        guest.scan = Some(crate::guests::TableScan::take(&guest.frames));
    };
    scan(state);
    // The scan is late, then it is done.
    vmm.set(0, 30, FrameState::Private);
    assert_eq!(mib(state), (0, 30));
    scan(state);
    assert_eq!(mib(state), (30, 0));
    vmm.set(30, 5, FrameState::Private);
    assert_eq!(mib(state), (30, 5));
    // The table is late: the guest releases what the scan saw.
    vmm.set(0, 35, FrameState::Ballooned);
    assert_eq!(mib(state), (0, 0), "no more than the table has");
}
