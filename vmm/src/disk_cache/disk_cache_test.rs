//! On a real file system: that of the test program itself. A tmpfs has no page cache that could be dropped.

use super::file::Method;
use super::*;
use protocol::disk::FileId;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const MIB: u64 = 1 << 20;

/// A disk of so many mebibytes, all of them just written, next to the test program; removed at the end.
struct Disk {
    path: std::path::PathBuf,
    file: File,
    moved: Arc<AtomicU64>,
}

impl Disk {
    fn new(name: &str, mib: u64) -> Self {
        let program = std::env::current_exe().unwrap();
        let path = program.with_file_name(format!("ballast-disk-{}-{name}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        (0..mib).for_each(|at| file.write_all_at(&[7; MIB as usize], at * MIB).unwrap());
        Self { path, file, moved: Arc::default() }
    }

    fn cached(&self) -> DiskFile {
        DiskFile::open(&self.file, self.file.metadata().unwrap().len(), Arc::clone(&self.moved)).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

/// False, and says why, where the pages of a file cannot be dropped.
fn can_drop(disk: &DiskFile) -> bool {
    if disk.stays() {
        skip::skip!(ProgramsOnDisk, "the test program is on a tmpfs");
    }
    !disk.stays()
}

fn keep(file: FileId, keep_bytes: u64) -> KeepCached {
    KeepCached { file, keep_bytes }
}

fn drop_all(cache: &mut DiskCache) -> u32 {
    let mut steps = 0;
    while cache.is_dropping() {
        cache.drop_some();
        steps += 1;
        assert!(steps < 1000, "dropping ends");
    }
    steps
}

#[test]
fn dirty_pages_count_once_and_leave_when_they_are_dropped() {
    let disk = Disk::new("dirty", 24);
    let file = disk.cached();
    if !can_drop(&file) {
        return;
    }
    let id = file.id();
    let mut cache = DiskCache::new(vec![file]);
    let cached = |cache: &mut DiskCache| cache.read().files[0].clone();
    assert_eq!(cached(&mut cache), CachedFile { file: id, bytes: 24 * MIB, error_bytes: 0, stays: false });
    // A file of another guest, and more than there is: nothing to do.
    cache.keep(&[keep(FileId { dev: 1, ino: 1 }, 0)]);
    assert!(!cache.is_dropping());
    cache.keep(&[keep(id, 24 * MIB)]);
    drop_all(&mut cache);
    assert_eq!(cached(&mut cache).bytes, 24 * MIB);
    cache.keep(&[keep(id, 10 * MIB)]);
    drop_all(&mut cache);
    let left = cached(&mut cache).bytes;
    assert!((8 * MIB..=10 * MIB).contains(&left), "{left} of 10 MiB");
    cache.keep(&[keep(id, 0)]);
    drop_all(&mut cache);
    assert_eq!(cached(&mut cache).bytes, 0);
    let mut byte = [0];
    disk.file.read_exact_at(&mut byte, 5 * MIB).unwrap();
    assert_eq!(byte, [7], "what was dropped was written");
}

#[test]
fn both_methods_count_the_same() {
    let disk = Disk::new("ways", 8);
    let file = disk.cached();
    if !can_drop(&file) {
        return;
    }
    let mut cache = DiskCache::new(vec![file]);
    cache.keep(&[keep(cache.files[0].id(), 0)]);
    drop_all(&mut cache);
    disk.file.read_exact_at(&mut [0; 4096], 3 * MIB).unwrap();
    let file = &cache.files[0];
    for part in [0..8 * MIB, 3 * MIB..3 * MIB + 4096, 0..2 * MIB] {
        let ways = [Method::Cachestat, Method::Mincore].map(|way| file.cached_bytes_by(way, &part));
        match ways {
            [Ok(cachestat), Ok(mincore)] => assert_eq!(cachestat, mincore, "{part:?}"),
            [Err(error), Ok(_)] => skip::skip!(Cachestat, "{error}"),
            [_, Err(error)] => panic!("mincore: {error}"),
        }
    }
    assert!(file.read().bytes >= 4096);
}

#[test]
fn pages_of_a_tmpfs_are_counted_and_stay() {
    let file = File::from(rustix::fs::memfd_create(c"disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.write_all_at(&[1; 1 << 20], 0).unwrap();
    let mut cache = DiskCache::new(vec![DiskFile::open(&file, MIB, Arc::default()).unwrap()]);
    let id = cache.files[0].id();
    assert_eq!(cache.read().files, [CachedFile { file: id, bytes: MIB, error_bytes: 0, stays: true }]);
    cache.keep(&[keep(id, 0)]);
    drop_all(&mut cache);
    assert_eq!(cache.read().files[0].bytes, MIB);
}

#[test]
fn a_reading_is_due_when_bytes_moved_and_now_and_then() {
    assert!(!DiskCache::default().is_due(Instant::now()), "there is nothing to read");
    let disk = Disk::new("due", 1);
    let mut cache = DiskCache::new(vec![disk.cached()]);
    assert!(cache.is_due(Instant::now()));
    let reading = cache.read();
    assert!(!cache.is_due(reading.at) && !cache.is_due(reading.at + READ_EVERY / 2));
    assert!(cache.is_due(reading.at + READ_EVERY));
    disk.moved.fetch_add(512, Relaxed);
    assert!(cache.is_due(reading.at));
    cache.read();
    assert!(!cache.is_due(Instant::now()));
}

#[test]
fn a_file_behind_two_disks_counts_once() {
    let disk = Disk::new("twice", 1);
    let second = Arc::new(AtomicU64::new(0));
    let again = DiskFile::open(&disk.file, MIB, Arc::clone(&second)).unwrap();
    let mut cache = DiskCache::new(vec![disk.cached(), again]);
    let reading = cache.read();
    assert_eq!(reading.files.len(), 1);
    second.fetch_add(1, Relaxed);
    assert!(cache.is_due(reading.at), "the second disk moved something");
}

#[test]
fn a_large_file_is_dropped_in_steps() {
    let disk = Disk::new("large", 80);
    let file = disk.cached();
    if !can_drop(&file) {
        return;
    }
    let mut cache = DiskCache::new(vec![file]);
    cache.keep(&[keep(cache.files[0].id(), 0)]);
    assert!(drop_all(&mut cache) >= 2, "64 MiB at a time");
    assert_eq!(cache.read().files[0].bytes, 0);
}

#[test]
fn an_order_that_follows_from_an_older_reading_drops_no_more_than_is_beyond_it_now() {
    let disk = Disk::new("older", 8);
    let file = disk.cached();
    if !can_drop(&file) {
        return;
    }
    let mut cache = DiskCache::new(vec![file]);
    let id = cache.files[0].id();
    assert_eq!(cache.read().files[0].bytes, 8 * MIB);
    cache.keep(&[keep(id, 4 * MIB)]);
    drop_all(&mut cache);
    let left = cache.read().files[0].bytes;
    assert!(left <= 4 * MIB, "{left}");
    // The balancer has not heard of that, and by its older reading 2 MiB of 8 MiB are too much.
    cache.keep(&[keep(id, 6 * MIB)]);
    drop_all(&mut cache);
    assert_eq!(cache.read().files[0].bytes, left);
}
