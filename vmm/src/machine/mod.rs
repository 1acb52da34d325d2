//! Machines: a guest on KVM, which this process runs itself, or on QEMU, which is another process.
//!
//! | file | what |
//! |---|---|
//! | [`kvm`] | a guest on KVM, from its spec to its end |
//! | [`qemu`] | a guest on a QEMU that this process starts, or that another program started |
//! | `launch` | names and limits of a guest at its launch |
//! | `floor` | what a guest needs to boot and live |
//! | `inputs`, `root_images` | disks and images that the spec names |

mod disk_format;
mod floor;
mod inputs;
pub mod kvm;
mod launch;
pub mod qemu;
mod root_images;

pub use inputs::InputError;
pub use launch::LaunchRefused;

use host::proc::{Folder, Statm};

/// Resident memory of a process, bytes; 0 if the kernel does not report it.
fn resident_bytes(process: &Folder) -> u64 {
    process.read::<Statm>().map_or(0, |statm| statm.resident_bytes())
}
