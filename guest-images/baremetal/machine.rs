//! Ports, serial line, command line, ways to end.

use core::arch::asm;
use core::fmt;

const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const SLEEP_CONTROL: u16 = 0x600;
/// SLP_TYP = 5, SLP_EN (ACPI 6.5, section 4.8.3.7).
const POWER_OFF: u8 = 5 << 2 | 1 << 5;

pub fn out(port: u16, value: u8) {
    // SAFETY: ring 0, and a port write touches no memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

pub fn input(port: u16) -> u8 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}

/// A byte from the serial line, if one waits.
pub fn serial_byte() -> Option<u8> {
    (input(LINE_STATUS) & 1 != 0).then(|| input(COM1))
}

pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| out(COM1, byte));
        Ok(())
    }
}

/// A number in decimal. A software KVM does not emulate every instruction that `core`'s own formatting uses.
pub struct Decimal(pub u64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 10 {
            write!(f, "{}", Self(self.0 / 10))?;
        }
        out(COM1, b'0' + (self.0 % 10) as u8);
        Ok(())
    }
}

/// The command line that the zero page points to.
pub fn cmdline(zero_page: u64) -> &'static str {
    // SAFETY: the VMM wrote boot_params there; cmd_line_ptr is at offset 0x228 and the text ends with NUL.
    unsafe {
        let address = ((zero_page + 0x228) as *const u32).read_unaligned();
        let start = u64::from(address) as *const u8;
        let length = (0..2048).find(|i| *start.add(*i) == 0).unwrap_or(0);
        core::str::from_utf8(core::slice::from_raw_parts(start, length)).unwrap_or("")
    }
}

pub fn power_off() -> ! {
    out(SLEEP_CONTROL, POWER_OFF);
    halt()
}

pub fn reset() -> ! {
    out(0x64, 0xfe);
    halt()
}

/// A fault without any handler: the processor shuts down.
pub fn crash() -> ! {
    // SAFETY: the point is that it cannot go well.
    unsafe { asm!("ud2", options(noreturn)) }
}

fn halt() -> ! {
    loop {
        // SAFETY: waits for an interrupt that never comes.
        unsafe { asm!("hlt", options(nomem, nostack)) };
    }
}

/// Writes a recognizable word into each frame of a run, so that a lost or mixed-up frame is seen.
pub fn fill(first: u64, count: u64, salt: u64) {
    for frame in first..first + count {
        // SAFETY: the caller names RAM that nothing else uses.
        unsafe { ((frame * 4096) as *mut u64).write_volatile(frame ^ salt) };
    }
}

/// The word that [`fill`] wrote, or what is there now.
pub fn peek(frame: u64) -> u64 {
    // SAFETY: the caller names RAM.
    unsafe { ((frame * 4096) as *const u64).read_volatile() }
}
