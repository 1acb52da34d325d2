//! What a guest costs the host: the kernel's figure against the guest's own table.

use super::reading::{ImagePages, Reading};
use host::proc::{Folder, Status};
use policy::CHANGE_BYTES_MIN;
use protocol::bytes::FRAME_BYTES;
use protocol::engine::Engine;
use protocol::frames::Totals;
use protocol::message::{MachineProcess, QEMU_BYTES_ASSUMED};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the kernel says of a `vmm`: resident bytes of the process, anonymous, file and shared memory alike.
#[derive(Debug, Clone, Copy)]
pub struct KernelSample {
    /// Resident set, bytes.
    pub resident_bytes: u64,
    /// Anonymous memory in it, bytes.
    pub anonymous_bytes: u64,
    /// Anonymous memory that was swapped out, bytes.
    pub swapped_bytes: u64,
    /// Page tables that the kernel holds for the process, bytes; not in the resident set.
    pub page_tables_bytes: u64,
    /// When it was read: not later than the figures.
    pub at: Instant,
}

impl KernelSample {
    /// All kinds of memory from one system call, so that no page is in two of them or in none. `None` when the process
    /// is gone or has no memory any more.
    #[must_use]
    pub fn take(pid: i32) -> Option<Self> {
        let at = Instant::now();
        let status: Status = Folder::of(pid).read().ok()?;
        let resident = status.resident?;
        Some(Self {
            resident_bytes: resident.anonymous_bytes.saturating_add(resident.file_bytes),
            anonymous_bytes: resident.anonymous_bytes,
            swapped_bytes: status.swapped_bytes,
            page_tables_bytes: status.page_tables_bytes,
            at,
        })
    }

    /// Files and shared memory in the resident set, bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.resident_bytes.saturating_sub(self.anonymous_bytes)
    }

    /// The same of a `vmm` and of the process that has the guest's RAM, where that is another one: the sums. `None`
    /// when either is gone.
    #[must_use]
    pub fn of_guest(pid: i32, machine: Option<MachineProcess>) -> Option<Self> {
        let own = Self::take(pid)?;
        let Some(machine) = machine else { return Some(own) };
        let other = Self::take(machine.pid)?;
        Some(Self {
            resident_bytes: own.resident_bytes.saturating_add(other.resident_bytes),
            anonymous_bytes: own.anonymous_bytes.saturating_add(other.anonymous_bytes),
            swapped_bytes: own.swapped_bytes.saturating_add(other.swapped_bytes),
            page_tables_bytes: own.page_tables_bytes.saturating_add(other.page_tables_bytes),
            at: own.at,
        })
    }
}

/// Overhead that is assumed before it was measured: twice what an idle `vmm` takes. Bytes.
const OVERHEAD_BYTES_ASSUMED: u64 = 16 << 20;
/// What a QEMU may grow by between two readings, and while the middle of them lags behind: code that is translated,
/// threads for input and output. Bytes.
const QEMU_GROWTH_BYTES: u64 = 16 << 20;
/// A table whose error is larger than this, or was bounded longer ago than `FRESH`, says nothing about overhead.
/// Frames.
const ERROR_FRAMES_MAX: u64 = 512;
const FRESH: Duration = Duration::from_millis(2500);
/// By how much a process may have changed since the last reading for this one to tell of overhead, bytes: the table
/// was looked at a moment earlier, and what came or went since would be taken for it.
const MOVES_BYTES: u64 = 4 << 20;
/// A reading that took longer is of two moments: it says nothing about overhead.
pub(super) const SPAN_MAX: Duration = Duration::from_millis(50);
/// Readings of the overhead that are kept.
const READINGS: usize = 8;
/// Files and shared memory that a `vmm` may have mapped in addition to images: twice its program and its libraries.
/// Bytes.
const OWN_FILES_BYTES: u64 = 16 << 20;
/// A table that does not count more than that for this time, although its `vmm` was asked to compare, is not trusted
/// about it.
const DOUBT_MAX: Duration = Duration::from_secs(60);
/// After so much of this time the `vmm` is asked.
const DOUBT_ASKS: Duration = Duration::from_secs(3);

/// Bytes that a guest holds, and what its `vmm` takes in addition.
#[derive(Debug, Default)]
pub struct Figures {
    reading: Option<Reading>,
    images: ImagePages,
    overheads: VecDeque<u64>,
    /// Since when the process has more files mapped than its table counts and `OWN_FILES_BYTES`.
    doubted_at: Option<Instant>,
    is_qemu: bool,
}

impl Figures {
    /// Of a guest on this balancer.
    #[must_use]
    pub fn of_engine(engine: Engine) -> Self {
        Self { is_qemu: engine == Engine::Qemu, ..Self::default() }
    }

    fn assumed_bytes(&self) -> u64 {
        if self.is_qemu { QEMU_BYTES_ASSUMED } else { OVERHEAD_BYTES_ASSUMED }
    }

