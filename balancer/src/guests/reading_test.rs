//! Two samples of different moments: whichever of them is late, no page of an image is the process's own.

use super::*;
use protocol::frames::{ErrorSource, FrameTable, Transition};
use protocol::image::Digest;
use std::cell::RefCell;
use std::os::fd::AsFd;

const MIB: u64 = 1 << 20;
const FRAMES_PER_MIB: u64 = MIB / FRAME_BYTES;
/// What the process has of files in addition to images.
const OWN_FILES: u64 = 6 * MIB;
const POOL: Region = Region { first: 1 << 20, count: 64 * FRAMES_PER_MIB, kind: RegionKind::Image };
const OTHER: Region = Region { first: 1 << 21, count: 64 * FRAMES_PER_MIB, kind: RegionKind::Image };

/// A guest that maps pages of images, and its `vmm`, which finds them by scans.
struct World {
    table: FrameTable,
    reader: FrameReader,
    images: Vec<MappedImage>,
    now: Instant,
    checked_at: std::cell::Cell<Instant>,
    /// Mapped of the pool's image and of the other one, and what the last scan found of them. Frames.
    mapped: [u64; 2],
    found: [u64; 2],
}

impl World {
    fn new() -> RefCell<Self> {
        let table = FrameTable::new(&[Region::ram(0, 512), POOL, OTHER]).unwrap();
        let reader = FrameReader::open(table.fd().as_fd()).unwrap();
        let images = vec![MappedImage { digest: Digest::new([1; 32]), first: POOL.first, count: POOL.count }];
        let now = Instant::now();
        RefCell::new(Self {
            table,
            reader,
            images,
            now,
            checked_at: now.into(),
            mapped: [0; 2],
            found: [0; 2],
        })
    }

    fn map(&mut self, mib: u64) {
        self.mapped = self.mapped.map(|frames| frames + mib * FRAMES_PER_MIB);
    }

    /// What the `vmm` does once a second: it publishes by how much the kernel's total of files grew.
    fn check(&self) {
        let missing = self.mapped.iter().sum::<u64>() - self.found.iter().sum::<u64>();
        self.table.checked(0, ErrorSource::KernelTotal);
        self.table.checked_images(missing);
        self.checked_at.set(self.now);
    }

    fn scan(&mut self) {
        for (region, (mapped, found)) in [POOL, OTHER].iter().zip(self.mapped.iter().zip(&mut self.found)) {
            self.table.apply(region.first + *found, mapped - *found, Transition::Map);
            *found = *mapped;
        }
        self.check();
    }

    fn image_bytes(&self) -> u64 {
        self.mapped.iter().sum::<u64>() * FRAME_BYTES
    }

    fn kernel(&self) -> KernelSample {
        let file_bytes = OWN_FILES + self.image_bytes();
        KernelSample {
            resident_bytes: 50 * MIB + file_bytes,
            anonymous_bytes: 50 * MIB,
            swapped_bytes: 0,
            page_tables_bytes: 0,
            at: self.now,
        }
    }
}

/// A reading of the world, in which something happens before either sample.
fn read(
    world: &RefCell<World>,
    before_table: impl FnOnce(&mut World),
    before_kernel: impl FnOnce(&mut World),
) -> Reading {
    let table = || {
        before_table(&mut world.borrow_mut());
        let world = world.borrow();
        let mut sample = TableSample::take(&world.reader, &world.images);
        // The table's clock is the kernel's; the world's is the test's.
        let age = world.now.duration_since(world.checked_at.get()).as_millis();
        sample.totals.shared_checked_age_ms =
            sample.totals.shared_checked_age_ms.map(|_| u64::try_from(age).unwrap());
        sample
    };
    let kernel = || {
        before_kernel(&mut world.borrow_mut());
        Some(world.borrow().kernel())
    };
    Reading::of(table, kernel, || world.borrow().now).unwrap()
}

