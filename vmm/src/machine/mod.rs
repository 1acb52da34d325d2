//! Machines: a guest on KVM, which this process runs itself, or on QEMU, which is another process.
//!
//! | file | what |
//! |---|---|
//! | [`kvm`] | a guest on KVM, from its spec to its end |
//! | [`qemu`] | a guest on a QEMU that this process starts, or that another program started |
//! | `launch` | names and limits of a guest at its launch |
//! | `floor` | what a guest needs to boot and live |
//! | `inputs`, `root_images` | disks and images that the spec names |

mod floor;
mod inputs;
pub mod kvm;
mod launch;
pub mod qemu;
mod root_images;

pub use inputs::InputError;
pub use launch::LaunchRefused;

use protocol::bytes::FRAME_BYTES;

/// Resident memory of a process, named by its folder in `/proc`: an id or `self`. Bytes; 0 if the kernel does not report it.
fn resident_bytes(process: &str) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    pages * FRAME_BYTES
}
