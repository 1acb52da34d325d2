//! What a guest costs the host: the kernel's figure against the guest's own table.

use host::proc::{Folder, Statm, Status};
use policy::CHANGE_BYTES_MIN;
use protocol::bytes::FRAME_BYTES;
use protocol::engine::Engine;
use protocol::frames::{FrameReader, Region, RegionKind, Totals};
use protocol::image::MappedImage;
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
    /// When it was read.
    pub at: Instant,
}

impl KernelSample {
    /// Reads `/proc/PID/statm` and `/proc/PID/status`. `None` when the process is gone.
    #[must_use]
    pub fn take(pid: i32) -> Option<Self> {
        let folder = Folder::of(pid);
        let (statm, status): (Statm, Status) = (folder.read().ok()?, folder.read().ok()?);
        Some(Self {
            resident_bytes: statm.resident_bytes(),
            anonymous_bytes: statm.anonymous_frames().saturating_mul(FRAME_BYTES),
            swapped_bytes: status.swapped_bytes,
            page_tables_bytes: status.page_tables_bytes,
            at: Instant::now(),
        })
    }

    /// The same of a `vmm` and of the process that has the guest's RAM, where that is another one: the sums. `None` when either
    /// is gone.
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

    /// The part of the resident set that are pages of images, which are the pool's, bytes. The table says how many; no
    /// more than the process has of files.
    #[must_use]
    pub fn image_bytes(&self, totals: &Totals) -> u64 {
        let file_bytes = self.resident_bytes.saturating_sub(self.anonymous_bytes);
        totals.shared.saturating_mul(FRAME_BYTES).min(file_bytes)
    }
}

/// Overhead that is assumed before it was measured: twice what an idle `vmm` takes. Bytes.
const OVERHEAD_BYTES_ASSUMED: u64 = 16 << 20;
/// What a QEMU may grow by between two readings, and while the middle of them lags behind: code that is translated, threads
/// for input and output. Bytes.
const QEMU_GROWTH_BYTES: u64 = 16 << 20;
/// A table whose error is larger than this, or was bounded longer ago than `FRESH`, says nothing about overhead. Frames.
const ERROR_FRAMES_MAX: u64 = 512;
const FRESH: Duration = Duration::from_millis(2500);
/// By how much a process may have changed since the last reading for this one to tell of overhead, bytes: the table was looked at a
/// moment earlier, and what came or went since would be taken for it.
const MOVES_BYTES: u64 = 4 << 20;
/// Readings of the overhead that are kept.
const READINGS: usize = 8;

/// Bytes that a guest holds, and what its `vmm` takes beside them.
#[derive(Debug, Default)]
pub struct Figures {
    kernel: Option<KernelSample>,
    overheads: VecDeque<u64>,
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

    /// Takes a reading of the kernel into account, with the table's totals of the same moment.
    pub fn update(&mut self, kernel: KernelSample, totals: &Totals) {
        let before = self.kernel.replace(kernel);
        let moves =
            before.is_some_and(|before| before.resident_bytes.abs_diff(kernel.resident_bytes) > MOVES_BYTES);
        let fresh = totals.checked_age_ms.is_some_and(|age| u128::from(age) <= FRESH.as_millis());
        if fresh && !moves && totals.error_frames_max <= ERROR_FRAMES_MAX && !totals.torn {
            if self.overheads.len() == READINGS {
                self.overheads.pop_front();
            }
            let beside = kernel.resident_bytes.saturating_sub(kernel.image_bytes(totals));
            self.overheads.push_back(beside.saturating_sub(table_bytes(totals)));
        }
    }

    /// The last reading of the kernel.
    #[must_use]
    pub fn kernel(&self) -> Option<KernelSample> {
        self.kernel
    }

    /// Host memory behind guest RAM, bytes: by the table's word, or by the kernel's count if that is more than the process can hold beside it.
    #[must_use]
    pub fn ram_bytes(&self, totals: &Totals) -> u64 {
        let beside = self.overhead_bytes().max(OVERHEAD_BYTES_ASSUMED);
        let counted = self.kernel.map_or(0, |kernel| kernel.anonymous_bytes.saturating_sub(beside));
        table_bytes(totals).max(counted)
    }

    /// What the process takes beside guest RAM, bytes. The guest touches and gives back pages between the two readings,
    /// and the kernel's own figure is off by some pages per CPU: of the last few, the one in the middle.
    #[must_use]
    pub fn overhead_bytes(&self) -> u64 {
        let mut readings: Vec<u64> = self.overheads.iter().copied().collect();
        readings.sort_unstable();
        readings.get(readings.len() / 2).copied().unwrap_or_else(|| self.assumed_bytes())
    }

    /// What a limit has to leave for that, bytes: a target that would move by less than [`CHANGE_BYTES_MIN`] is not sent,
    /// and `max` is never exceeded, so the overhead must have room to grow by as much, and that of a QEMU by more.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        match self.overheads.is_empty() {
            true => self.assumed_bytes(),
            false if self.is_qemu => self.overhead_bytes() + QEMU_GROWTH_BYTES,
            false => self.overhead_bytes() + CHANGE_BYTES_MIN,
        }
    }
}

/// Totals of a table in which `shared` are pages of the pool's images alone. A file of its own that a guest maps as an image
/// is nobody else's: the guest pays for it.
pub fn pool_totals(frames: &FrameReader, images: &[MappedImage]) -> Totals {
    let regions = frames.totals_by_region();
    let of_pool = |region: &Region| images.iter().any(|image| image.first == region.first);
    let own = regions.iter().filter(|(region, _)| region.kind == RegionKind::Image && !of_pool(region));
    let own_frames = own.fold(0u64, |sum, (_, totals)| sum.saturating_add(totals.shared));
    let totals = frames.totals();
    Totals { shared: totals.shared.saturating_sub(own_frames), ..totals }
}