/// Checks a reading against the truth, which was between `before` and `now`: what is charged as the process's own is
/// at most what it has, and with its error bound at least that.
fn assert_vouched(reading: &Reading, before: Option<&Reading>, what: &str) {
    let pages = reading.images(before);
    let own_files = reading.kernel.file_bytes() - pages.all.bytes_max;
    assert!(own_files <= OWN_FILES, "{what}: pages of images are charged as its own: {own_files}, {pages:?}");
    assert!(
        own_files + pages.all.doubt_bytes() >= OWN_FILES,
        "{what}: its own is taken for images: {pages:?}"
    );
    assert!(pages.pool.bytes_max <= pages.all.bytes_max && pages.pool.known_bytes <= pages.all.known_bytes);
}

#[test]
fn no_page_of_an_image_is_the_processs_own_whichever_sample_is_late() {
    type Step = (&'static str, fn(&mut World));
    let steps: [Step; 7] = [
        ("nothing", |_| {}),
        ("maps", |world| world.map(16)),
        ("maps and its vmm samples the total", |world| {
            world.map(16);
            world.check();
        }),
        ("its vmm samples the total, then it maps", |world| {
            world.check();
            world.map(16);
        }),
        ("maps and is scanned", |world| {
            world.map(16);
            world.scan();
        }),
        ("is scanned, then it maps", |world| {
            world.scan();
            world.map(16);
        }),
        ("is scanned", World::scan),
    ];
    let pass = |world: &mut World, ms| world.now += Duration::from_millis(ms);
    for (first, before_readings) in steps {
        for (second, before_table) in steps {
            for (third, before_kernel) in steps {
                for (table_ms, kernel_ms) in [(0, 0), (400, 0), (0, 400)] {
                    let what = format!("{first}; {second}, {table_ms} ms late; {third}, {kernel_ms} ms late");
                    let world = World::new();
                    world.borrow().check();
                    let before = read(&world, |_| {}, |_| {});
                    assert_vouched(&before, None, "the first reading");
                    pass(&mut world.borrow_mut(), 900);
                    before_readings(&mut world.borrow_mut());
                    let late_table = |world: &mut World| (pass(world, table_ms), before_table(world)).1;
                    let late_kernel = |world: &mut World| (pass(world, kernel_ms), before_kernel(world)).1;
                    let reading = read(&world, late_table, late_kernel);
                    assert_vouched(&reading, Some(&before), &what);
                    assert_eq!(reading.span, Duration::from_millis(table_ms + kernel_ms), "{what}");
                }
            }
        }
    }
}

#[test]
fn at_rest_a_reading_is_exact() {
    let world = World::new();
    world.borrow_mut().map(20);
    world.borrow_mut().scan();
    let before = read(&world, |_| {}, |_| {});
    world.borrow_mut().now += Duration::from_secs(1);
    world.borrow().check();
    let pages = read(&world, |_| {}, |_| {}).images(Some(&before));
    let exact = |mib| Part { known_bytes: mib * MIB, bytes_max: mib * MIB };
    assert_eq!(pages, ImagePages { all: exact(40), pool: exact(20) });
    assert_eq!(pages.other_bytes(), 20 * MIB);
}

#[test]
fn a_bound_that_is_older_than_the_reading_before_bounds_nothing() {
    let world = World::new();
    world.borrow_mut().scan();
    world.borrow_mut().map(16);
    world.borrow_mut().now += Duration::from_secs(1);
    let before = read(&world, |_| {}, |_| {});
    world.borrow_mut().now += Duration::from_secs(1);
    let mut reading = read(&world, |world| world.map(16), |_| {});
    assert_vouched(&reading, Some(&before), "a check of before");
    let pages = reading.images(Some(&before));
    assert_eq!(pages.all.bytes_max, reading.kernel.file_bytes(), "anything may be a page of an image");
    reading.table.totals.shared_checked_age_ms = None;
    assert_eq!(reading.images(Some(&before)), pages);
    assert_eq!(reading.images(None), pages);
}

#[test]
fn without_images_all_files_are_the_processs_own() {
    let table = FrameTable::new(&[Region::ram(0, 512)]).unwrap();
    let reader = FrameReader::open(table.fd().as_fd()).unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    let take = |pid| {
        let table = || TableSample::take(&reader, &[]);
        Reading::of(table, || KernelSample::of_guest(pid, None), Instant::now)
    };
    let reading = take(pid).unwrap();
    assert!(reading.kernel.file_bytes() > 0);
    assert_eq!(reading.images(None), ImagePages::default());
    assert!(take(i32::MAX).is_none());
}
