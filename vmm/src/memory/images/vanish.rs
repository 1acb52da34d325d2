//! An image whose file got shorter while it is mapped: its bytes are zeros from then on, and no process ends.
//!
//! Behind the end of its file a mapping has no pages: an access of this process is SIGBUS, an access of the guest fails
//! `KVM_RUN` with EFAULT. The store never shortens an image (I1), but a file is not the guest's and not ours. So:
//!
//! ```text
//!  SIGBUS in a guarded mapping --> fstat: where does the file end? --> zeros are mapped from there on --> the access
//!  repeats EFAULT of a vCPU            --> the same for all mappings       --> something changed: run on, else the
//!  guest ends
//! ```
//!
//! Any other SIGBUS, an unreadable disk for one, ends the process as it always did. The handler calls `fstat` and
//! `mmap`, which are system calls and nothing more, and reads atomics.

use protocol::bytes::FRAME_BYTES;
use std::io;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize};
use vmm_sys_util::signal::register_signal_handler;

/// Mappings that are guarded at a time; more than a guest may have.
const SLOTS: usize = 64;
/// A slot that is being filled.
const TAKEN: usize = 1;

#[derive(Debug)]
struct Slot {
    /// First address; 0 for a free slot.
    base: AtomicUsize,
    bytes: AtomicUsize,
    file: AtomicI32,
    /// Where zeros begin.
    end: AtomicUsize,
}

static GUARDED: [Slot; SLOTS] = [const {
    Slot {
        base: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        file: AtomicI32::new(-1),
        end: AtomicUsize::new(0),
    }
}; SLOTS];

/// Frames that became zeros.
static LOST_FRAMES: AtomicU64 = AtomicU64::new(0);

/// A mapping that is guarded for as long as this lives.
#[derive(Debug)]
pub(super) struct Guard(usize);

impl Guard {
    /// Guards a mapping of a file from its start on. The descriptor stays open for as long.
    pub fn new(base: usize, bytes: usize, file: i32) -> io::Result<Self> {
        for (index, slot) in GUARDED.iter().enumerate() {
            if slot.base.compare_exchange(0, TAKEN, AcqRel, Relaxed).is_ok() {
                slot.bytes.store(bytes, Relaxed);
                slot.file.store(file, Relaxed);
                slot.end.store(bytes, Relaxed);
                slot.base.store(base, Release);
                return Ok(Self(index));
            }
        }
        Err(io::Error::other("too many mappings of images"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        GUARDED[self.0].base.store(0, Release);
    }
}

impl Slot {
    /// Offset of an address in this mapping.
    fn offset(&self, address: usize) -> Option<usize> {
        let base = self.base.load(Acquire);
        let offset = address.checked_sub(base).filter(|_| base > TAKEN)?;
        (offset < self.bytes.load(Relaxed)).then_some(offset)
    }

    /// Maps zeros behind the file's end, if it lies before `offset` and inside the mapping. True if zeros are there.
    /// Async-signal-safe.
    fn heal(&self, offset: usize) -> bool {
        let (base, bytes) = (self.base.load(Acquire), self.bytes.load(Relaxed));
        // SAFETY: zeroed is a valid stat, fstat fills it; an error is looked at.
        let length = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            if libc::fstat(self.file.load(Relaxed), &raw mut stat) != 0 {
                return false;
            }
            usize::try_from(stat.st_size).unwrap_or(0)
        };
        // The kernel fills the rest of the last page with zeros by itself.
        let end = length.next_multiple_of(FRAME_BYTES as usize);
        if base <= TAKEN || end >= bytes || offset < end {
            return false;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: a part of a mapping that is guarded, hence of this process and still there; who reads it through
        // volatile accessors or through KVM expects any bytes.
        let mapped = unsafe {
            libc::mmap((base + end) as *mut libc::c_void, bytes - end, libc::PROT_READ, flags, -1, 0)
        };
        if mapped == libc::MAP_FAILED {
            return false;
        }
        let before = self.end.fetch_min(end, AcqRel);
        LOST_FRAMES.fetch_add((before.saturating_sub(end) / FRAME_BYTES as usize) as u64, AcqRel);
        true
    }
}

/// Maps zeros behind the ends of all files that got shorter. True if one did since it was looked at last.
#[must_use]
pub fn heal() -> bool {
    let is_new = |slot: &Slot| {
        let end = slot.end.load(Acquire);
        // The last byte that was not healed yet: behind the file's end, if anything is.
        slot.base.load(Acquire) > TAKEN && end > 0 && slot.heal(end - 1)
    };
    GUARDED.iter().filter(|slot| is_new(slot)).count() > 0
}

/// Frames of images that became zeros, since the process began.
#[must_use]
pub fn lost_frames() -> u64 {
    LOST_FRAMES.load(Acquire)
}

extern "C" fn handler(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid siginfo to a handler that was installed with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    let healed = GUARDED.iter().any(|slot| slot.offset(address).is_some_and(|offset| slot.heal(offset)));
    if !healed {
        // Not ours to mend: the access repeats, and ends the process.
        // SAFETY: sets the default action, which has no requirement.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
}

/// Installs the handler for the whole process.
///
/// # Errors
/// When the system refuses it.
pub fn install() -> io::Result<()> {
    register_signal_handler(libc::SIGBUS, handler).map_err(Into::into)
}
