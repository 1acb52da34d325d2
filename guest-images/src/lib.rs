//! Guest kernels, the guests' initramfs and its agent, and the lab's outer machine.
//!
//! ```text
//!  Debian's packages --apt--> debs/ --+--> vmlinux, bzImage, modules   (kernel)
//!                                     +--> busybox --+
//!                      init, workload ---------------+--> initramfs    (initramfs)
//!  Debian's packages --mmdebstrap--> base.tar, services.tar            (root)
//!
//!  ImageSet::ensure(series) -> Guest { vmlinux, bzimage, initramfs }   what a VMM boots
//!  ImageSet::root() -> Root { layers, packages }                       what an image is built from
//!  Agent::connect(socket)                                              drives `workload` in the guest
//!  OuterMachine::run()                                                 a machine with KVM where there is none
//! ```
//!
//! Everything lands in the user's cache folder, keyed by content, and is made at most once.

#![deny(unsafe_code)]

pub mod agent;
mod apt;
pub mod bzimage;
pub mod cache;
mod cpio;
pub mod error;
pub mod image_set;
mod initramfs;
pub mod kernel;
mod modules;
mod old_qemu;
pub mod outer;
pub mod root;
pub mod scratch;
mod tool;

pub use agent::Agent;
pub use cache::Cache;
pub use error::{Error, Result};
pub use image_set::{Guest, ImageSet};
pub use kernel::KernelSeries;
pub use outer::{OuterMachine, ext4};
pub use root::Root;
/// What the agent fills memory, files and disks with, and its checksum: what the host expects to see.
pub use workload::pattern;
