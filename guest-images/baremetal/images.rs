//! Images of the host in this guest's memory (virtio 1.3, section 5.19): reading them, and everything that must not
//! work.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::balloon::{self, wait_for_key};
use crate::block;
use crate::machine::Decimal;
use crate::say;
use crate::virtio::{Descriptor, Device, NEXT, Queue, WRITE};

const ID: u32 = 27;
const ENTROPY: u32 = 4;
const PAGE: u64 = 4096;
/// The host's mark in each page: its number times this.
const MARK: u64 = 0x9e37_79b9_7f4a_7c15;

/// The page tables that the VMM made for us, four GiB of them (vmm/src/layout.rs).
const PDPT: u64 = 0xa000;
const PRESENT_WRITABLE_HUGE: u64 = 0b1000_0011;

#[repr(C, align(4096))]
struct Directory([u64; 512]);
static mut DIRECTORY: Directory = Directory([0; 512]);

#[repr(C, align(4096))]
struct Buffer([u8; 4096]);
static mut BUFFER: Buffer = Buffer([0; 4096]);

/// Header and status of a disk request, question and answer of a flush.
#[repr(C, align(16))]
struct Words {
    kind: u32,
    _reserved: u32,
    sector: u64,
    status: u8,
    answer: u32,
}
static mut WORDS: Words = Words { kind: 0, _reserved: 0, sector: 0, status: 0, answer: 0 };

struct Image {
    start: u64,
    pages: u64,
    flushes: Queue,
}

impl Image {
    /// The first image by its device, at an address that is the same for us.
    fn open() -> Result<Self, &'static str> {
        let device = Device::find(ID)?;
        device.start(0)?;
        let flushes = device.queue(0)?;
        device.ready();
        let word = |offset: u64| u64::from(device.read(0x100 + offset)) | u64::from(device.read(0x104 + offset)) << 32;
        let (start, bytes) = (word(0), word(8));
        let gib = start >> 30;
        if gib < 4 || bytes == 0 || start % (128 << 20) != 0 || bytes % (2 << 20) != 0 || bytes > 1 << 30 {
            return Err("the image is at no place for one");
        }
        // SAFETY: one processor; the tables are ours, and the new part maps addresses that nothing used.
        unsafe {
            for i in 0..512 {
                (&raw mut DIRECTORY.0[i as usize]).write_volatile(gib << 30 | i << 21 | PRESENT_WRITABLE_HUGE);
            }
            ((PDPT + gib * 8) as *mut u64).write_volatile((&raw const DIRECTORY) as u64 | 0b11);
            asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack));
        }
        Ok(Self { start, pages: bytes / PAGE, flushes })
    }

    fn word(&self, at: u64) -> *mut u64 {
        (self.start + at) as *mut u64
    }

    fn peek(&self, at: u64) -> u64 {
        // SAFETY: mapped above; the host answers any read.
        unsafe { self.word(at).read_volatile() }
    }

    /// Every page begins with its mark, and ends with it.
    fn check(&self) -> Result<(), &'static str> {
        for page in 0..self.pages {
            let mark = page.wrapping_mul(MARK);
            if self.peek(page * PAGE) != mark || self.peek(page * PAGE + PAGE - 8) != mark {
                return Err("an image has other bytes than its file");
            }
        }
        Ok(())
    }

    /// A flush with its question at an address; the answer.
    fn flush(&mut self, question: u64) -> Result<u32, &'static str> {
        // SAFETY: one processor; the device uses the words only between `offer` and its answer.
        unsafe {
            (&raw mut WORDS.answer).write_volatile(77);
            self.flushes.set(0, Descriptor { address: question, length: 4, flags: NEXT, next: 1 });
            let answer = (&raw const WORDS.answer) as u64;
            self.flushes.set(1, Descriptor { address: answer, length: 4, flags: WRITE, next: 0 });
            self.flushes.offer(0);
            self.flushes.wait()?;
            Ok((&raw const WORDS.answer).read_volatile())
        }
    }
}

/// Where a zero lies that asks for a flush.
fn zero() -> u64 {
    // SAFETY: one processor.
    unsafe {
        (&raw mut WORDS.kind).write_volatile(0);
        (&raw const WORDS.kind) as u64
    }
}

/// A disk request with its data anywhere; its status.
fn disk(queue: &mut Queue, kind: u32, data: u64, length: u32) -> Result<u8, &'static str> {
    // SAFETY: one processor; the device uses the words only between `offer` and its answer.
    unsafe {
        (&raw mut WORDS.kind).write_volatile(kind);
        (&raw mut WORDS.sector).write_volatile(0);
        (&raw mut WORDS.status).write_volatile(0xee);
        let data_flags = NEXT | if kind == 0 { WRITE } else { 0 };
        queue.set(0, Descriptor { address: (&raw const WORDS.kind) as u64, length: 16, flags: NEXT, next: 1 });
        queue.set(1, Descriptor { address: data, length, flags: data_flags, next: 2 });
        queue.set(2, Descriptor { address: (&raw const WORDS.status) as u64, length: 1, flags: WRITE, next: 0 });
        queue.offer(0);
        queue.wait()?;
        Ok((&raw const WORDS.status).read_volatile())
    }
}

