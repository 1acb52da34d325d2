use super::super::{OpenImage, UffdError};
use super::*;
use protocol::frames::{FrameReader, FrameTable, Region};
use protocol::image::Digest;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const BASE: u64 = 4 << 30;
const IMAGE_BYTES: u64 = 2 << 20;

/// Memory as a balancer makes it, and its read-only descriptor.
fn memory() -> (File, File) {
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let memory = File::from(rustix::fs::memfd_create(c"pool", flags).unwrap());
    memory.set_len(IMAGE_BYTES).unwrap();
    rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    let read_only = host::process::reopen(&memory).unwrap();
    (memory, read_only)
}

fn fill(memory: &File, number: u64, byte: u8) {
    memory.write_all_at(&vec![byte; GRANULE_BYTES as usize], number * GRANULE_BYTES).unwrap();
}

/// Images with one that is managed, and a table; `None` where faults cannot be watched.
fn images(file: File) -> Option<(Images, FrameTable)> {
    let opened = OpenImage::new("pool".into(), Some(Digest::new([1; 32])), file).unwrap().managed(None);
    match Images::map(vec![opened], BASE) {
        Err(ImageError::Watch(error @ UffdError::Forbidden(_))) => {
            skip::skip!(Userfaultfd, "{error}");
            None
        }
        images => {
            let table = FrameTable::new(&[Region::ram(0, 512), Region::image(1 << 20, 512)]).unwrap();
            Some((images.unwrap(), table))
        }
    }
}

/// Reads a byte on a thread that knows nothing of granules, while this thread answers.
fn read(images: &Images, offset: u64, mut answer: impl FnMut(Granule)) -> u8 {
    let at = images.slots().next().unwrap().1 + offset;
    std::thread::scope(|scope| {
        // SAFETY: inside the mapping.
        let reader = scope.spawn(move || unsafe { (at as *const u8).read_volatile() });
        let begun = Instant::now();
        while !reader.is_finished() {
            images.waited_for().unwrap().into_iter().for_each(&mut answer);
            assert!(begun.elapsed() < Duration::from_secs(20), "the reader is not woken");
            std::thread::yield_now();
        }
        reader.join().unwrap()
    })
}

#[test]
fn a_touch_is_told_of_once_and_waits_until_its_granule_is_there() {
    let (memory, file) = memory();
    let Some((images, table)) = images(file) else { return };
    let mut asked = vec![];
    let byte = read(&images, 5 * GRANULE_BYTES + 4097, |granule| {
        assert!(!images.map_granule(granule, &table).unwrap(), "nothing is there yet");
        fill(&memory, granule.number, 7);
        assert!(images.map_granule(granule, &table).unwrap());
        asked.push(granule);
    });
    assert_eq!((byte, asked), (7, vec![Granule { image: 0, number: 5 }]));
    let reader = FrameReader::open(table.fd()).unwrap();
    assert_eq!(reader.totals().shared, 16);
    // The whole granule is there, and not a page next to it.
    assert_eq!(read(&images, 6 * GRANULE_BYTES - 1, |granule| panic!("{granule:?}")), 7);
    // Once evicted it is reported again, though the memory still has it.
    images.let_go(Granule { image: 0, number: 5 }, &table).unwrap();
    assert_eq!(reader.totals().shared, 0);
    let mut again = 0;
    let byte = read(&images, 5 * GRANULE_BYTES, |granule| {
        again += 1;
        assert!(images.map_granule(granule, &table).unwrap());
    });
    assert_eq!((byte, again, reader.totals().shared, reader.totals().untiled), (7, 1, 16, 0));
}

#[test]
fn system_calls_wait_as_well() {
    let (memory, file) = memory();
    let Some((images, table)) = images(file) else { return };
    let at = images.slots().next().unwrap().1;
    let out = memory_file();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // SAFETY: inside the mapping.
            unsafe { libc::pwrite(out.as_raw_fd(), at as *const _, 3 * GRANULE_BYTES as usize, 0) }
        });
        while !writer.is_finished() {
            for granule in images.waited_for().unwrap() {
                fill(&memory, granule.number, granule.number as u8 + 1);
                assert!(images.map_granule(granule, &table).unwrap());
            }
        }
        assert_eq!(writer.join().unwrap(), 3 * GRANULE_BYTES as isize);
    });
    let mut byte = [0];
    out.read_exact_at(&mut byte, 2 * GRANULE_BYTES).unwrap();
    assert_eq!(byte, [3]);
}

fn memory_file() -> File {
    memory().0
}

#[test]
fn other_memory_takes_the_place_of_an_image_at_once() {
    let (old, file) = memory();
    let Some((images, table)) = images(file.try_clone().unwrap()) else { return };
    let there = |memory: &File, byte| {
        let memory = memory.try_clone().unwrap();
        let (images, table) = (&images, &table);
        move |granule: Granule| {
            fill(&memory, granule.number, byte);
            assert!(images.map_granule(granule, table).unwrap());
        }
    };
    assert_eq!(read(&images, 0, there(&old, 1)), 1);
    assert!(images.is_same(0, &file));
    let (new, file) = memory();
    assert!(!images.is_same(0, &file) && images.granules(1).is_none());
    images.let_all_go(&table).unwrap();
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| images.replace(0, &file));
        while !moved.is_finished() {
            assert!(images.waited_for().unwrap().is_empty());
        }
        moved.join().unwrap().unwrap();
    });
    assert!(images.is_same(0, &file));
    assert_eq!(read(&images, 0, there(&new, 2)), 2, "it is watched at its new place");
    assert!(images.replace(3, &file).is_err());
}

#[test]
fn what_could_get_shorter_is_no_memory_of_a_balancer() {
    let file = std::env::temp_dir().join(format!("ballast-managed-{}", std::process::id()));
    std::fs::write(&file, vec![0; IMAGE_BYTES as usize]).unwrap();
    let opened = File::open(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let image = OpenImage::new("plain".into(), None, opened).unwrap().managed(None);
    let error = Images::map(vec![image], BASE).unwrap_err();
    assert!(matches!(error, ImageError::Map { .. } | ImageError::Watch(_)), "{error}");
}
