//! The block device's driver (virtio 1.3, section 5.2).

use crate::machine::{Decimal, fill as fill_frames, serial_byte};
use crate::say;
use crate::virtio::{Descriptor, Device, NEXT, Queue, WRITE};

pub const ID: u32 = 2;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const FEATURE_FLUSH: u32 = 1 << 9;

#[repr(C, align(4096))]
struct Request {
    data: [u8; 4096],
    kind: u32,
    _reserved: u32,
    sector: u64,
    status: u8,
}

static mut REQUEST: Request = Request { data: [0; 4096], kind: 0, _reserved: 0, sector: 0, status: 0xff };

/// One request with 4096 bytes of data; its status byte.
pub fn request(queue: &mut Queue, kind: u32, sector: u64) -> Result<u8, &'static str> {
    // SAFETY: only its address is taken.
    let data = unsafe { &raw const REQUEST.data } as u64;
    transfer(queue, kind, sector, data, 4096)
}

/// One request with data anywhere; its status byte.
fn transfer(queue: &mut Queue, kind: u32, sector: u64, address: u64, length: u32) -> Result<u8, &'static str> {
    // SAFETY: one processor; the device uses the request only between `offer` and its answer.
    unsafe {
        REQUEST.kind = kind;
        REQUEST.sector = sector;
        REQUEST.status = 0xff;
        let data_flags = NEXT | if kind == IN { WRITE } else { 0 };
        let data_next = if kind == FLUSH { 2 } else { 1 };
        let request = (&raw const REQUEST.kind) as u64;
        queue.set(0, Descriptor { address: request, length: 16, flags: NEXT, next: data_next });
        queue.set(1, Descriptor { address, length, flags: data_flags, next: 2 });
        queue.set(2, Descriptor { address: (&raw const REQUEST.status) as u64, length: 1, flags: WRITE, next: 0 });
        queue.offer(0);
        queue.wait()?;
        Ok((&raw const REQUEST.status).read_volatile())
    }
}

fn fill(byte: u8) {
    // SAFETY: one processor.
    unsafe { (&raw mut REQUEST.data).write_volatile([byte; 4096]) };
}

fn all(byte: u8) -> bool {
    // SAFETY: one processor.
    unsafe { (&raw const REQUEST.data).read_volatile() }.iter().all(|b| *b == byte)
}

fn open() -> Result<Queue, &'static str> {
    let device = Device::find(ID)?;
    device.start(FEATURE_FLUSH)?;
    let queue = device.queue(0)?;
    device.ready();
    Ok(queue)
}

pub fn read_and_write() -> Result<(), &'static str> {
    let mut queue = open()?;
    fill(0x42);
    if request(&mut queue, OUT, 8)? != 0 || request(&mut queue, FLUSH, 0)? != 0 {
        return Err("a write failed");
    }
    fill(0);
    if request(&mut queue, IN, 8)? != 0 || !all(0x42) {
        return Err("what was written was not read");
    }
    // Behind the end, and around it.
    for sector in [1 << 40, u64::MAX, u64::MAX - 3] {
        if request(&mut queue, IN, sector)? != 1 || request(&mut queue, OUT, sector)? != 1 {
            return Err("an access behind the end was not refused");
        }
    }
    if request(&mut queue, 77, 0)? != 2 {
        return Err("an unknown request was not called unsupported");
    }
    say!("written=4096");
    Ok(())
}

/// Writes so many mebibytes, or reads them where the disk is read-only, and waits for a key. `w` does it again, as does
/// the start; any other key ends it.
pub fn keep_moving(mib: u64) -> Result<(), &'static str> {
    const BUFFER: u64 = 32 << 20;
    const SEGMENT: u32 = 64 << 10;
    let mut queue = open()?;
    // More than it moves from: memory that a limit leaves alone while there is page cache to drop.
    fill_frames(BUFFER / 4096, mib * 256, 0xd15c);
    let is_read_only = request(&mut queue, FLUSH, 0)? != 0;
    let kind = if is_read_only { IN } else { OUT };
    loop {
        for segment in 0..mib * 16 {
            if transfer(&mut queue, kind, segment * 128, BUFFER, SEGMENT)? != 0 {
                return Err("a transfer failed");
            }
        }
        say!("moved={}", Decimal(mib));
        let key = loop {
            match serial_byte() {
                Some(key) => break key,
                None => core::hint::spin_loop(),
            }
        };
        if key != b'w' {
            return Ok(());
        }
    }
}

pub fn write_to_read_only() -> Result<(), &'static str> {
    let mut queue = open()?;
    if request(&mut queue, OUT, 0)? != 1 {
        return Err("a write to a read-only disk was not refused");
    }
    if request(&mut queue, IN, 0)? != 0 {
        return Err("a read-only disk cannot be read");
    }
    Ok(())
}