fn open_disk() -> Result<Queue, &'static str> {
    let device = Device::find(block::ID)?;
    device.start(0)?;
    let queue = device.queue(0)?;
    device.ready();
    Ok(queue)
}

/// Reads all of an image, and again whenever a key comes, until it is `q`.
pub fn read() -> Result<(), &'static str> {
    let mut image = Image::open()?;
    loop {
        image.check()?;
        if image.flush(zero())? != 0 {
            return Err("a flush failed");
        }
        say!("read={}", Decimal(image.pages));
        let key = loop {
            if let Some(key) = crate::machine::serial_byte() {
                break key;
            }
            core::hint::spin_loop();
        };
        if key == b'q' {
            return Ok(());
        }
    }
}

/// Stores into an image in every way that there is.
pub fn store() -> Result<(), &'static str> {
    let image = Image::open()?;
    image.check()?;
    for at in [0, 8, PAGE * 3 + 16, image.pages * PAGE - 8] {
        // SAFETY: the point is that these stores go nowhere; `at` is inside the image.
        unsafe {
            let word = image.word(at);
            word.write_volatile(u64::MAX);
            word.cast::<u8>().write_volatile(0xaa);
            word.cast::<u32>().write_volatile(0x5555_5555);
            AtomicU64::from_ptr(word).fetch_add(1, Ordering::SeqCst);
            AtomicU64::from_ptr(word).swap(3, Ordering::SeqCst);
            asm!("rep stosb", inout("rcx") 8u64 => _, inout("rdi") word => _, in("al") 0x77u8, options(nostack));
        }
    }
    image.check()?;
    say!("stored");
    wait_for_key();
    image.check()
}

/// Stores without end.
pub fn storm() -> Result<(), &'static str> {
    let image = Image::open()?;
    say!("storming");
    loop {
        // SAFETY: as above.
        unsafe { image.word(0).write_volatile(1) };
    }
}

/// Asks devices to write into an image, and to read from it.
pub fn devices() -> Result<(), &'static str> {
    let mut image = Image::open()?;
    let mut queue = open_disk()?;
    for (at, length) in [(0, 4096), (512, 512), (image.pages * PAGE - 512, 512)] {
        if disk(&mut queue, 0, image.start + at, length)? != 1 {
            return Err("a disk read into an image");
        }
    }
    // From the image to the disk, and from there into RAM.
    let buffer = (&raw const BUFFER) as u64;
    if disk(&mut queue, 1, image.start + 5 * PAGE, 4096)? != 0 || disk(&mut queue, 0, buffer, 4096)? != 0 {
        return Err("a disk was not written from an image");
    }
    // SAFETY: one processor; the device is done.
    if unsafe { (buffer as *const u64).read_volatile() } != MARK.wrapping_mul(5) {
        return Err("a disk was written with other bytes than the image's");
    }
    let entropy = Device::find(ENTROPY)?;
    entropy.start(0)?;
    let mut random = entropy.queue(0)?;
    entropy.ready();
    if random.exchange(image.start, 64, WRITE)? != 0 || random.exchange(buffer, 64, WRITE)? != 64 {
        return Err("random bytes went into an image");
    }
    // Rings in an image: the queue is refused, each part of it.
    for part in [0x80, 0x90, 0xa0] {
        entropy.start(0)?;
        entropy.write(0x30, 0);
        entropy.write(0x38, 16);
        for (register, ram) in [(0x80, buffer), (0x90, buffer + 1024), (0xa0, buffer + 2048)] {
            let address = if register == part { image.start } else { ram };
            entropy.write(register, address as u32);
            entropy.write(register + 4, (address >> 32) as u32);
        }
        entropy.write(0x44, 1);
        if entropy.read(0x44) != 0 {
            return Err("a queue was set up with its rings in an image");
        }
        entropy.ready();
        entropy.write(0x50, 0);
    }
    // Flushes are answered with OK; other requests, and answers inside the image, are not.
    if image.flush(zero())? != 0 || image.flush(image.start)? != 0 || image.flush(image.start + PAGE)? != 1 {
        return Err("a flush was not answered as it should be");
    }
    image.flushes.set(0, Descriptor { address: zero(), length: 4, flags: NEXT, next: 1 });
    image.flushes.set(1, Descriptor { address: image.start, length: 4, flags: WRITE, next: 0 });
    image.flushes.offer(0);
    if image.flushes.wait()? != 0 {
        return Err("a flush was answered in an image");
    }
    image.check()?;
    say!("harmless");
    Ok(())
}

