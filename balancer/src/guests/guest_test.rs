//! Which containers a guest's frames are charged to.

use super::*;
use protocol::frames::{FrameTable, Region, State};
use std::os::fd::AsFd;
use std::time::Instant;

fn guest(table: &FrameTable, owner: u16) -> Guest {
    let about = Register {
        devices: 2,
        fds: 30,
        threads: 4,
        balloon: Balloon::default(),
        ..Register::of("a", "/a".parse().unwrap(), 4 << 20)
    };
    let frames = Arc::new(FrameReader::open(table.fd().as_fd()).unwrap());
    let (outbox, now) = (mpsc::channel(1).0, Instant::now());
    Guest::new(GuestSeq(1), about, i32::MAX, (owner, [owner].into()), frames, outbox, now)
}

#[test]
fn frames_are_charged_only_to_containers_that_the_guest_was_commanded_to_charge() {
    let table = FrameTable::new(&[Region::ram(0, 1024)]).unwrap();
    for (owner, first, count) in [(5, 0, 100), (6, 100, 20), (9, 120, 3)] {
        table.set_owner(owner);
        table.set(first, count, State::Private);
    }
    let mut guest = guest(&table, 6);
    assert!(
        guest.scan_due(System::Static, 1, Instant::now()).is_none(),
        "never commanded to charge another container"
    );
    assert_eq!(guest.reading(System::Static).table_elsewhere_bytes, [].into());
    guest.owners.insert(5);
    let due = guest.scan_due(System::Static, 1, Instant::now()).unwrap();
    assert!(guest.scan_due(System::Static, 1, Instant::now()).is_none(), "one at a time");
    guest.scan = Some(TableScan::take(&due.frames));
    let reading = guest.reading(System::Static);
    assert_eq!(reading.table_elsewhere_bytes, [(5, 100 * 4096)].into());
    assert_eq!((reading.owner, reading.table_bytes, reading.ram_bytes), (6, 123 * 4096, 4 << 20));
    assert_eq!(reading.blocks_used, Some(1));
}

#[test]
fn an_owner_is_forgotten_when_no_frame_is_charged_to_it_any_more() {
    let table = FrameTable::new(&[Region::ram(0, 1024)]).unwrap();
    table.set_owner(5);
    table.set(0, 100, State::Private);
    let mut guest = guest(&table, 6);
    guest.owners.extend([5, 7, 8]);
    guest.scan = Some(TableScan::take(&guest.frames));
    guest.charge_sent = ChargeId(1);
    assert!(guest.forget_owners(8).is_empty(), "frames may still come to be charged to any of them");
    guest.charge_done.send_replace(ChargeId(1));
    assert_eq!(guest.forget_owners(8), [7]);
    table.set(0, 100, State::Ballooned);
    assert!(guest.forget_owners(8).is_empty(), "by a scan that is old");
    guest.scan = Some(TableScan::take(&guest.frames));
    assert_eq!(guest.forget_owners(8), [5]);
    assert_eq!(guest.owners, [6, 8].into());
}

#[test]
fn the_larger_figure_of_descriptors_and_threads_counts() {
    let table = FrameTable::new(&[Region::ram(0, 1024)]).unwrap();
    let mut guest = guest(&table, 5);
    let counts = |fds, threads| ObjectCounts { vcpus: 1, guests: 1, devices: 2, fds, threads };
    assert_eq!((guest.objects(), guest.objects_age_ms(Instant::now())), (counts(30, 4), None));
    guest.process = Some(ProcessObjects { fds: 31, threads: 3, at: Instant::now() });
    assert_eq!(guest.objects(), counts(31, 4));
    assert!(guest.objects_age_ms(Instant::now()).is_some());
}
