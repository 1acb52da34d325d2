use super::*;
use devices::virtio::balloon::{BalloonBackend, FrameRun};
use protocol::frames::{FrameReader, FrameTable, State};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn guest(bytes: u64) -> (Arc<Ram>, Arc<FrameTable>, Pagemap) {
    let ram = Arc::new(Ram::new(bytes).unwrap());
    let table = Arc::new(FrameTable::new(ram.regions()).unwrap());
    (ram, table, Pagemap::open().unwrap())
}

/// Writes one byte into each frame of a run, as a guest's first touch does.
fn touch(ram: &Ram, first: u64, count: u64) {
    use vm_memory::{Bytes, GuestAddress};
    for frame in first..first + count {
        ram.guest().write_obj(0xa5u8, GuestAddress(frame * FRAME_BYTES)).unwrap();
    }
}

#[test]
fn ram_is_aligned_and_has_a_hole_below_4_gib() {
    let ram = Ram::new(4 << 30).unwrap();
    assert_eq!(ram.regions(), [Region { first: 0, count: 786_432 }, Region { first: 1 << 20, count: 262_144 }]);
    for (_, host) in ram.slots() {
        assert_eq!(host % BLOCK_BYTES, 0);
    }
    assert!(ram.host(786_431, 2).is_none(), "a run must not cross the hole");
}

#[test]
fn release_returns_the_bytes_that_were_held_and_no_more() {
    let (ram, _, pagemap) = guest(64 * MIB);
    touch(&ram, 0, 1024);
    let host = ram.host(0, 2048).unwrap().as_ptr() as u64;
    let held = pagemap.count_held(host, 2048).unwrap();
    assert!(held >= 1024, "{held}");
    assert_eq!(ram.release(&pagemap, 0, 2048).unwrap().bytes, held * FRAME_BYTES);
    assert_eq!(pagemap.count_held(host, 2048).unwrap(), 0);
    assert_eq!(ram.release(&pagemap, 0, 2048).unwrap().bytes, 0, "a second release frees nothing");
}

#[test]
fn released_memory_reads_zero_and_neighbours_keep_their_bytes() {
    use vm_memory::{Bytes, GuestAddress};
    let (ram, _, pagemap) = guest(16 * MIB);
    touch(&ram, 0, 1024);
    ram.release(&pagemap, 10, 3).unwrap();
    for frame in 0..1024 {
        let byte: u8 = ram.guest().read_obj(GuestAddress(frame * FRAME_BYTES)).unwrap();
        assert_eq!(byte, if (10..13).contains(&frame) { 0 } else { 0xa5 }, "frame {frame}");
    }
}

#[test]
fn what_is_no_ram_is_not_released() {
    let (ram, _, pagemap) = guest(16 * MIB);
    for (first, count) in [(4096, 1), (4095, 2), (u64::MAX, 1), (0, u64::MAX)] {
        assert!(ram.release(&pagemap, first, count).is_err(), "{first} {count}");
    }
}

#[test]
fn reconciling_finds_first_touch_and_what_went_away() {
    let (ram, table, pagemap) = guest(64 * MIB);
    let reader = FrameReader::open(table.fd()).unwrap();
    touch(&ram, 600, 100);
    reconcile(&ram, &table, &pagemap).unwrap();
    let totals = reader.totals();
    let host = ram.host(0, 16384).unwrap().as_ptr() as u64;
    assert_eq!(totals.private, pagemap.count_held(host, 16384).unwrap(), "exact: nobody touches meanwhile");
    assert!(totals.private >= 100 && totals.untiled == 0, "{totals:?}");
    assert!(totals.reconciled_age_ms.is_some());
    ram.release(&pagemap, 0, 16384).unwrap();
    reconcile(&ram, &table, &pagemap).unwrap();
    assert_eq!((reader.totals().private, reader.totals().untouched), (0, 16384));
}

#[test]
fn the_balloon_takes_frames_and_gives_them_back_and_the_table_tiles() {
    let (ram, table, pagemap) = guest(64 * MIB);
    let reader = FrameReader::open(table.fd()).unwrap();
    let mut balloon = RamBalloon::new(Arc::clone(&ram), Arc::clone(&table)).unwrap();
    touch(&ram, 0, 2048);
    reconcile(&ram, &table, &pagemap).unwrap();
    let run = FrameRun { first: 512, count: 1024 };
    let outcome = balloon.inflate(&[run]);
    assert_eq!((outcome.changed_frames, outcome.freed_bytes), (1024, 1024 * FRAME_BYTES));
    assert_eq!(balloon.inflate(&[run]).repeated_frames, 1024, "one page twice is counted and harmless");
    let totals = reader.totals();
    assert_eq!((totals.ballooned, totals.untiled), (1024, 0));
    // A guest that uses a ballooned frame is found out.
    touch(&ram, 520, 1);
    reconcile(&ram, &table, &pagemap).unwrap();
    assert!(reader.totals().refaults >= 1);
    // A deflate of what was never given changes nothing.
    assert_eq!(balloon.deflate(&[FrameRun { first: 0, count: 512 }]).changed_frames, 0);
    balloon.deflate(&[run]);
    let totals = reader.totals_from_entries();
    assert_eq!((totals.ballooned, totals.untiled), (0, 0));
}

/// Reclaim truth: the charge of a memory cgroup, not resident memory, says whether bytes left the host.
#[test]
fn half_of_each_huge_page_really_leaves_the_host() {
    let Some(group) = cgroup::Group::enter() else {
        eprintln!("SKIPPED half_of_each_huge_page_really_leaves_the_host: no writable memory cgroup on this machine");
        return;
    };
    let (ram, _, pagemap) = guest(64 * MIB);
    touch(&ram, 0, 16384);
    let before = group.usage_bytes();
    assert!(before >= 60 * MIB, "the cgroup is charged: {before}");
    let mut freed = 0;
    for frame in (0..16384).step_by(2) {
        freed += ram.release(&pagemap, frame, 1).unwrap().bytes;
    }
    let left = before.saturating_sub(group.usage_bytes());
    assert_eq!(freed, 32 * MIB);
    assert!(left >= freed * 95 / 100, "{left} of {freed} bytes left the cgroup's charge");
}

/// A memory cgroup of this thread's own process, version 1 or 2.
mod cgroup {
    use std::fs;
    use std::path::PathBuf;

    pub struct Group {
        dir: PathBuf,
        parent: PathBuf,
        usage: &'static str,
    }

    impl Group {
        pub fn enter() -> Option<Self> {
            let of = fs::read_to_string("/proc/self/cgroup").ok()?;
            let (parent, usage) = of.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
                match controllers {
                    "memory" => Some((PathBuf::from("/sys/fs/cgroup/memory").join(path), "memory.usage_in_bytes")),
                    "" => Some((PathBuf::from("/sys/fs/cgroup").join(path), "memory.current")),
                    _ => None,
                }
            })?;
            let dir = parent.join(format!("ballast-test-{}", std::process::id()));
            fs::create_dir(&dir).ok()?;
            let group = Self { dir, parent, usage };
            fs::write(group.dir.join("cgroup.procs"), std::process::id().to_string()).ok()?;
            group.dir.join(usage).exists().then_some(group)
        }

        pub fn usage_bytes(&self) -> u64 {
            fs::read_to_string(self.dir.join(self.usage)).unwrap().trim().parse().unwrap()
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = fs::write(self.parent.join("cgroup.procs"), std::process::id().to_string());
            let _ = fs::remove_dir(&self.dir);
        }
    }
}
