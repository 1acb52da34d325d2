//! Whose frames a guest holds.

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
    Guest {
        session: 1,
        balloon: Sampled::now(about.balloon.clone()),
        about,
        pid: i32::MAX,
        owner,
        owners: [owner].into(),
        orders: 0,
        carried_out: watch::Sender::new(0),
        look: None,
        look_wanted: false,
        is_looked_at: false,
        unseen: vec![],
        frames: Arc::new(FrameReader::open(table.fd().as_fd()).unwrap()),
        statistics: None,
        disk_cache: DiskCache::default(),
        figures: Figures::default(),
        cross_check: CrossCheck::default(),
        process: None,
        merge: None,
        working_set: None,
        outbox: mpsc::channel(1).0,
        sent_target_bytes: None,
        target_reason: String::new(),
        paused: false,
        memory: Default::default(),
        out_of_memory_at: None,
        reconciled: watch::Sender::new(0),
        sent_cpu_ppm: None,
        sent_fds_max: None,
        stuck: None,
        registered_at: Instant::now(),
        budget: Budget::new(Instant::now()),
        answered_need_at: None,
        pool_outbox: None,
    }
}

#[test]
fn frames_are_charged_to_whom_the_guest_was_told_to_charge_and_to_nobody_else() {
    let table = FrameTable::new(&[Region::ram(0, 1024)]).unwrap();
    for (owner, first, count) in [(5, 0, 100), (6, 100, 20), (9, 120, 3)] {
        table.set_owner(owner);
        table.set(first, count, State::Private);
    }
    let mut guest = guest(&table, 6);
    assert!(guest.look_due(System::Static, 1).is_none(), "never told to charge anybody else");
    assert_eq!(guest.reading().table_elsewhere_bytes, [].into());
    guest.owners.insert(5);
    let due = guest.look_due(System::Static, 1).unwrap();
    assert!(guest.look_due(System::Static, 1).is_none(), "one at a time");
    guest.look = Some(Look::take(&due.frames));
    let reading = guest.reading();
    assert_eq!(reading.table_elsewhere_bytes, [(5, 100 * 4096)].into());
    assert_eq!((reading.owner, reading.table_bytes, reading.ram_bytes), (6, 123 * 4096, 4 << 20));
    assert_eq!(reading.blocks_used, Some(1));
}

#[test]
fn an_owner_is_forgotten_when_nothing_is_charged_to_it_any_more() {
    let table = FrameTable::new(&[Region::ram(0, 1024)]).unwrap();
    table.set_owner(5);
    table.set(0, 100, State::Private);
    let mut guest = guest(&table, 6);
    guest.owners.extend([5, 7, 8]);
    guest.look = Some(Look::take(&guest.frames));
    guest.orders = 1;
    assert!(guest.forget_owners(8).is_empty(), "frames may still come to be charged to any of them");
    guest.carried_out.send_replace(1);
    assert_eq!(guest.forget_owners(8), [7]);
    table.set(0, 100, State::Ballooned);
    assert!(guest.forget_owners(8).is_empty(), "by a look that is old");
    guest.look = Some(Look::take(&guest.frames));
    assert_eq!(guest.forget_owners(8), [5]);
    assert_eq!(guest.owners, [6, 8].into());
}

#[test]
fn of_descriptors_and_threads_the_larger_figure_counts() {
    let table = FrameTable::new(&[Region::ram(0, 1024)]).unwrap();
    let mut guest = guest(&table, 5);
    let counts = |fds, threads| ObjectCounts { vcpus: 1, guests: 1, devices: 2, fds, threads };
    assert_eq!((guest.objects(), guest.objects_age_ms()), (counts(30, 4), None));
    guest.process = Some(ProcessObjects { fds: 31, threads: 3, at: Instant::now() });
    assert_eq!(guest.objects(), counts(31, 4));
    assert!(guest.objects_age_ms().is_some());
}
