//! The writing side: the guest's `vmm`.

use super::layout::{self, FRAMES_PER_BLOCK, LayoutError, MAGIC, Mapping, Region, VERSION};
use super::state::State;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU16, fence};

/// What became of a run of frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunOutcome {
    /// Frames that changed their state.
    pub changed: u64,
    /// Frames that were in that state already.
    pub repeated: u64,
    /// Frames that may not go to that state from theirs, or lie in no region. They stay as they are.
    pub refused: u64,
}

/// The frame table of one guest, writable.
pub struct FrameTable {
    mapping: Mapping,
    regions: Vec<Region>,
    fd: OwnedFd,
    owner: AtomicU16,
    /// One writer at a time: a run is changed under one hold, so this is not taken per frame.
    writing: Mutex<()>,
}

impl std::fmt::Debug for FrameTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameTable").field("regions", &self.regions).finish_non_exhaustive()
    }
}

impl FrameTable {
    /// A table for these regions, every frame untouched.
    ///
    /// # Errors
    /// When the regions are malformed or the system has no memory for the table.
    pub fn new(regions: &[Region]) -> Result<Self, LayoutError> {
        let frames = layout::check_regions(regions)?;
        let bytes = layout::table_bytes(frames)?;
        // SAFETY: a valid C string and flags; the result is checked.
        let fd = unsafe { libc::memfd_create(c"ballast-frames".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if fd < 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let length = libc::off_t::try_from(bytes).map_err(|_| LayoutError::Regions("too many frames"))?;
        // SAFETY: plain system calls on a descriptor that we own; results are checked. The seals let a reader map the
        // table without fear of SIGBUS.
        let sealed = unsafe {
            libc::ftruncate(fd.as_raw_fd(), length) == 0
                && libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL) == 0
        };
        if !sealed {
            return Err(io::Error::last_os_error().into());
        }
        let mapping = Mapping::new(fd.as_fd(), frames, true)?;
        let header = mapping.header();
        for (slot, region) in header.regions.iter().zip(regions) {
            slot[0].store(region.first, Relaxed);
            slot[1].store(region.count, Relaxed);
        }
        header.region_count.store(u32::try_from(regions.len()).expect("at most 6"), Relaxed);
        header.version.store(VERSION, Relaxed);
        // A fresh memfd is zero, and zero is `untouched` without an owner: only the counters are to be set.
        for block in mapping.blocks() {
            block[State::Untouched as usize].store(u16::try_from(FRAMES_PER_BLOCK).expect("512"), Relaxed);
        }
        mapping.total(State::Untouched).store(frames, Relaxed);
        header.magic.store(MAGIC, Release);
        Ok(Self { mapping, regions: regions.to_vec(), fd, owner: AtomicU16::new(0), writing: Mutex::new(()) })
    }

    /// The descriptor that is handed to the balancer.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The regions.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Who is charged for frames that become private from now on: an id that the balancer gave.
    pub fn set_owner(&self, owner: u16) {
        self.owner.store(owner, Relaxed);
    }

    /// Frames in a state.
    #[must_use]
    pub fn total(&self, state: State) -> u64 {
        self.mapping.total(state).load(Relaxed)
    }

    /// State of a frame, `None` outside all regions.
    #[must_use]
    pub fn state(&self, frame: u64) -> Option<State> {
        layout::state_of(self.mapping.entries()[self.index(frame)?].load(Relaxed))
    }

    /// Owner of a frame, `None` outside all regions; 0 for nobody.
    #[must_use]
    pub fn owner(&self, frame: u64) -> Option<u16> {
        Some(layout::owner_of(self.mapping.entries()[self.index(frame)?].load(Relaxed)))
    }

    /// Reads the states of the frames from `first` on; frames outside all regions are left as they are.
    pub fn states(&self, first: u64, states: &mut [State]) {
        let Some(index) = self.index(first).filter(|_| self.contains(first, states.len() as u64)) else { return };
        for (state, cell) in states.iter_mut().zip(&self.mapping.entries()[index..]) {
            *state = layout::state_of(cell.load(Relaxed)).expect("only this process writes its own table");
        }
    }

    /// Puts a run of frames into a state, as far as their own states permit.
    pub fn set(&self, first: u64, count: u64, to: State) -> RunOutcome {
        self.set_if(first, count, to, |_, from| from.may_become(to))
    }

    /// Puts those frames of a run into a state for which `admit(frame, state now)` says yes and the transition is legal.
    pub fn set_if(&self, first: u64, count: u64, to: State, mut admit: impl FnMut(u64, State) -> bool) -> RunOutcome {
        let mut outcome = RunOutcome::default();
        let Some(index) = self.index(first).filter(|_| self.contains(first, count)) else {
            outcome.refused = count;
            return outcome;
        };
        let guard = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let header = self.mapping.header();
        let sequence = header.sequence.load(Relaxed);
        header.sequence.store(sequence + 1, Relaxed);
        fence(Release);
        let mut delta = [0u64; layout::STATE_SLOTS];
        let mut refaults = 0;
        let end = index + usize::try_from(count).expect("a run inside a region fits the address space");
        let mut at = index;
        while at < end {
            // One block after the other, so that its counters are written once.
            let block = at / 512;
            let stop = end.min((block + 1) * 512);
            let mut left = [0u16; layout::STATE_SLOTS];
            let mut entered = 0u16;
            for i in at..stop {
                let cell = &self.mapping.entries()[i];
                let from = layout::state_of(cell.load(Relaxed)).expect("only this process writes its own table");
                let frame = first + u64::try_from(i - index).expect("usize is 64 bits");
                if from == to {
                    outcome.repeated += 1;
                } else if from.may_become(to) && admit(frame, from) {
                    let owner = if to.holds_host_memory() { self.owner.load(Relaxed) } else { 0 };
                    cell.store(layout::entry(to, owner), Relaxed);
                    left[from as usize] += 1;
                    entered += 1;
                    refaults += u64::from(to == State::Private && matches!(from, State::Ballooned));
                } else {
                    outcome.refused += 1;
                }
            }
            if entered > 0 {
                let counters = &self.mapping.blocks()[block];
                for (slot, gone) in left.iter().enumerate().filter(|(_, gone)| **gone > 0) {
                    counters[slot].fetch_sub(*gone, Relaxed);
                    delta[slot] += u64::from(*gone);
                }
                counters[to as usize].fetch_add(entered, Relaxed);
                outcome.changed += u64::from(entered);
            }
            at = stop;
        }
        for (slot, gone) in delta.iter().enumerate().filter(|(_, gone)| **gone > 0) {
            header.totals[slot].fetch_sub(*gone, Relaxed);
        }
        header.totals[to as usize].fetch_add(outcome.changed, Relaxed);
        header.refaults.fetch_add(refaults, Relaxed);
        header.sequence.store(sequence + 2, Release);
        drop(guard);
        outcome
    }

    /// Records that all entries were compared with the kernel's view just now.
    pub fn reconciled(&self) {
        self.mapping.header().reconciled_at_ns.store(monotonic_ns(), Relaxed);
    }

    #[cfg(test)]
    pub(super) fn mapping_for_test(&self) -> &Mapping {
        &self.mapping
    }

    fn contains(&self, first: u64, count: u64) -> bool {
        self.regions.iter().any(|r| first >= r.first && count <= r.count && first - r.first <= r.count - count)
    }

    fn index(&self, frame: u64) -> Option<usize> {
        let mut before = 0;
        for region in &self.regions {
            if frame >= region.first && frame - region.first < region.count {
                return usize::try_from(before + (frame - region.first)).ok();
            }
            before += region.count;
        }
        None
    }
}

/// `CLOCK_MONOTONIC`, nanoseconds: the clock that both processes share.
pub(super) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid pointer to a timespec; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
