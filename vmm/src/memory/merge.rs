//! Letting the kernel merge guest RAM with equal pages of others (KSM, `Documentation/admin-guide/mm/ksm.rst`).
//!
//! The kernel looks at pages of 4 KiB, so it splits huge pages where something in them is equal. A merged page is written to
//! by nobody: who tries gets a copy of its own. For the frame table nothing changes: the page is present, anonymous and
//! counted as before, so its frame is held; released, the guest's part of it is gone. `/proc/self/pagemap` does not tell it
//! from the page of zeros, `PAGEMAP_SCAN` does: without that a frame that the guest holds would be taken for untouched. What is different is what a release
//! brings: a page that others have too stays in the host for them. The one exception is `use_zero_pages`: then pages of zeros
//! vanish from the kernel's total without a release, and the error that a table publishes would not hold. The balancer
//! refuses merging while that is on.

use super::{MemoryError, Method, Pagemap, Ram, release::advise};
use std::io;

impl Ram {
    /// Offers all RAM to the kernel for merging, once and for good.
    ///
    /// # Errors
    /// When this kernel has no KSM, or cannot tell a merged page from the page of zeros.
    pub fn merge(&self) -> Result<(), MemoryError> {
        let refused = |source| MemoryError::Merge { source };
        if Pagemap::open().map_err(refused)?.method() != Method::Scan {
            return Err(refused(io::ErrorKind::Unsupported.into()));
        }
        advise(self.base, self.bytes(), libc::MADV_MERGEABLE).map_err(refused)
    }
}
