//! A guest that breaks every rule it can. Each abuse must be answered or counted, and the device must serve on after a
//! reset.

use crate::virtio::{Descriptor, Device, NEXT, Queue, WRITE};
use crate::machine::Decimal;
use crate::{balloon, block, say};

const fn d(address: u64, length: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor { address, length, flags, next }
}

const END: Descriptor = d(0, 0, 0, 0);

/// Abuses of a queue: what the first two descriptors say.
static ABUSES: [[Descriptor; 2]; 10] = [
    [d(0xffff_ffff_ffff_f000, 4096, 0, 0), END],
    [d(u64::MAX, u32::MAX, 0, 0), END],
    [d(0xd000_0000, 4096, 0, 0), END],
    [d(0x20_0000, u32::MAX, 0, 0), END],
    [d(0x20_0000, 0, 0, 0), END],
    [d(0x20_0000, 3, 0, 0), END],
    [d(0x20_0000, 1024, WRITE, 0), END],
    [d(0x20_0000, 64, NEXT, 1), d(0x20_1000, 64, NEXT, 0)],
    [d(0x20_0000, 64, NEXT, 999), END],
    [d(0x20_0000, 64, 4, 0), END],
];

/// Sends every abuse, with a fresh start whenever the device asks for one.
fn abuse(id: u32, index: u32) -> Result<(u64, u64), &'static str> {
    let device = Device::find(id)?;
    let mut resets = 0;
    let mut answers = 0;
    device.start(u32::MAX)?;
    let mut queue = device.queue(index)?;
    device.ready();
    // A list of page frame numbers that costs this guest nothing it needs.
    for word in (0..4096).step_by(4) {
        // SAFETY: RAM that nothing else uses.
        unsafe { ((0x20_0000 + word) as *mut u32).write_volatile(0x6000) };
    }
    for chain in &ABUSES {
        if device.needs_reset() {
            return Err("a broken chain cost the whole device");
        }
        for (slot, descriptor) in chain.iter().enumerate() {
            queue.set(slot, *descriptor);
        }
        queue.offer(0);
        match queue.wait() {
            Ok(_) => answers += 1,
            Err("the device needs a reset") => resets += 1,
            Err(why) => return Err(why),
        }
        if resets > 0 {
            break;
        }
    }
    queue.jump(0x8000);
    Ok((answers, resets))
}

pub fn balloon() -> Result<(), &'static str> {
    let (answers, resets) = abuse(balloon::ID, balloon::INFLATE)?;
    say!("answers={} resets={}", Decimal(answers), Decimal(resets));
    let device = Device::find(balloon::ID)?;
    device.start(1)?;
    let (mut inflate, mut deflate) = (device.queue(0)?, device.queue(1)?);
    device.ready();
    // Frames that are not RAM, a frame twice, a frame that was never given.
    balloon::send(&mut inflate, 0xd0000, 4)?;
    balloon::send(&mut inflate, 0xffff_fff0, 15)?;
    balloon::send(&mut inflate, 0x4000, 8)?;
    balloon::send(&mut inflate, 0x4000, 8)?;
    balloon::send(&mut deflate, 0x5000, 8)?;
    // num_pages belongs to the host.
    let asked = device.read(0x100);
    device.write(0x100, 0x1234_5678);
    if device.read(0x100) != asked {
        return Err("the guest changed the host's target");
    }
    say!("ballooned=8");
    while crate::machine::serial_byte().is_none() {
        core::hint::spin_loop();
    }
    Ok(())
}

pub fn block() -> Result<(), &'static str> {
    let (answers, resets) = abuse(block::ID, 0)?;
    say!("answers={} resets={}", Decimal(answers), Decimal(resets));
    block::read_and_write()
}

/// Writes pseudo-random values to every register of every device, and reads them all.
pub fn transport() -> Result<(), &'static str> {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for id in [balloon::ID, block::ID, 4] {
        let Ok(device) = Device::find(id) else { continue };
        for _ in 0..500 {
            let register = next() % 0x200;
            if next() % 3 == 0 {
                let _ = device.read(register & !3);
            } else {
                device.write(register & !3, next() as u32);
            }
        }
        // Odd widths and places.
        for register in 0..0x200u64 {
            let address = 0xd000_0000 + register;
            // SAFETY: device windows; the VMM answers any access.
            unsafe {
                let _ = (address as *const u8).read_volatile();
                (address as *mut u8).write_volatile(register as u8);
            }
        }
        device.write(0x70, 0);
    }
    // After all that the devices serve again.
    let mut queue: Queue = {
        let device = Device::find(4)?;
        device.start(0)?;
        let queue = device.queue(0)?;
        device.ready();
        queue
    };
    if queue.exchange(0x30_0000, 64, WRITE)? != 64 {
        return Err("entropy does not flow after the abuse");
    }
    say!("survived");
    Ok(())
}
