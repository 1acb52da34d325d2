use super::super::mapping::Advice;
use super::super::{Comparison, Pagemap, Pass, Ram, RamBalloon};
use super::*;
use devices::virtio::balloon::{BalloonBackend, FrameRun};
use protocol::frames::{FrameReader, FrameTable, RegionKind, State};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

const MIB: u64 = 1 << 20;
const BASE: u64 = 4 << 30;

/// A file that exists nowhere, each of its pages filled with its number.
fn file(bytes: u64) -> File {
    let file = File::from(rustix::fs::memfd_create(c"image", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    for page in 0..bytes / 4096 {
        file.write_all_at(&[page as u8; 4096], page * 4096).unwrap();
    }
    file.set_len(bytes).unwrap();
    file
}

fn image(bytes: u64) -> OpenImage {
    OpenImage::new("test".into(), None, file(bytes)).unwrap()
}

struct Guest {
    ram: Arc<Ram>,
    images: Arc<Images>,
    table: Arc<FrameTable>,
    reader: FrameReader,
    memory: DeviceMemory,
}

fn guest(images: Vec<OpenImage>) -> Guest {
    let ram = Arc::new(Ram::new(16 * MIB).unwrap());
    let images = Arc::new(Images::map(images, ram.end()).unwrap());
    let regions: Vec<Region> = ram.slots().chain(images.slots()).map(|(region, _)| region).collect();
    let table = Arc::new(FrameTable::new(&regions).unwrap());
    let reader = FrameReader::open(table.fd()).unwrap();
    let memory = images.beside(ram.guest()).unwrap();
    Guest { ram, images, table, reader, memory }
}

impl Guest {
    fn compare(&self, pagemap: Pagemap, pass: Pass) -> u64 {
        let mut comparison = Comparison::new(Arc::clone(&self.ram), Arc::clone(&self.table), pagemap)
            .with_images(Arc::clone(&self.images));
        comparison.run(pass).unwrap().mended_frames
    }

    fn byte(&self, gpa: u64) -> u8 {
        self.memory.read_obj(GuestAddress(gpa)).unwrap()
    }
}

#[test]
fn images_lie_behind_ram_in_their_order_each_at_128_mib() {
    let guest = guest(vec![image(2 * MIB), image(4 * MIB)]);
    let regions: Vec<Region> = guest.images.slots().map(|(region, _)| region).collect();
    assert_eq!(regions, [Region::image(1 << 20, 512), Region::image((1 << 20) + 32768, 1024)]);
    for (_, host) in guest.images.slots() {
        assert_eq!(host % protocol::bytes::BLOCK_BYTES, 0);
    }
    assert_eq!((guest.byte(BASE + 5 * 4096), guest.byte(BASE + (128 << 20) + 4096 * 300)), (5, 44));
    assert!(guest.images.covers(BASE) && guest.images.covers(BASE + 2 * MIB - 1));
    assert!(!guest.images.covers(BASE - 1) && !guest.images.covers(BASE + 2 * MIB));
    assert_eq!((guest.images.bytes(), guest.reader.image_bytes()), (6 * MIB, 6 * MIB));
    assert_eq!(Images::map(vec![image(2 * MIB)], 5 << 30).unwrap().slots().next().unwrap().0.first, 5 << 18);
}

#[test]
fn i6_a_length_that_is_no_multiple_of_2_mib_is_refused_with_the_bound() {
    for bytes in [0, 1, 4096, 2 * MIB - 1, 2 * MIB + 4096, 3 * MIB] {
        let odd = file(0);
        odd.set_len(bytes).unwrap();
        let text = OpenImage::new("an-image".into(), None, odd).unwrap_err().to_string();
        assert!(text.contains("an-image") && text.contains("2097152"), "{text}");
        assert!(text.contains(&format!("{bytes} bytes long")), "{text}");
    }
}

#[test]
fn i8_one_file_is_mapped_once() {
    let one = file(2 * MIB);
    let same = OpenImage::new("same".into(), None, one.try_clone().unwrap()).unwrap();
    let first = OpenImage::new("first".into(), None, one).unwrap();
    let text = Images::map(vec![first, same], 0).unwrap_err().to_string();
    assert_eq!(text, "The image same is first: it can be mapped once");
    let many = (0..17).map(|_| image(2 * MIB)).collect();
    let text = Images::map(many, 0).unwrap_err().to_string();
    assert_eq!(text, "17 images, but a guest can have at most 16");
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    for path in ["/no/such/image", "/dev/zero", "/"] {
        let error = open_path(Path::new(path)).unwrap_err();
        assert!(matches!(error, ImageError::Open { .. }) && error.to_string().contains(path), "{error}");
    }
}

#[test]
fn the_balancer_is_told_of_images_of_the_pool_and_not_of_files_of_the_guests_own() {
    let digest = protocol::image::Digest::new([0xab; 32]);
    let dir = std::env::temp_dir();
    let path = dir.join(format!("{}.erofs", digest.hex()));
    std::fs::write(&path, vec![0; 2 << 20]).unwrap();
    let own = open_path(&path);
    std::fs::remove_file(&path).unwrap();
    let own = own.unwrap();
    assert_eq!(own.digest, None, "a name is no proof");
    let pools = OpenImage::new("pool".into(), Some(digest), file(2 * MIB)).unwrap();
    let images = Images::map(vec![own, pools], BASE).unwrap();
    let told = images.told();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].digest, told[0].count), (digest, 512));
    assert!(told[0].first > 1 << 20, "behind the other one");
}