    /// Takes a reading into account.
    pub fn update(&mut self, reading: Reading) {
        let before = self.reading.take();
        self.images = reading.images(before.as_ref());
        self.doubt(&reading);
        if self.is_of_one_moment(before.as_ref(), &reading) {
            if self.overheads.len() == READINGS {
                self.overheads.pop_front();
            }
            let beside = reading.kernel.resident_bytes.saturating_sub(self.images.pool.known_bytes);
            self.overheads.push_back(beside.saturating_sub(reading.table.private_bytes()));
        }
        self.reading = Some(reading);
    }

    /// True if table and kernel are of one moment, as far as that matters for the overhead.
    fn is_of_one_moment(&self, before: Option<&Reading>, reading: &Reading) -> bool {
        let (kernel, totals) = (&reading.kernel, &reading.table.totals);
        let moves = |before: &Reading| {
            before.kernel.resident_bytes.abs_diff(kernel.resident_bytes) > MOVES_BYTES
                || before.kernel.file_bytes().abs_diff(kernel.file_bytes()) > MOVES_BYTES
        };
        let is_fresh = totals.checked_age_ms.is_some_and(|age| u128::from(age) <= FRESH.as_millis());
        // Of a QEMU each fault may have mapped pages of images, and what it takes is large.
        let is_settled = self.is_qemu || self.images.pool.doubt_bytes() <= MOVES_BYTES;
        is_fresh
            && is_settled
            && reading.span <= SPAN_MAX
            && !before.is_some_and(moves)
            && totals.error_frames_max <= ERROR_FRAMES_MAX
            && !totals.torn
    }

    /// A table may lag behind what its process maps, but not for ever: after a while what it does not count is the
    /// process's own.
    fn doubt(&mut self, reading: &Reading) {
        let uncounted = reading.kernel.file_bytes().saturating_sub(self.images.all.known_bytes);
        if self.is_qemu || uncounted <= OWN_FILES_BYTES || self.images.all.doubt_bytes() == 0 {
            self.doubted_at = None;
            return;
        }
        let since = *self.doubted_at.get_or_insert(reading.at);
        if reading.at.saturating_duration_since(since) >= DOUBT_MAX {
            self.images.all.bytes_max = self.images.all.known_bytes;
            self.images.pool.bytes_max = self.images.pool.known_bytes;
        }
    }

    /// True if the `vmm` is to be asked to compare its table, because that does not count files that its process has
    /// mapped.
    #[must_use]
    pub fn wants_comparison(&self, now: Instant) -> bool {
        self.doubted_at.is_some_and(|at| now.saturating_duration_since(at) >= DOUBT_ASKS)
    }

    /// The pages of images among what the kernel holds for the process.
    #[must_use]
    pub fn images(&self) -> ImagePages {
        self.images
    }

    /// The last reading.
    #[must_use]
    pub fn reading(&self) -> Option<&Reading> {
        self.reading.as_ref()
    }

    /// What the kernel said in it.
    #[must_use]
    pub fn kernel(&self) -> Option<KernelSample> {
        self.reading.as_ref().map(|reading| reading.kernel)
    }

    /// Host memory behind guest RAM, bytes: by the table's word, or by the kernel's count if that is more than the
    /// process can hold in addition to it.
    #[must_use]
    pub fn ram_bytes(&self, totals: &Totals) -> u64 {
        let beside = self.overhead_bytes().max(OVERHEAD_BYTES_ASSUMED);
        let counted = self.kernel().map_or(0, |kernel| kernel.anonymous_bytes.saturating_sub(beside));
        table_bytes(totals).max(counted)
    }

    /// What the process takes in addition to guest RAM, bytes. The guest touches and gives back pages between the two
    /// readings, and the kernel's own figure is off by some pages per CPU: of the last few, the one in the middle.
    #[must_use]
    pub fn overhead_bytes(&self) -> u64 {
        let mut readings: Vec<u64> = self.overheads.iter().copied().collect();
        readings.sort_unstable();
        readings.get(readings.len() / 2).copied().unwrap_or_else(|| self.assumed_bytes())
    }

    /// What a limit has to leave for that, bytes: a target that would move by less than [`CHANGE_BYTES_MIN`] is not
    /// sent, and `max` is never exceeded, so the overhead must have room to grow by as much, and that of a QEMU by
    /// more.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        match self.overheads.is_empty() {
            true => self.assumed_bytes(),
            false if self.is_qemu => self.overhead_bytes() + QEMU_GROWTH_BYTES,
            false => self.overhead_bytes() + CHANGE_BYTES_MIN,
        }
    }
}

/// Host memory that the guest has for itself by the table's own word, bytes: private frames. Those of images are the
/// pool's. A hostile table may claim anything.
pub(super) fn table_bytes(totals: &Totals) -> u64 {
    totals.private.min(totals.frames).saturating_mul(FRAME_BYTES)
}

#[cfg(test)]
#[path = "figures_test.rs"]
mod tests;
