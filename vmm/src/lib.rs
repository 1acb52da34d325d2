//! The VMM: one process, one guest, run as a container with a memory limit.
//!
//! Each module uses only modules of the lines above its own:
//!
//! | module | what |
//! |---|---|
//! | [`files`], [`objects`] | opening files that the user named; descriptors and threads of this process |
//! | [`attached`], [`epoll`] | a device with its eventfds; adding descriptors to the event loop |
//! | [`token_bucket`], [`spec`] | a rate limit of CPU time; what the user asks for |
//! | [`memory`], [`disk_cache`] | guest RAM and its release; the host's page cache of the guest's disks |
//! | [`layout`], [`vcpu`] | the guest-physical map; threads that run guest code |
//! | [`arch`], [`boot`] | processors and memory of a guest at its start |
//! | [`exit_code`], [`reconciler`] | exit codes; keeping the frame table true |
//! | [`events`] | the event loop and its sources |
//! | [`link`] | the connection to the balancer |
//! | [`control`], [`pool_faults`] | one guest between machine and balancer; filling granules of managed images |
//! | [`machine`] | machines on KVM and on QEMU |
//! | [`engine`], [`cli`] | the choice of the hypervisor; the command line |
//!
//! Threads: the event loop (main), one per vCPU, one reconciler, one that waits for faults of managed images, one for
//! QEMU's monitor, and one that registers again while a balancer is missing. A device is locked by the vCPU that
//! touches its registers or by the event loop that serves its queues; no two device locks are ever held at once, and a
//! queue event takes the lock once.

#![deny(unsafe_code)]

pub mod arch;
pub mod attached;
pub mod boot;
pub mod cli;
pub mod control;
pub mod disk_cache;
pub mod engine;
pub mod epoll;
pub mod events;
pub mod exit_code;
pub mod files;
pub mod layout;
pub mod link;
pub mod machine;
pub mod memory;
pub mod objects;
pub mod pool_faults;
pub mod reconciler;
pub mod spec;
pub mod token_bucket;
pub mod vcpu;

/// Writes one line to standard error, if that is possible.
pub fn print_notice(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "vmm: {text}");
}