#[test]
fn pages_that_are_read_are_shared_and_pages_that_are_let_go_are_not() {
    for scan in [true, false] {
        let guest = guest(vec![image(4 * MIB), image(2 * MIB)]);
        let pagemap = || match scan {
            true => Pagemap::open().unwrap(),
            false => Pagemap::with_method(super::super::Method::Read).unwrap(),
        };
        guest.compare(pagemap(), Pass::Full);
        assert_eq!(guest.reader.totals().shared, 0);
        for page in 0..512 {
            assert_eq!(guest.byte(BASE + page * 4096), page as u8);
        }
        assert!(guest.compare(pagemap(), Pass::Touched) >= 512);
        let by_region = guest.reader.totals_by_region();
        let shared: Vec<u64> = by_region.iter().map(|(_, totals)| totals.shared).collect();
        // The kernel may map pages around those that were touched.
        assert!(shared[0] == 0 && (512..=1024).contains(&shared[1]) && shared[2] == 0, "{shared:?}");
        assert!(by_region.iter().all(|(_, totals)| totals.untiled == 0));
        let totals = guest.reader.totals_from_entries();
        assert_eq!((totals.untiled, totals.private), (0, guest.table.total(RegionKind::Ram, State::Private)));
        // I4: releasing pages of an image is safe at any time. The next access finds the same bytes.
        let image = &guest.images.all[0];
        image.file.mapping.advise(0, image.what.bytes, Advice::Release).unwrap();
        assert!(guest.compare(pagemap(), Pass::Full) >= 512);
        assert_eq!(guest.reader.totals().shared, 0);
        assert_eq!(guest.byte(BASE + 7 * 4096), 7);
    }
}

#[test]
fn i4_balloon_and_reporting_refuse_frames_of_an_image() {
    let guest = guest(vec![image(2 * MIB)]);
    assert_eq!(guest.byte(BASE), 0);
    guest.compare(Pagemap::open().unwrap(), Pass::Full);
    let shared = guest.reader.totals().shared;
    assert!(shared > 0);
    let mut balloon = RamBalloon::new(Arc::clone(&guest.ram), Arc::clone(&guest.table)).unwrap();
    for run in [FrameRun { first: 1 << 20, count: 512 }, FrameRun { first: 4095, count: (1 << 20) - 4000 }] {
        assert!(!balloon.is_ram(run), "{run:?}");
        // And if the device did not ask before:
        assert_eq!(balloon.inflate(&[run]).changed_frames, 0);
        assert_eq!(balloon.report(&[run]).changed_frames, 0);
        assert_eq!(balloon.deflate(&[run]).changed_frames, 0);
        assert!(guest.ram.release(&Pagemap::open().unwrap(), run.first, run.count).is_err());
    }
    assert_eq!((guest.reader.totals().shared, guest.reader.totals().ballooned), (shared, 0));
}

#[test]
fn i2_the_mapping_cannot_be_made_writable() {
    let path = std::env::temp_dir().join(format!("ballast-image-{}.erofs", std::process::id()));
    std::fs::write(&path, vec![1; 2 << 20]).unwrap();
    let opened = open_path(&path);
    std::fs::remove_file(&path).unwrap();
    let images = Images::map(vec![opened.unwrap()], BASE).unwrap();
    let (_, host) = images.slots().next().unwrap();
    let writable = rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE;
    // SAFETY: asks for a right that the descriptor does not give; nothing changes when it is refused.
    let result = unsafe { rustix::mm::mprotect(host as *mut _, 4096, writable) };
    assert_eq!(result, Err(rustix::io::Errno::ACCESS));
}

/// One after the other: both read the same count.
#[test]
fn a_file_that_gets_shorter_leaves_zeros_and_ends_no_reader() {
    install().unwrap();
    an_access_is_mended_as_it_happens();
    all_are_mended_on_request();
}

fn an_access_is_mended_as_it_happens() {
    let before = lost_frames();
    let opened = image(4 * MIB);
    let file = opened.file.try_clone().unwrap();
    let guest = guest(vec![image(2 * MIB), opened]);
    let second = BASE + (128 << 20);
    assert_eq!(guest.byte(second + 3 * MIB), (3 * MIB / 4096) as u8);
    // In the middle of a page: the rest of that page is zeros by itself.
    file.set_len(MIB + 100).unwrap();
    assert_eq!(guest.byte(second + 3 * MIB), 0, "by SIGBUS");
    assert_eq!((guest.byte(second + MIB + 99), guest.byte(second + MIB + 100)), (0, 0));
    assert_eq!(guest.byte(second + MIB - 1), 255, "what is left of the file is there");
    assert_eq!(lost_frames() - before, 767);
    assert_eq!(guest.byte(second + 4 * MIB - 1), 0);
    // Shorter still, and once more by a device's way of reading much at once.
    file.set_len(0).unwrap();
    let mut bytes = vec![1; 4 << 20];
    guest.memory.read_slice(&mut bytes, GuestAddress(second)).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert_eq!(lost_frames() - before, 1024, "each frame is lost once");
    assert_eq!(guest.byte(BASE + 4096), 1, "the other image is whole");
    assert!(!heal(), "nothing is left to mend");
    // Zeros are no pages of the pool.
    guest.compare(Pagemap::open().unwrap(), Pass::Full);
    assert_eq!(guest.reader.totals_by_region()[2].1.shared, 0);
}

fn all_are_mended_on_request() {
    let before = lost_frames();
    let opened = image(2 * MIB);
    let file = opened.file.try_clone().unwrap();
    let guest = guest(vec![opened]);
    assert!(!heal());
    file.set_len(4096).unwrap();
    assert!(heal() && !heal(), "once");
    assert_eq!(lost_frames() - before, 511);
    assert_eq!((guest.byte(BASE), guest.byte(BASE + 4096)), (0, 0));
}
