//! What a guest costs the host: the kernel's figure against the guest's own table.

use protocol::bytes::FRAME_BYTES;
use protocol::frames::Totals;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the kernel says of a `vmm`: resident bytes of the process, anonymous, file and shared memory alike.
#[derive(Debug, Clone, Copy)]
pub struct KernelSample {
    /// Resident set, bytes.
    pub resident_bytes: u64,
    /// When it was read.
    pub at: Instant,
}

impl KernelSample {
    /// Reads `/proc/PID/statm` (proc_pid_statm(5)): second field, pages. `None` when the process is gone.
    #[must_use]
    pub fn take(pid: i32) -> Option<Self> {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        Some(Self { resident_bytes: pages.saturating_mul(FRAME_BYTES), at: Instant::now() })
    }
}

/// Overhead that is assumed before it was measured: twice what an idle `vmm` takes. Bytes.
const OVERHEAD_BYTES_ASSUMED: u64 = 16 << 20;
/// A table compared with the kernel longer ago than this says nothing about overhead.
const FRESH: Duration = Duration::from_millis(2500);
/// Readings of the overhead that are kept.
const READINGS: usize = 8;

/// Bytes that a guest holds, and what its `vmm` takes beside them.
#[derive(Debug, Default)]
pub struct Figures {
    kernel: Option<KernelSample>,
    overheads: VecDeque<u64>,
}

impl Figures {
    /// Takes a reading of the kernel into account, with the table's totals of the same moment.
    pub fn update(&mut self, kernel: KernelSample, totals: &Totals) {
        self.kernel = Some(kernel);
        let fresh = totals.reconciled_age_ms.is_some_and(|age| u128::from(age) <= FRESH.as_millis());
        if fresh && !totals.torn {
            if self.overheads.len() == READINGS {
                self.overheads.pop_front();
            }
            self.overheads.push_back(kernel.resident_bytes.saturating_sub(table_bytes(totals)));
        }
    }

    /// The last reading of the kernel.
    #[must_use]
    pub fn kernel(&self) -> Option<KernelSample> {
        self.kernel
    }

    /// What the process takes beside guest RAM, bytes. The guest touches pages between a comparison of its table and
    /// a reading, which makes a reading too large, never too small: the smallest of the last few is the best.
    #[must_use]
    pub fn overhead_bytes(&self) -> u64 {
        self.overheads.iter().copied().min().unwrap_or(OVERHEAD_BYTES_ASSUMED)
    }

    /// What is charged: the larger of the kernel's figure and the table's. A `vmm` may lie in its own table. Bytes.
    #[must_use]
    pub fn usage_bytes(&self, totals: &Totals) -> u64 {
        self.kernel.map_or(0, |kernel| kernel.resident_bytes).max(table_bytes(totals))
    }
}

/// Host memory behind the frames by the table's own word, bytes. A hostile table may claim anything.
fn table_bytes(totals: &Totals) -> u64 {
    totals.private.saturating_add(totals.shared).min(totals.frames).saturating_mul(FRAME_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(private: u64, age: Option<u64>) -> Totals {
        Totals { frames: 1 << 16, private, reconciled_age_ms: age, ..Default::default() }
    }

    #[test]
    fn overhead_is_assumed_until_the_table_is_fresh() {
        let mut figures = Figures::default();
        let kernel = KernelSample { resident_bytes: 100 << 20, at: Instant::now() };
        figures.update(kernel, &totals(0, None));
        assert_eq!(figures.overhead_bytes(), OVERHEAD_BYTES_ASSUMED);
        figures.update(kernel, &totals(92 << 8, Some(10)));
        figures.update(kernel, &totals(80 << 8, Some(2000)));
        assert_eq!(figures.overhead_bytes(), 8 << 20);
    }

    #[test]
    fn the_larger_figure_is_charged() {
        let mut figures = Figures::default();
        figures.update(KernelSample { resident_bytes: 100 << 20, at: Instant::now() }, &totals(0, None));
        assert_eq!(figures.usage_bytes(&totals(0, None)), 100 << 20);
        assert_eq!(figures.usage_bytes(&totals(200 << 8, None)), 200 << 20);
        assert_eq!(figures.usage_bytes(&totals(u64::MAX, None)), 256 << 20);
    }

    #[test]
    fn this_process_is_resident() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(KernelSample::take(pid).unwrap().resident_bytes > 0);
        assert!(KernelSample::take(i32::MAX).is_none());
    }
}
