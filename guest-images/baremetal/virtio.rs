//! A driver for virtio-mmio (virtio 1.3, section 4.2) that polls, and lets its user break every rule.

use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{Ordering, fence};

const WINDOWS: u64 = 0xd000_0000;
const WINDOW_BYTES: u64 = 0x1000;
pub const QUEUE_ENTRIES: usize = 64;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub flags: u16,
    pub next: u16,
}

#[repr(C, align(4096))]
struct Ring {
    descriptors: [Descriptor; QUEUE_ENTRIES],
    available_flags: u16,
    available_index: u16,
    available: [u16; QUEUE_ENTRIES],
    _pad: [u8; 2048],
    used_flags: u16,
    used_index: u16,
    used: [[u32; 2]; QUEUE_ENTRIES],
}

const EMPTY: Ring = Ring {
    descriptors: [Descriptor { address: 0, length: 0, flags: 0, next: 0 }; QUEUE_ENTRIES],
    available_flags: 0,
    available_index: 0,
    available: [0; QUEUE_ENTRIES],
    _pad: [0; 2048],
    used_flags: 0,
    used_index: 0,
    used: [[0; 2]; QUEUE_ENTRIES],
};

static mut RINGS: [Ring; 8] = [EMPTY; 8];
static mut RINGS_TAKEN: usize = 0;

/// A device window.
#[derive(Clone, Copy)]
pub struct Device {
    base: u64,
}

/// A queue of a device.
pub struct Queue {
    device: Device,
    index: u32,
    ring: *mut Ring,
    seen: u16,
}

impl Device {
    /// The first device with this id.
    pub fn find(id: u32) -> Result<Self, &'static str> {
        (0..19)
            .map(|i| Self { base: WINDOWS + i * WINDOW_BYTES })
            .find(|device| device.read(0) == 0x7472_6976 && device.read(8) == id)
            .ok_or("the device is not there")
    }

    pub fn read(self, register: u64) -> u32 {
        // SAFETY: a device window; the VMM answers any access.
        unsafe { read_volatile((self.base + register) as *const u32) }
    }

    pub fn write(self, register: u64, value: u32) {
        // SAFETY: as above.
        unsafe { write_volatile((self.base + register) as *mut u32, value) }
    }

    /// Resets the device and accepts these of its features, besides VERSION_1.
    pub fn start(self, wanted: u32) -> Result<u32, &'static str> {
        self.write(0x70, 0);
        self.write(0x70, 1);
        self.write(0x70, 3);
        self.write(0x14, 0);
        let offered = self.read(0x10);
        self.write(0x24, 0);
        self.write(0x20, offered & wanted);
        self.write(0x24, 1);
        self.write(0x20, 1);
        self.write(0x70, 11);
        if self.read(0x70) & 8 == 0 { Err("features were refused") } else { Ok(offered & wanted) }
    }

    pub fn ready(self) {
        self.write(0x70, 15);
    }

    pub fn needs_reset(self) -> bool {
        self.read(0x70) & 0x40 != 0
    }

    /// Sets a queue up. A ring is never used twice.
    pub fn queue(self, index: u32) -> Result<Queue, &'static str> {
        // SAFETY: one processor and no interrupts.
        let ring = unsafe {
            let taken = RINGS_TAKEN;
            if taken == 8 {
                return Err("no ring is left");
            }
            RINGS_TAKEN += 1;
            (&raw mut RINGS).cast::<Ring>().add(taken)
        };
        self.write(0x30, index);
        if self.read(0x34) < QUEUE_ENTRIES as u32 {
            return Err("the queue is too short");
        }
        self.write(0x38, QUEUE_ENTRIES as u32);
        // SAFETY: only the addresses are taken.
        let (descriptors, driver, used) = unsafe {
            (ring as u64, (&raw const (*ring).available_flags) as u64, (&raw const (*ring).used_flags) as u64)
        };
        for (register, address) in [(0x80, descriptors), (0x90, driver), (0xa0, used)] {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(0x44, 1);
        Ok(Queue { device: self, index, ring, seen: 0 })
    }
}

impl Queue {
    /// Writes a descriptor, whatever it says.
    pub fn set(&mut self, slot: usize, descriptor: Descriptor) {
        // SAFETY: `ring` is this queue's own; the slot is bounded.
        unsafe { (&raw mut (*self.ring).descriptors[slot % QUEUE_ENTRIES]).write_volatile(descriptor) };
    }

    /// Makes a chain available and kicks.
    pub fn offer(&mut self, head: u16) {
        // SAFETY: `ring` is this queue's own.
        unsafe {
            let index = read_volatile(&raw const (*self.ring).available_index);
            (&raw mut (*self.ring).available[usize::from(index) % QUEUE_ENTRIES]).write_volatile(head);
            fence(Ordering::SeqCst);
            write_volatile(&raw mut (*self.ring).available_index, index.wrapping_add(1));
        }
        fence(Ordering::SeqCst);
        self.device.write(0x50, self.index);
    }

    /// Lies about how many chains are available.
    pub fn jump(&mut self, by: u16) {
        // SAFETY: `ring` is this queue's own.
        unsafe {
            let index = read_volatile(&raw const (*self.ring).available_index);
            write_volatile(&raw mut (*self.ring).available_index, index.wrapping_add(by));
        }
        self.device.write(0x50, self.index);
    }

    /// Waits until the device has used one more chain; the bytes that it wrote.
    pub fn wait(&mut self) -> Result<u32, &'static str> {
        for _ in 0..20_000_000u32 {
            // SAFETY: `ring` is this queue's own.
            let used = unsafe { read_volatile(&raw const (*self.ring).used_index) };
            if used != self.seen {
                let slot = usize::from(self.seen) % QUEUE_ENTRIES;
                self.seen = self.seen.wrapping_add(1);
                // SAFETY: as above.
                return Ok(unsafe { read_volatile(&raw const (*self.ring).used[slot][1]) });
            }
            if self.device.needs_reset() {
                return Err("the device needs a reset");
            }
            core::hint::spin_loop();
        }
        Err("the device does not answer")
    }

    /// One descriptor, offered and waited for.
    pub fn exchange(&mut self, address: u64, length: u32, flags: u16) -> Result<u32, &'static str> {
        self.set(0, Descriptor { address, length, flags, next: 0 });
        self.offer(0);
        self.wait()
    }
}