/// Host memory that the guest has for itself by the table's own word, bytes: private frames. Those of images are the
/// pool's. A hostile table may claim anything.
pub(super) fn table_bytes(totals: &Totals) -> u64 {
    totals.private.min(totals.frames).saturating_mul(FRAME_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(private: u64, age: Option<u64>) -> Totals {
        Totals { frames: 1 << 16, private, checked_age_ms: age, ..Default::default() }
    }

    #[test]
    fn overhead_is_assumed_until_the_table_is_known_to_be_right() {
        let mut figures = Figures::default();
        let resident_bytes = 100 << 20;
        let kernel = KernelSample {
            resident_bytes,
            anonymous_bytes: resident_bytes,
            swapped_bytes: 0,
            page_tables_bytes: 0,
            at: Instant::now(),
        };
        figures.update(kernel, &totals(0, None));
        assert_eq!(figures.overhead_bytes(), OVERHEAD_BYTES_ASSUMED);
        figures.update(kernel, &totals(92 << 8, Some(9000)));
        figures.update(kernel, &Totals { error_frames_max: 4096, ..totals(92 << 8, Some(10)) });
        assert_eq!(figures.reserved_bytes(), OVERHEAD_BYTES_ASSUMED);
        for private in [92 << 8, 80 << 8, 94 << 8] {
            figures.update(kernel, &totals(private, Some(2000)));
        }
        assert_eq!((figures.overhead_bytes(), figures.reserved_bytes()), (8 << 20, 9 << 20));
    }

    #[test]
    fn what_comes_between_two_readings_is_no_overhead() {
        let mut figures = Figures::of_engine(Engine::Qemu);
        let kernel = |resident_mib: u64| KernelSample {
            resident_bytes: resident_mib << 20,
            anonymous_bytes: resident_mib << 20,
            swapped_bytes: 0,
            page_tables_bytes: 0,
            at: Instant::now(),
        };
        figures.update(kernel(200), &totals(80 << 8, Some(10)));
        for resident_mib in [260, 320, 380] {
            figures.update(kernel(resident_mib), &totals(80 << 8, Some(900)));
        }
        assert_eq!(figures.overhead_bytes(), 120 << 20);
        figures.update(kernel(382), &totals(250 << 8, Some(10)));
        assert_eq!(figures.overhead_bytes(), 132 << 20);
    }

    #[test]
    fn a_qemu_gets_room_to_grow_and_is_expected_to_be_large() {
        let mut figures = Figures::of_engine(Engine::Qemu);
        assert_eq!((figures.overhead_bytes(), figures.reserved_bytes()), (128 << 20, 128 << 20));
        let kernel = KernelSample {
            resident_bytes: 200 << 20,
            anonymous_bytes: 120 << 20,
            swapped_bytes: 0,
            page_tables_bytes: 0,
            at: Instant::now(),
        };
        figures.update(kernel, &totals(100 << 8, Some(10)));
        assert_eq!((figures.overhead_bytes(), figures.reserved_bytes()), (100 << 20, 116 << 20));
    }

    #[test]
    fn pages_of_images_are_neither_overhead_nor_the_guests_own() {
        let kernel = KernelSample {
            resident_bytes: 100 << 20,
            anonymous_bytes: 60 << 20,
            swapped_bytes: 0,
            page_tables_bytes: 0,
            at: Instant::now(),
        };
        let with_images = Totals { shared: 35 << 8, ..totals(58 << 8, Some(10)) };
        let mut figures = Figures::default();
        figures.update(kernel, &with_images);
        assert_eq!((table_bytes(&with_images), figures.overhead_bytes()), (58 << 20, 7 << 20));
        // A table that claims more of them than the process has of files hides nothing else with it.
        let lie = Totals { shared: 99 << 8, ..with_images };
        assert_eq!(kernel.image_bytes(&lie), 40 << 20);
    }

    #[test]
    fn a_file_that_the_pool_does_not_know_is_the_guests_own() {
        use protocol::frames::{FrameTable, Transition};
        use protocol::image::Digest;
        let (ram, of_pool, own) =
            (Region::ram(0, 512), Region::image(1 << 20, 512), Region::image(1 << 21, 512));
        let table = FrameTable::new(&[ram, of_pool, own]).unwrap();
        table.apply(of_pool.first, 30, Transition::Map);
        table.apply(own.first, 7, Transition::Map);
        let reader = FrameReader::open(table.fd()).unwrap();
        let images =
            [MappedImage { digest: Digest::new([1; 32]), first: of_pool.first, count: of_pool.count }];
        assert_eq!((pool_totals(&reader, &images).shared, pool_totals(&reader, &[]).shared), (30, 0));
    }

    #[test]
    fn a_table_holds_no_more_than_its_frames() {
        assert_eq!(table_bytes(&totals(200 << 8, None)), 200 << 20);
        assert_eq!(table_bytes(&totals(u64::MAX, None)), 256 << 20);
    }

    #[test]
    fn this_process_is_resident() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let kernel = KernelSample::take(pid).unwrap();
        assert!(
            kernel.page_tables_bytes > 0
                && kernel.anonymous_bytes > 0
                && kernel.resident_bytes > kernel.anonymous_bytes,
            "{kernel:?}"
        );
        assert!(KernelSample::take(i32::MAX).is_none());
    }
}
