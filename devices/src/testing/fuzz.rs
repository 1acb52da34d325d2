//! Devices driven by arbitrary bytes. The fuzz targets in `fuzz/` and ordinary property tests call the same functions.
//!
//! The bytes are records of 16: an operation, a queue, and what to write where. A panic is a failure, and so is a
//! broken promise: a chain without a used entry, a count that is not what happened to the frames, a sector that changed
//! on a read-only disk.

use super::{FakeGuest, FakeRam, FrameState, IMAGE_BASE, RecordingIrq, memory_with_image};
use crate::bus::BusDevice;
use crate::virtio::balloon::{BalloonOptions, STATS_QUEUE};
use crate::virtio::console::RECEIVE_QUEUE;
use crate::virtio::{Balloon, Block, Console, Entropy, Pmem, VirtioDevice, VirtioMmio};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use vm_memory::{Bytes, GuestAddress};

const FRAMES: usize = 256;
/// Buffers are behind the rings, so that a device that is asked to write cannot change what the driver remembers.
const BUFFERS_BASE: u64 = 0x40_000;
/// Heads and descriptors that records name: less than any queue has.
const HEADS: u16 = 16;

/// What the records did to the queues.
#[derive(Default)]
struct Driven {
    /// Chains published and not used yet, by queue.
    owed: BTreeMap<u32, usize>,
    /// The index of an available ring was overwritten: what is owed is not known any more.
    lost: bool,
}

impl Driven {
    /// Applies one record and returns whether the device was notified of a queue.
    fn apply<D: VirtioDevice>(&mut self, guest: &mut FakeGuest<D>, record: &[u8; 16]) -> Option<u32> {
        let [op, queue, at, flags, next, rest @ ..] = *record;
        let queues = guest.transport().queue_count();
        let queue = u32::from(queue) % u32::try_from(queues).expect("few queues");
        let at = u16::from(at) % HEADS;
        match op % 8 {
            0..=2 => {
                let len = u32::from_le_bytes([rest[0], rest[1], rest[5] & rest[6], 0]);
                let offset = u64::from(u16::from_le_bytes([rest[2], rest[3]]));
                // Into RAM, into an image that devices only read, or nowhere.
                let wild = [0, IMAGE_BASE - BUFFERS_BASE, 0, 1 << 40][usize::from(rest[4] & 3)];
                guest.write_descriptor(
                    queue,
                    at,
                    BUFFERS_BASE + offset + wild,
                    len,
                    flags.into(),
                    next.into(),
                );
            }
            3 => {
                let place = BUFFERS_BASE + u64::from(u16::from_le_bytes([flags, next]));
                guest.mem.write_slice(&rest, GuestAddress(place)).expect("buffers are in RAM");
            }
            4..=5 => {
                guest.publish(queue, at);
                *self.owed.entry(queue).or_default() += 1;
            }
            6 if flags % 32 == 0 => {
                guest.set_avail_index(queue, u16::from_le_bytes([rest[0], rest[1]]));
                self.lost = true;
            }
            _ => {
                guest.notify(queue);
                return Some(queue);
            }
        }
        None
    }

    /// Every chain came back, except `kept` that the device may keep. Queues that are overrun make a device ask for a
    /// reset.
    fn check<D: VirtioDevice>(&mut self, guest: &mut FakeGuest<D>, queue: u32, kept: usize) {
        if self.lost || !guest.transport().is_live() {
            return;
        }
        let owed = self.owed.entry(queue).or_default();
        *owed -= guest.used(queue).len();
        assert!(*owed <= kept, "{owed} chains of queue {queue} did not come back");
    }
}

/// Bytes of the image that every guest here has in addition to its RAM. A device that writes there ends the process.
static IMAGE: [u8; 0x8000] = [0; 0x8000];

fn guest<D: VirtioDevice>(device: D) -> FakeGuest<D> {
    let mut guest = FakeGuest::on(memory_with_image(FRAMES << 12, &IMAGE), device);
    guest.probe(u64::MAX);
    guest
}

fn records(data: &[u8]) -> &[[u8; 16]] {
    data.as_chunks::<16>().0
}

/// A balloon whose driver sends any chains through any queue.
pub fn balloon(data: &[u8]) {
    let options = BalloonOptions { deflate_on_oom: true, free_page_reporting: true, stats: true };
    let ram = FakeRam::new(FRAMES);
    let balloon = Balloon::new(FRAMES as u64, Box::new(ram.clone()), options);
    let mut guest = guest(balloon);
    let mut driven = Driven::default();
    for record in records(data) {
        if let Some(queue) = driven.apply(&mut guest, record) {
            driven.check(&mut guest, queue, usize::from(queue as usize == STATS_QUEUE));
        }
        if record[0] & 0xf0 == 0xf0 {
            let mut transport = guest.transport();
            transport.device_mut().set_target(record[15].into());
            transport.device_mut().request_stats();
            transport.queue_event(STATS_QUEUE);
        }
        let transport = guest.transport();
        assert_eq!(transport.device().held_frames(), ram.count(FrameState::Ballooned));
    }
}

