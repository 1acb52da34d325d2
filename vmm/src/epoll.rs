//! Adding descriptors to the event loop.

use event_manager::{EventOps, Events};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

/// Waits for input on a descriptor. Its events carry the number `data`.
pub(crate) fn watch(ops: &mut EventOps<'_>, fd: &impl AsRawFd, data: u32) {
    watch_raw(ops, fd.as_raw_fd(), data);
}

/// As [`watch`], for a bare descriptor that the subscriber keeps open.
pub(crate) fn watch_raw(ops: &mut EventOps<'_>, fd: RawFd, data: u32) {
    if let Err(error) = ops.add(Events::with_data_raw(fd, data, EventSet::IN)) {
        // The kernel has no memory or no watches left: the guest runs on without this source.
        tracing::error!(fd, ?error, "Cannot wait for events");
    }
}

/// The descriptor of an event, to be polled. Its type does not lend it.
#[allow(unsafe_code)]
pub(crate) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: an event owns its descriptor, which is open as long as the event lives.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