/// Gives frames of an image away.
pub fn balloon() -> Result<(), &'static str> {
    let image = Image::open()?;
    image.check()?;
    let device = Device::find(balloon::ID)?;
    // Statistics and reporting, so that queue 3 is the latter's.
    device.start(1 << 1 | 1 << 5)?;
    let (mut inflate, mut deflate) = (device.queue(0)?, device.queue(1)?);
    let mut report = device.queue(3)?;
    device.ready();
    balloon::send(&mut inflate, image.start / PAGE, 512)?;
    balloon::send(&mut deflate, image.start / PAGE, 512)?;
    report.exchange(image.start, 2 << 20, WRITE)?;
    image.check()?;
    say!("kept={}", Decimal(image.pages));
    wait_for_key();
    image.check()
}

/// Reads an image, and again after the host cut its file short: to a quarter.
pub fn cut() -> Result<(), &'static str> {
    let mut image = Image::open()?;
    let mut queue = open_disk()?;
    image.check()?;
    say!("read={}", Decimal(image.pages));
    wait_for_key();
    let lost = image.start + image.pages / 2 * PAGE;
    // A device looks first: zeros ask for a flush.
    if image.flush(lost)? != 0 {
        return Err("what is gone does not read as zeros for a device");
    }
    let status = disk(&mut queue, 1, lost, 4096)?;
    for page in 0..image.pages {
        let expected = if page < image.pages / 4 { page.wrapping_mul(MARK) } else { 0 };
        if image.peek(page * PAGE) != expected {
            return Err("what is gone does not read as zeros, or what is left is not there");
        }
    }
    say!("zeros={} status={}", Decimal(image.pages - image.pages / 4), Decimal(u64::from(status)));
    wait_for_key();
    // Once more, where only this processor can notice.
    for page in 0..image.pages {
        if image.peek(page * PAGE) != 0 {
            return Err("an empty file does not read as zeros");
        }
    }
    say!("gone");
    Ok(())
}

/// Bytes that the host gives at once, of an image that it fills itself.
const GRANULE: u64 = 64 << 10;

impl Image {
    /// What all its pages begin and end with, in one number.
    fn sum(&self) -> u64 {
        (0..self.pages).fold(0, |sum, page| {
            let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(MARK).rotate_left(7);
            mix(mix(sum, self.peek(page * PAGE)), self.peek(page * PAGE + PAGE - 8))
        })
    }
}

/// Touches an image as keys say: `t` a page of every fourth granule, `a` all of it.
pub fn granules() -> Result<(), &'static str> {
    let image = Image::open()?;
    let granules = image.pages * PAGE / GRANULE;
    say!("granules={}", Decimal(granules));
    loop {
        match crate::machine::serial_byte() {
            Some(b't') => {
                for granule in (0..granules).step_by(4) {
                    image.peek(granule * GRANULE + 5 * PAGE);
                }
                say!("touched={}", Decimal(granules.div_ceil(4)));
            }
            Some(b'a') => say!("sum={}", Decimal(image.sum())),
            Some(b'q') => return Ok(()),
            _ => core::hint::spin_loop(),
        }
    }
}

/// Touches all of an image, again and again.
pub fn thrash() -> Result<(), &'static str> {
    let image = Image::open()?;
    for round in 0u64.. {
        for granule in 0..image.pages * PAGE / GRANULE {
            image.peek(granule * GRANULE);
        }
        if round == 2 {
            say!("thrashing");
        }
    }
    Ok(())
}

/// Serves the balloon with so many MiB at most below the copy's place; at `c` makes a page of its own of each page of
/// the image, with what it begins and ends with.
pub fn copy(mib: u64) -> Result<(), &'static str> {
    /// Frame of the copy: at 80 MiB.
    const COPY: u64 = 0x5000;
    let image = Image::open()?;
    let own = |at: u64| (COPY * PAGE + at) as *mut u64;
    let ends = || (0..image.pages).flat_map(|page| [page * PAGE, page * PAGE + PAGE - 8]);
    image.sum();
    say!("read={}", Decimal(image.pages));
    let mut is_copied = false;
    balloon::serve(mib, |key| {
        if key == b'c' {
            for at in ends() {
                // SAFETY: RAM that nothing else uses.
                unsafe { own(at).write_volatile(image.peek(at)) };
            }
            is_copied = true;
            say!("copied={}", Decimal(image.pages));
        }
        if key == b'q' && is_copied {
            for at in ends() {
                // SAFETY: as above.
                if unsafe { own(at).read_volatile() } != image.peek(at) {
                    return Err("a copy is another one than its image");
                }
            }
            say!("same={}", Decimal(image.pages));
        }
        Ok(())
    })
}
