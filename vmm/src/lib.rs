//! The VMM: one process, one guest, run as a container with a memory limit.
//!
//! | module | what |
//! |---|---|
//! | [`cli`], [`spec`] | what the user asks for |
//! | [`machine`] | a guest from its spec to its end |
//! | [`boot`], [`arch`] | what a guest finds in its memory and in its processors |
//! | [`files`] | files that the user named |
//! | [`memory`] | guest RAM, giving it back, seeing what the kernel did |
//! | [`disk_cache`] | the host's page cache of the guest's disks |
//! | [`reconciler`], [`budget`] | keeping the frame table true, and what that may cost |
//! | [`pool_faults`] | having granules of managed images filled when they are touched |
//! | [`vcpu`] | threads that run guest code |
//! | [`events`] | what the event loop waits for; `events::control` turns targets into balloon requests |
//! | [`engine`] | what runs the guest: this process, or QEMU |
//! | [`qemu`] | a guest on a QEMU of this process, or of somebody else |
//! | [`own_objects`] | descriptors and threads of this process |
//! | [`link`] | the connection to the balancer |
//!
//! Threads: the event loop (main), one per vCPU, one reconciler, one that waits for faults of managed images, and one that registers again while a balancer is
//! missing. A device is locked by the vCPU that touches its registers or by the event loop that serves its queues; no
//! two device locks are ever held at once.

pub mod arch;
pub mod boot;
pub mod budget;
pub mod cli;
pub mod disk_cache;
pub mod engine;
pub mod events;
pub mod exit_code;
pub mod files;
pub mod link;
pub mod machine;
pub mod memory;
pub mod own_objects;
pub mod pool_faults;
pub mod qemu;
pub mod reconciler;
pub mod spec;
pub mod vcpu;

/// One line on standard error, if anything can be written there.
pub fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "vmm: {text}");
}
