//! Kernel objects of this process: descriptors and threads.

use host::proc::Folder;
use host::process::DescriptorLimit;
use std::io;

/// Descriptors in addition to those that are open when the guest registers: an event loop for the disks and one for
/// the rest, the link, and one that is open for a moment.
const FDS_MORE: u32 = 4;
/// Descriptors that a limit always leaves: finding a balancer again takes a few, and only a balancer can raise the
/// limit.
const FDS_SPARE: u64 = 16;
/// Main and reconciler; and one that sometimes waits for a balancer or looks for one.
const THREADS: u32 = 3;

/// Descriptors that this process will have open while the guest runs. To be called when the guest is built.
#[must_use]
pub fn fds_expected() -> u32 {
    u32::try_from(fds()).unwrap_or(u32::MAX).saturating_add(FDS_MORE)
}

/// Threads that this process will have, for a guest with these vCPUs, with or without disks and managed images.
#[must_use]
pub fn threads_expected(cpus: u8, has_disks: bool, has_managed: bool) -> u32 {
    THREADS + u32::from(cpus) + u32::from(has_disks) + u32::from(has_managed)
}

/// Open descriptors, including the one that reads the folder.
fn fds() -> u64 {
    Folder::own().fds().unwrap_or(0)
}

/// Bounds the descriptors of this process, as far as the system allows: `RLIMIT_NOFILE` (getrlimit(2)) bounds the
/// numbers of new descriptors, open ones stay open.
#[derive(Debug)]
pub struct FdLimit {
    /// The limit at the start.
    first: DescriptorLimit,
}

impl FdLimit {
    /// Reads the limit.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn read() -> io::Result<Self> {
        Ok(Self { first: DescriptorLimit::get() })
    }

    /// Sets the limit; `None` for the limit at the start. Returns the new limit.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn set(&self, fds_max: Option<u32>) -> io::Result<u64> {
        let first = self.first.soft;
        let soft = fds_max.map_or(first, |most| u64::from(most).max(fds() + FDS_SPARE).min(first));
        DescriptorLimit { soft, ..self.first }.set()?;
        Ok(soft)
    }
}