/// A disk, read-only by the first bit, whose driver sends any requests.
pub fn block(data: &[u8]) {
    const SECTORS: usize = 64;
    let Some((mode, data)) = data.split_first() else { return };
    let read_only = mode & 1 != 0;
    let contents: Vec<u8> = (0..SECTORS * 512).map(|at| (at / 512) as u8).collect();
    let file = super::memory_file(&contents);
    let seen = file.try_clone().expect("a descriptor can be copied");
    let disk = Block::new(file, read_only, "fuzz").expect("whole sectors");
    let mut guest = guest(disk);
    let mut driven = Driven::default();
    for record in records(data) {
        if let Some(queue) = driven.apply(&mut guest, record) {
            driven.check(&mut guest, queue, 0);
        }
    }
    let mut now = vec![0; contents.len() + 1];
    let length = std::os::unix::fs::FileExt::read_at(&seen, &mut now, 0).expect("a memfd can be read");
    assert_eq!(length, contents.len(), "a disk does not grow (fd {})", seen.as_raw_fd());
    if read_only {
        assert_eq!(now[..length], contents, "a read-only disk changed");
    }
}

/// A console that has something to say, whose driver sends any chains.
pub fn console(data: &[u8]) {
    let said = Arc::new(Mutex::new(0u64));
    let heard = Arc::clone(&said);
    let out = move |bytes: &[u8]| *heard.lock().expect("nothing panicked") += bytes.len() as u64;
    let mut guest = guest(Console::new(Box::new(out)));
    let mut driven = Driven::default();
    for record in records(data) {
        if record[0] & 0xf0 == 0xf0 {
            guest.transport().device_mut().input(record);
        }
        if let Some(queue) = driven.apply(&mut guest, record) {
            // Buffers to receive into are kept until there is input.
            let kept = if queue as usize == RECEIVE_QUEUE { usize::MAX } else { 0 };
            driven.check(&mut guest, queue, kept);
        }
    }
    let transport = guest.transport();
    assert_eq!(transport.device().counters().transmitted_bytes, *said.lock().expect("nothing panicked"));
}

/// A source of entropy whose driver sends any chains.
pub fn entropy(data: &[u8]) {
    let mut guest = guest(Entropy::new());
    let mut driven = Driven::default();
    for record in records(data) {
        if let Some(queue) = driven.apply(&mut guest, record) {
            driven.check(&mut guest, queue, 0);
        }
    }
}

/// A read-only image whose driver sends any requests.
pub fn pmem(data: &[u8]) {
    let mut guest = guest(Pmem::new(IMAGE_BASE, IMAGE.len() as u64));
    let mut driven = Driven::default();
    for record in records(data) {
        if let Some(queue) = driven.apply(&mut guest, record) {
            driven.check(&mut guest, queue, 0);
        }
    }
}

/// Steps that bring a device up before the rest: without them almost every input ends at the first status write.
fn brought_up() -> Vec<u8> {
    let word = |register: u8, value: u32| {
        let mut record = vec![0, register / 4, 0, 0];
        record.extend(value.to_le_bytes());
        record
    };
    let mut steps =
        vec![word(0x70, 1), word(0x70, 3), word(0x24, 1), word(0x20, 1), word(0x24, 0), word(0x20, 0x27)];
    steps.push(word(0x70, 11));
    for queue in 0..5u32 {
        let base = 0x2000 + queue * 0x2000;
        steps.extend([word(0x30, queue), word(0x38, 16)]);
        steps.extend([word(0x80, base), word(0x90, base + 0x800), word(0xa0, base + 0x1000), word(0x44, 1)]);
    }
    steps.push(word(0x70, 15));
    steps.concat()
}

/// The registers of a balloon, read and written in any order, with any width and any value, over rings that hold
/// anything.
///
/// The first byte says whether the device is brought up before. Records of 8 here: an operation, a register and a
/// value.
pub fn registers(data: &[u8]) {
    let Some((up, data)) = data.split_first() else { return };
    const RAM_BYTES: usize = 0x10_000;
    let options = BalloonOptions { deflate_on_oom: true, free_page_reporting: true, stats: true };
    let mem = super::memory(RAM_BYTES);
    let ram = FakeRam::new(16);
    let balloon = Balloon::new(16, Box::new(ram.clone()), options);
    let transport = Mutex::new(VirtioMmio::new(mem.clone(), balloon, Arc::new(RecordingIrq::default())));
    let brought_up = if up & 1 == 0 { vec![] } else { brought_up() };
    let (records, rest) = data.as_chunks::<8>();
    mem.write_slice(rest, GuestAddress(0x1000)).expect("the rest is in RAM");
    for record in brought_up.as_chunks::<8>().0.iter().chain(records) {
        let [op, register, low, high, value @ ..] = *record;
        let word = u64::from(register % 80) * 4;
        match op % 8 {
            0..=3 => drop(transport.write(word, &value)),
            4 => drop(transport.write(u64::from_le_bytes(*record) >> 8, &value[..usize::from(low % 5)])),
            5 => transport.read(word + u64::from(low % 4), &mut [0; 8][..usize::from(high % 9)]),
            6 => {
                let place = u64::from(u16::from_le_bytes([low, high]) & 0xfff0);
                mem.write_slice(&value, GuestAddress(place)).expect("the place is in RAM");
            }
            _ => {
                let mut transport = transport.lock().expect("nothing panicked");
                transport.queue_event(usize::from(low));
                transport.config_changed();
            }
        }
        let transport = transport.lock().expect("nothing panicked");
        assert_eq!(transport.device().held_frames(), ram.count(FrameState::Ballooned));
    }
}

#[cfg(test)]
#[path = "fuzz_test.rs"]
mod tests;
