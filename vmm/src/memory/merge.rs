//! Letting the kernel merge guest RAM with equal pages of other processes (KSM,
//! `Documentation/admin-guide/mm/ksm.rst`).
//!
//! The kernel compares pages of 4 KiB, so it splits huge pages where a part of them is equal to another page. A merged
//! page is read-only: a process that writes to it gets a copy of its own. For the frame table nothing changes: the page
//! is present, anonymous and counted as before, so its frame is held; after a release the guest's part of it is gone.
//! `/proc/self/pagemap` does not distinguish it from the page of zeros, `PAGEMAP_SCAN` does: without that ioctl a frame
//! that the guest holds would be taken for untouched. The difference is the gain of a release: a page that other
//! processes have too stays in the host for them. The one exception is `use_zero_pages`: then pages of zeros vanish
//! from the kernel's total without a release, and the error that a table publishes would not hold. The balancer refuses
//! merging while that is on.

use super::mapping::Advice;
use super::{MemoryError, Method, Pagemap, Ram};
use std::io;

impl Ram {
    /// Offers all RAM to the kernel for merging, once and for good.
    ///
    /// # Errors
    /// When this kernel has no KSM, or does not distinguish a merged page from the page of zeros.
    pub fn merge(&self) -> Result<(), MemoryError> {
        let refused = |source| MemoryError::Merge { source };
        if Pagemap::open().map_err(refused)?.method() != Method::Scan {
            return Err(refused(io::ErrorKind::Unsupported.into()));
        }
        self.mapping.advise(0, self.bytes(), Advice::Merge).map_err(refused)
    }
}
