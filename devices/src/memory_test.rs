//! I3: no device writes into an image, whatever the guest asks for, and no attempt is a fault of the process.

use crate::testing::{Buffer, FakeGuest, IMAGE_BASE, memory_with_image};
use crate::virtio::balloon::BalloonOptions;
use crate::virtio::{Balloon, Block, Console, Entropy, VirtioDevice};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use virtio_bindings::virtio_mmio as reg;
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

const RAM: usize = 4 << 20;
const IMAGE_BYTES: usize = 8192;
const END: u64 = IMAGE_BASE + IMAGE_BYTES as u64;

fn guest<D: VirtioDevice>(device: D) -> FakeGuest<D> {
    let mut guest = FakeGuest::on(memory_with_image(RAM, &[7; IMAGE_BYTES]), device);
    guest.probe(u64::MAX);
    guest
}

fn into_image(len: u32) -> Buffer {
    Buffer { gpa: IMAGE_BASE + 512, len, writable: true }
}

fn image<D: VirtioDevice>(guest: &FakeGuest<D>) -> Vec<u8> {
    guest.contents(Buffer { gpa: IMAGE_BASE, len: IMAGE_BYTES as u32, writable: false })
}

fn disk() -> (Block, File) {
    let file = crate::testing::memory_file(&[3; 8192]);
    (Block::new(file.try_clone().unwrap(), false, "disk").unwrap(), file)
}

#[test]
fn an_image_is_read_and_never_written() {
    let mem = memory_with_image(RAM, &[7; IMAGE_BYTES]);
    assert_eq!(mem.read_obj::<u8>(GuestAddress(END - 1)).unwrap(), 7);
    assert_eq!(
        mem.load::<u32>(GuestAddress(IMAGE_BASE), std::sync::atomic::Ordering::Relaxed).unwrap(),
        0x0707_0707
    );
    for access in [Permissions::Write, Permissions::ReadWrite] {
        for (gpa, len) in
            [(IMAGE_BASE, 1), (END - 1, 1), (IMAGE_BASE, IMAGE_BYTES), (0, usize::MAX), (u64::MAX, 2)]
        {
            assert!(!mem.check_range(GuestAddress(gpa), len, access), "{gpa:#x} {len}");
            assert!(mem.get_slices(GuestAddress(gpa), len, access).is_err(), "{gpa:#x} {len}");
        }
    }
    assert!(mem.write_slice(&[1], GuestAddress(IMAGE_BASE)).is_err());
    assert!(mem.write_obj(1u64, GuestAddress(END - 8)).is_err());
    assert!(mem.store(1u16, GuestAddress(IMAGE_BASE), std::sync::atomic::Ordering::SeqCst).is_err());
    assert!(mem.read_exact_volatile_from(GuestAddress(IMAGE_BASE), &mut &[1u8; 8][..], 8).is_err());
    mem.write_slice(&[1; 8], GuestAddress(RAM as u64 - 8)).unwrap();
    assert!(mem.write_slice(&[1; 16], GuestAddress(RAM as u64 - 8)).is_err(), "RAM ends there");
}

#[test]
fn i3_a_disk_that_is_to_read_into_an_image_gives_an_io_error() {
    let (block, _file) = disk();
    let mut guest = guest(block);
    let mut header = [0; 16];
    for (kind, status) in [(0u32, 1u8), (8, 1)] {
        header[..4].copy_from_slice(&kind.to_le_bytes());
        let (head, answer) = (guest.readable(&header), guest.readable(&[0xee]));
        let chain = [head, into_image(1024), Buffer { writable: true, ..answer }];
        assert_eq!(guest.send(0, &chain), Some(1));
        assert_eq!(guest.contents(answer), [status]);
    }
    // The status itself is in the image: no status can be written.
    let (head, data) = (guest.readable(&[0; 16]), guest.writable(512));
    assert_eq!(guest.send(0, &[head, data, into_image(1)]), Some(0));
    assert_eq!(guest.transport().device().counters().bad_chains, 3);
    assert_eq!(image(&guest), [7; IMAGE_BYTES]);
}

