//! A guest without an operating system: it drives the VMM's virtio devices itself, well-behaved and hostile.
//!
//! It runs on any `/dev/kvm` in milliseconds. The first word of the command line names what to do; the guest reports on
//! the serial port, one `key=value` line each, ends with `done` or `FAILED <why>`, and powers itself off.

#![no_std]
#![no_main]

mod balloon;
mod block;
mod hostile;
mod images;
mod machine;
mod mem;
mod tenants;
mod virtio;

use core::arch::global_asm;
use machine::{Console, cmdline, power_off};

global_asm!(
    ".section .text._start",
    ".global _start",
    "_start:",
    "lea rsp, [rip + STACK_TOP]",
    // CR4.OSFXSR and OSXMMEXCPT: compiled code moves bytes in SSE registers.
    "mov rax, cr4",
    "or eax, 0x600",
    "mov cr4, rax",
    "mov rdi, rsi",
    "call guest_main",
    "2: hlt",
    "jmp 2b",
    ".section .bss",
    ".balign 16",
    ".skip 65536",
    "STACK_TOP:",
    ".text",
);

/// Entered with the address of the zero page.
#[unsafe(no_mangle)]
extern "C" fn guest_main(zero_page: u64) -> ! {
    let line = cmdline(zero_page);
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let result = match words.next().unwrap_or("hello") {
        "hello" => {
            say!("hello");
            Ok(())
        }
        "balloon" => balloon::inflate_and_deflate(),
        "serve" => balloon::serve(words.next().and_then(|mib| mib.parse().ok()).unwrap_or(0), |_| Ok(())),
        "keep" => balloon::keep(words.next().and_then(|mib| mib.parse().ok()).unwrap_or(0)),
        "report" => balloon::report_free_pages(),
        "block" => block::read_and_write(),
        "disk" => block::keep_moving(words.next().and_then(|mib| mib.parse().ok()).unwrap_or(0)),
        "block-read-only" => block::write_to_read_only(),
        "hostile-balloon" => hostile::balloon(),
        "hostile-transport" => hostile::transport(),
        "hostile-block" => hostile::block(),
        "image-read" => images::read(),
        "image-store" => images::store(),
        "image-storm" => images::storm(),
        "image-devices" => images::devices(),
        "image-balloon" => images::balloon(),
        "image-cut" => images::cut(),
        "image-granules" => images::granules(),
        "image-thrash" => images::thrash(),
        "image-copy" => images::copy(words.next().and_then(|mib| mib.parse().ok()).unwrap_or(0)),
        "tenants" => tenants::serve(),
        "touch-twice" => tenants::touch_twice(),
        "reset" => machine::reset(),
        "crash" => machine::crash(),
        "spin" => loop {
            core::hint::spin_loop();
        },
        _ => Err("no such scenario"),
    };
    match result {
        Ok(()) => say!("done"),
        Err(why) => say!("FAILED {why}"),
    }
    power_off()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("FAILED {info}");
    power_off()
}

/// Named by the precompiled `core`; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Prints a line on the serial port.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {{ use core::fmt::Write; let _ = writeln!($crate::Console, $($arg)*); }};
}
