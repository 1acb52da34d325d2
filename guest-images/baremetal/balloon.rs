//! The balloon's driver (virtio 1.3, section 5.5).

use crate::machine::{Decimal, fill, peek, serial_byte};
use crate::say;
use crate::virtio::{Device, Queue, WRITE};

pub const ID: u32 = 5;
pub const INFLATE: u32 = 0;
pub const DEFLATE: u32 = 1;
const NUM_PAGES: u64 = 0x100;
const ACTUAL: u64 = 0x104;
const MUST_TELL_HOST: u32 = 1;
const STATS: u32 = 1 << 1;
const REPORTING: u32 = 1 << 5;

/// Page frame numbers of one chain. Linux sends 256.
const PFNS: usize = 256;
static mut LIST: [u32; PFNS] = [0; PFNS];

/// Gives a run of frames to a queue, as Linux does: a chain of at most 256 numbers, then the answer.
pub fn send(queue: &mut Queue, first: u64, count: u64) -> Result<(), &'static str> {
    let mut done = 0;
    while done < count {
        let part = (count - done).min(PFNS as u64);
        for i in 0..part {
            // SAFETY: one processor; the device reads the list only between `offer` and its answer.
            unsafe { (&raw mut LIST[i as usize]).write_volatile((first + done + i) as u32) };
        }
        queue.exchange((&raw const LIST) as u64, part as u32 * 4, 0)?;
        done += part;
    }
    Ok(())
}

/// Fills 16 MiB, gives the second half away, takes a quarter back, and looks at every frame.
pub fn inflate_and_deflate() -> Result<(), &'static str> {
    const FIRST: u64 = 0x4000; // 64 MiB
    const COUNT: u64 = 4096;
    let device = Device::find(ID)?;
    device.start(MUST_TELL_HOST)?;
    let (mut inflate, mut deflate) = (device.queue(INFLATE)?, device.queue(DEFLATE)?);
    device.ready();
    fill(FIRST, COUNT, 0xba11);
    send(&mut inflate, FIRST + COUNT / 2, COUNT / 2)?;
    device.write(ACTUAL, (COUNT / 2) as u32);
    send(&mut deflate, FIRST + COUNT / 2, COUNT / 4)?;
    device.write(ACTUAL, (COUNT / 4) as u32);
    for frame in FIRST..FIRST + COUNT / 2 {
        if peek(frame) != frame ^ 0xba11 {
            return Err("a frame that was kept lost its bytes");
        }
    }
    for frame in FIRST + COUNT / 2..FIRST + COUNT * 3 / 4 {
        if peek(frame) != 0 {
            return Err("a frame came back with bytes in it");
        }
    }
    say!("ballooned={}", Decimal(COUNT / 4));
    wait_for_key();
    Ok(())
}

/// Touches so many MiB and then does what the host asks, until `q` is pressed; `key` hears of each key before.
pub fn serve(mib: u64, mut key: impl FnMut(u8) -> Result<(), &'static str>) -> Result<(), &'static str> {
    const FIRST: u64 = 0x2000; // 32 MiB
    let device = Device::find(ID)?;
    device.start(MUST_TELL_HOST)?;
    let (mut inflate, mut deflate) = (device.queue(INFLATE)?, device.queue(DEFLATE)?);
    device.ready();
    fill(FIRST, mib * 256, 0x5e11);
    say!("touched={}", Decimal(mib * 256));
    let mut actual = 0u64;
    loop {
        let wanted = u64::from(device.read(NUM_PAGES));
        if wanted > actual && actual < mib * 256 {
            let count = (wanted - actual).min(mib * 256 - actual).min(PFNS as u64);
            send(&mut inflate, FIRST + actual, count)?;
            actual += count;
        } else if wanted < actual {
            let count = (actual - wanted).min(PFNS as u64);
            send(&mut deflate, FIRST + actual - count, count)?;
            fill(FIRST + actual - count, count, 0x5e11);
            actual -= count;
        } else if let Some(byte) = serial_byte() {
            key(byte)?;
            for frame in FIRST + actual..FIRST + mib * 256 {
                if peek(frame) != frame ^ 0x5e11 {
                    return Err("a frame that was kept lost its bytes");
                }
            }
            say!("verified={}", Decimal(mib * 256 - actual));
            if byte == b'q' {
                return Ok(());
            }
        }
        device.write(ACTUAL, actual as u32);
    }
}

/// Touches so many MiB, serves no balloon, and says again and again that it runs, until a key is pressed.
pub fn keep(mib: u64) -> Result<(), &'static str> {
    fill(0x2000, mib * 256, 0x5e11);
    say!("touched={}", Decimal(mib * 256));
    let mut turns = 0;
    while serial_byte().is_none() {
        (0..1 << 14).for_each(|_| core::hint::spin_loop());
        turns += 1;
        say!("turn={}", Decimal(turns));
    }
    Ok(())
}

/// Reports one free 2 MiB block of two that were touched.
pub fn report_free_pages() -> Result<(), &'static str> {
    const FIRST: u64 = 0x4000;
    let device = Device::find(ID)?;
    if device.start(REPORTING | STATS)? & REPORTING == 0 {
        return Err("free page reporting is not offered");
    }
    // Queues exist only for accepted features: inflate, deflate, statistics, reporting.
    let mut reporting = device.queue(3)?;
    device.ready();
    fill(FIRST, 1024, 0xf4ee);
    reporting.exchange(FIRST * 4096, 2 << 20, WRITE)?;
    if (FIRST + 512..FIRST + 1024).any(|frame| peek(frame) != frame ^ 0xf4ee) {
        return Err("a frame that was not reported lost its bytes");
    }
    say!("reported=512");
    wait_for_key();
    Ok(())
}

/// Lets the host look at a state that does not change.
pub fn wait_for_key() {
    while serial_byte().is_none() {
        core::hint::spin_loop();
    }
}