#[test]
fn i3_a_disk_is_written_from_an_image() {
    let (block, file) = disk();
    let mut guest = guest(block);
    let mut header = [0; 16];
    header[0] = 1;
    let (head, status) = (guest.readable(&header), guest.writable(1));
    let from_image = Buffer { gpa: IMAGE_BASE, len: 4096, writable: false };
    assert_eq!(guest.send(0, &[head, from_image, status]), Some(1));
    assert_eq!(guest.contents(status), [0]);
    let mut bytes = [0; 8192];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes[..4096], &bytes[4096..]), (&[7; 4096][..], &[3; 4096][..]));
}

#[test]
fn i3_entropy_and_console_input_go_into_no_image() {
    let mut random = guest(Entropy::new());
    assert_eq!(random.send(0, &[into_image(64)]), Some(0));
    let across = Buffer { gpa: IMAGE_BASE - 8, len: 16, writable: true };
    assert_eq!(random.send(0, &[across]), Some(0), "half of it is nowhere, the other half in the image");
    assert_eq!(random.transport().device().counters().bad_chains, 2);
    assert_eq!(image(&random), [7; IMAGE_BYTES]);

    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let mut console =
        guest(Console::new(Box::new(move |bytes| heard.lock().unwrap().extend_from_slice(bytes))));
    console.add(0, &[into_image(64)]);
    console.transport().device_mut().input(b"typed");
    console.notify(0);
    assert_eq!(console.used(0).len(), 1);
    assert_eq!(console.transport().device().counters().bad_chains, 1);
    assert_eq!(image(&console), [7; IMAGE_BYTES]);
    // What the guest prints may come from there.
    console.send(1, &[Buffer { gpa: IMAGE_BASE, len: 5, writable: false }]);
    assert_eq!(*said.lock().unwrap(), [7; 5]);
}

#[test]
fn i4_balloon_and_reporting_refuse_frames_of_an_image() {
    let options = BalloonOptions { deflate_on_oom: true, free_page_reporting: true, stats: true };
    let ram = crate::testing::FakeRam::new(RAM >> 12);
    let mut guest = guest(Balloon::new((RAM >> 12) as u64, Box::new(ram.clone()), options));
    let pfns: Vec<u8> = [IMAGE_BASE >> 12, (IMAGE_BASE >> 12) + 1]
        .iter()
        .flat_map(|pfn| u32::try_from(*pfn).unwrap().to_le_bytes())
        .collect();
    for queue in [0, 1] {
        let list = guest.readable(&pfns);
        assert_eq!(guest.send(queue, &[list]), Some(0));
    }
    let queues = guest.transport().queue_count() as u32;
    for queue in 2..queues {
        guest.add(queue, &[into_image(4096)]);
        guest.notify(queue);
    }
    assert!(ram.calls().iter().all(Vec::is_empty), "{:?}", ram.calls());
    assert_eq!(image(&guest), [7; IMAGE_BYTES]);
    // A list of frames may lie in an image; what it names is not RAM here.
    assert_eq!(guest.send(0, &[Buffer { gpa: IMAGE_BASE, len: 16, writable: false }]), Some(0));
    assert_eq!(guest.transport().device().held_frames(), 0);
}

#[test]
fn i3_a_queue_with_any_part_of_its_rings_in_an_image_is_refused() {
    for part in
        [reg::VIRTIO_MMIO_QUEUE_DESC_LOW, reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, reg::VIRTIO_MMIO_QUEUE_USED_LOW]
    {
        let mut guest = FakeGuest::on(memory_with_image(RAM, &[0; IMAGE_BYTES]), Entropy::new());
        guest.negotiate(u64::MAX);
        guest.set(reg::VIRTIO_MMIO_QUEUE_SEL, 0);
        guest.set(reg::VIRTIO_MMIO_QUEUE_NUM, 16);
        let places = [
            (reg::VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000),
            (reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x2000),
            (reg::VIRTIO_MMIO_QUEUE_USED_LOW, 0x3000),
        ];
        for (low, ram) in places {
            let gpa = if low == part { IMAGE_BASE } else { ram };
            guest.set(low, gpa as u32);
            guest.set(low + 4, (gpa >> 32) as u32);
        }
        guest.set(reg::VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(guest.get(reg::VIRTIO_MMIO_QUEUE_READY), 0, "{part:#x}");
        assert_eq!(guest.transport().counters().bad_queue_setups, 1);
        guest.driver_ok();
        guest.notify(0);
        assert_eq!(image(&guest), [0; IMAGE_BYTES]);
    }
}
