//! Stalls of the host for memory, as an event of the kernel: a trigger on its pressure file
//! (`Documentation/accounting/psi.rst`, "Monitoring for pressure thresholds").

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

/// The file of memory pressure.
pub const FILE: &str = "/proc/pressure/memory";

/// Stalls of some tasks, and the window in which they count, microseconds. The kernel checks ten times a window. A
/// process without `CAP_SYS_RESOURCE` may only have windows that are whole multiples of 2 s.
const TRIGGERS: [&str; 2] = ["some 50000 500000\0", "some 200000 2000000\0"];

/// Sets the best trigger that this process may have. The file has an exceptional condition (`POLLPRI`) after a stall,
/// at most once per window, for as long as it is open.
///
/// # Errors
/// When the kernel offers no trigger.
pub fn trigger() -> io::Result<File> {
    let mut refused = io::Error::from(io::ErrorKind::Unsupported);
    for text in TRIGGERS {
        match set(text) {
            Ok(file) => return Ok(file),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn set(trigger: &str) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(FILE)?;
    file.write_all(trigger.as_bytes())?;
    Ok(file)
}
