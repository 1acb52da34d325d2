//! What the event loop waits for: one subscriber per source of events.

pub mod channel;
pub mod control;
pub mod port;
pub mod queues;
pub mod signals;
pub mod stdin;

use event_manager::{EventOps, Events};
use std::os::fd::{AsRawFd, RawFd};
use vmm_sys_util::epoll::EventSet;

/// Waits for input on a descriptor, with a number to know it by.
pub(crate) fn watch(ops: &mut EventOps<'_>, fd: &impl AsRawFd, data: u32) {
    watch_raw(ops, fd.as_raw_fd(), data);
}

/// As [`watch`], for a bare descriptor that the subscriber keeps open.
pub(crate) fn watch_raw(ops: &mut EventOps<'_>, fd: RawFd, data: u32) {
    if let Err(error) = ops.add(Events::with_data_raw(fd, data, EventSet::IN)) {
        // Out of kernel memory or of watches: the guest runs on without this source.
        tracing::error!(fd, ?error, "Cannot wait for events");
    }
}
