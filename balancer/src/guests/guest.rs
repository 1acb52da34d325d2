//! One registered guest.

use super::cross_check::CrossCheck;
use super::disk_cache::DiskCache;
use super::event_bucket::EventBucket;
use super::figures::{Figures, table_bytes};
use super::process::ProcessObjects;
use super::scan::{ChargeDone, ChargeId, DueScan, TableScan};
use crate::events::Events;
use crate::pool::GuestSeq;
use accounting::{GuestReading, System};
use host::ksm::Merged;
use policy::{Counters, GuestMemory, GuestStatistics, GuestView, OutOfMemory, STATISTICS_AGE_MS_MAX};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::FrameReader;
use protocol::message::{Balloon, Register, Statistics, ToVmm};
use protocol::objects::ObjectCounts;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// A guest that is to be watched, or was read: its number, its process, its RAM in bytes.
pub type Watchable = (GuestSeq, i32, u64);

/// After it ran out of memory a guest keeps what it holds for this time.
const OUT_OF_MEMORY_HOLD: Duration = Duration::from_secs(30);

/// A working set that was read longer ago is unknown. It is read about every six seconds.
const WORKING_SET_AGE_MAX: Duration = Duration::from_secs(30);

/// The least time between two answers to a guest that deflates its balloon in need again and again between two ticks.
const NEED_INTERVAL: Duration = Duration::from_millis(250);

/// A value and when it came.
#[derive(Debug, Clone)]
pub struct Sampled<T> {
    /// The value.
    pub value: T,
    /// When.
    pub at: Instant,
}

impl<T> Sampled<T> {
    /// Its age, milliseconds.
    #[must_use]
    pub fn age_ms(&self, now: Instant) -> u64 {
        age_ms(self.at, now)
    }
}

/// The time from one moment to a later one, milliseconds.
#[must_use]
pub fn age_ms(at: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX)
}

/// A registered guest.
#[derive(Debug)]
pub struct Guest {
    /// Its registration number: an earlier guest of the same name had another one.
    pub seq: GuestSeq,
    /// Its registration.
    pub about: Register,
    /// Process of its `vmm`.
    pub pid: i32,
    /// Owner id of its container.
    pub owner: u16,
    /// Owner ids that it was commanded to charge and may still: its frame table can charge no other container.
    pub owners: BTreeSet<u16>,
    /// The last charge command that was sent.
    pub charge_sent: ChargeId,
    /// The last charge command that was carried out.
    pub charge_done: watch::Sender<ChargeId>,
    /// The last scan of its frame table, where totals are not enough.
    pub scan: Option<TableScan>,
    /// True if the next scan is wanted before the last one is old.
    pub scan_wanted: bool,
    /// True while a scan runs.
    pub is_scanned: bool,
    /// Charge commands that were carried out since the last scan began.
    pub charges_unseen: Vec<ChargeDone>,
    /// Its frame table.
    pub frames: Arc<FrameReader>,
    /// Its balloon as reported last.
    pub balloon: Sampled<Balloon>,
    /// Its own statistics as reported last.
    pub statistics: Option<Sampled<Statistics>>,
    /// The host's page cache of its disks as reported last.
    pub disk_cache: DiskCache,
    /// What it costs the host.
    pub figures: Figures,
    /// What it held when the host's figures were read last, bytes.
    pub held_with_host_bytes: u64,
    /// Whether its table is trusted.
    pub cross_check: CrossCheck,
    /// Descriptors and threads of its `vmm` as counted last.
    pub process: Option<ProcessObjects>,
    /// What it used lately by the kernel's monitor, bytes; as read last.
    pub working_set: Option<Sampled<u64>>,
    /// What the kernel merges of it as read last.
    pub merge: Option<Sampled<Merged>>,
    /// Messages to its `vmm`.
    pub outbox: mpsc::Sender<ToVmm>,
    /// What it was asked last, bytes.
    pub sent_target_bytes: Option<u64>,
    /// The rule behind that.
    pub target_reason: String,
    /// True while it is paused, because the host starves.
    pub paused: bool,
    /// What the policy remembers of it.
    pub memory: GuestMemory,
    /// When it last deflated its balloon because it was out of memory; `None` when that is over.
    pub out_of_memory_at: Option<Instant>,
    /// Comparisons of its table that were answered.
    pub reconciled: watch::Sender<u64>,
    /// What its comparisons may cost, as sent last, parts per million of one CPU.
    pub sent_cpu_ppm: Option<u32>,
    /// The number of descriptors that are left for it, as sent last.
    pub sent_fds_max: Option<u32>,
    /// Why its machine does not answer, and since when; `None` while it does.
    pub stuck: Option<Sampled<String>>,
    /// When it registered.
    pub registered_at: Instant,
    /// Events that it may cause.
    pub event_bucket: EventBucket,
    /// When its need was last answered at once.
    pub answered_need_at: Option<Instant>,
    /// Messages to its `vmm` about granules of managed images; `None` while it does not ask for any.
    pub pool_outbox: Option<mpsc::Sender<ToVmm>>,
}

impl Guest {
    /// A guest that registers now, in the container with this owner id, and the owner ids that its frames may have.
    #[must_use]
    pub fn new(
        seq: GuestSeq,
        about: Register,
        pid: i32,
        (owner, owners): (u16, BTreeSet<u16>),
        frames: Arc<FrameReader>,
        outbox: mpsc::Sender<ToVmm>,
        now: Instant,
    ) -> Self {
        // A guest that runs already has the target that it was left with: it moves to its share from there.
        let runs_already = about.comes_back || about.machine.is_some_and(|machine| machine.attached);
        let target_bytes = runs_already.then_some(about.balloon.target_bytes);
        Self {
            seq,
            pid,
            owner,
            owners,
            charge_sent: ChargeId(0),
            charge_done: watch::Sender::new(ChargeId(0)),
            scan: None,
            scan_wanted: false,
            is_scanned: false,
            charges_unseen: vec![],
            frames,
            balloon: Sampled { value: about.balloon.clone(), at: now },
            statistics: None,
            disk_cache: DiskCache::default(),
            figures: Figures::of_engine(about.engine),
            held_with_host_bytes: 0,
            cross_check: CrossCheck::of_engine(about.engine),
            stuck: None,
            process: None,
            merge: None,
            working_set: None,
            outbox,
            sent_target_bytes: None,
            target_reason: String::new(),
            paused: false,
            memory: GuestMemory { target_bytes, ..GuestMemory::default() },
            out_of_memory_at: None,
            reconciled: watch::Sender::new(0),
            sent_cpu_ppm: None,
            sent_fds_max: None,
            registered_at: now,
            event_bucket: EventBucket::new(now),
            answered_need_at: None,
            pool_outbox: None,
            about,
        }
    }

    /// Takes a report on the balloon. True if the guest deflated it in need.
    pub fn take_balloon(&mut self, balloon: Balloon, now: Instant) -> bool {
        let in_need = balloon.oom_deflates > self.balloon.value.oom_deflates;
        if in_need {
            self.out_of_memory_at = Some(now);
        }
        self.balloon = Sampled { value: balloon, at: now };
        in_need
    }

    /// Whether its need is to be answered at once; the next tick answers in any case. The guest has what it took
    /// already, so no time is lost, while the cost of a new decision grows with the number of guests and containers.
    pub fn answer_need(&mut self, now: Instant) -> bool {
        let due = self.answered_need_at.is_none_or(|at| now.duration_since(at) >= NEED_INTERVAL);
        if due {
            self.answered_need_at = Some(now);
        }
        due
    }

    /// What it uses by fresh statistics, bytes.
    #[must_use]
    pub fn used_bytes(&self, now: Instant) -> Option<u64> {
        let statistics = self.policy_statistics(now)?;
        (statistics.age_ms <= STATISTICS_AGE_MS_MAX).then_some(statistics.used_bytes)
    }

    /// What it used lately by the kernel's monitor, unless that is old.
    #[must_use]
    pub fn working_set(&self, now: Instant) -> Option<&Sampled<u64>> {
        let is_fresh =
            |sample: &&Sampled<u64>| now.saturating_duration_since(sample.at) <= WORKING_SET_AGE_MAX;
        self.working_set.as_ref().filter(is_fresh)
    }

    /// Its statistics as the policy sees them, however old; `None` if they do not contain its memory and what is
    /// available.
    fn policy_statistics(&self, now: Instant) -> Option<GuestStatistics> {
        let sample = self.statistics.as_ref()?;
        let report = &sample.value;
        let (total, available) = (report.total_memory_bytes?, report.available_memory_bytes?);
        Some(GuestStatistics {
            age_ms: sample.age_ms(now).saturating_add(report.age_ms),
            sequence: report.sequence,
            used_bytes: total.saturating_sub(available).saturating_sub(report.ballooned_used_bytes),
            available_bytes: available,
            cache_bytes: report.disk_caches_bytes.unwrap_or(0),
            working_set_bytes: self.working_set(now).map(|sample| sample.value),
            counters: Counters {
                oom_kills: report.oom_kills.unwrap_or(0),
                alloc_stalls: report.alloc_stalls.unwrap_or(0),
                direct_scans: report.direct_scans.unwrap_or(0),
                direct_reclaims: report.direct_reclaims.unwrap_or(0),
                major_faults: report.major_faults.unwrap_or(0),
                swap_in_bytes: report.swap_in_bytes.unwrap_or(0),
            },
        })
    }

    /// Whether it is out of memory, for the policy.
    #[must_use]
    pub fn out_of_memory(&self, now: Instant) -> OutOfMemory {
        let actual_bytes = self.balloon.value.actual_bytes;
        match self.out_of_memory_at {
            None => OutOfMemory::No,
            Some(at) if now.saturating_duration_since(at) < OUT_OF_MEMORY_HOLD => {
                OutOfMemory::Holding { actual_bytes }
            }
            Some(_) => OutOfMemory::Returning { actual_bytes },
        }
    }

    /// The guest as the policy sees it, attached to the container at this place of the observation.
    #[must_use]
    pub fn view(&self, container: usize, now: Instant) -> GuestView {
        let totals = self.frames.totals();
        GuestView {
            name: self.about.name.clone(),
            container,
            ram_bytes: self.about.ram_bytes,
            floor_bytes: self.about.floor_bytes,
            overhead_bytes: self.figures.reserved_bytes(),
            usage_bytes: self.figures.ram_bytes(&totals),
            actual_bytes: self.balloon.value.actual_bytes,
            refaulted_bytes: totals.refaults.saturating_mul(FRAME_BYTES),
            has_balloon: self.about.has_balloon,
            driver_ready: self.balloon.value.driver_ready,
            statistics: self.policy_statistics(now),
            out_of_memory: self.out_of_memory(now),
            ceiling: None,
            memory: self.memory,
        }
    }

    /// True if it was commanded to charge a container and did not confirm that yet.
    #[must_use]
    pub fn charge_pending(&self) -> bool {
        *self.charge_done.borrow() < self.charge_sent
    }

    /// A scan of its frame table that is due, where totals are not enough: which containers are charged for its
    /// frames if it ever charged more than one, in how many blocks the frames lie under zones. One scan at a time.
    pub fn scan_due(&mut self, accounting: System, guests: usize, now: Instant) -> Option<DueScan> {
        let wanted = accounting == System::Zones || self.owners.len() > 1;
        let is_old = || self.scan.as_ref().is_none_or(|scan| scan.is_old(guests, now));
        if self.is_scanned || !(self.scan_wanted || wanted && is_old()) {
            return None;
        }
        self.is_scanned = true;
        self.scan_wanted = false;
        Some(DueScan {
            guest: self.seq,
            frames: Arc::clone(&self.frames),
            charges_done: std::mem::take(&mut self.charges_unseen),
        })
    }

    /// Forgets owners that none of its frames has any more, and returns them. The one that it charges now stays, and
    /// so do all while a charge command is on its way.
    pub fn forget_owners(&mut self, charging: u16) -> Vec<u16> {
        let Some(scan) = self.scan.as_ref().filter(|_| self.owners.len() > 1 && !self.charge_pending())
        else {
            return vec![];
        };
        let gone = |owner: &u16| {
            *owner != self.owner && *owner != charging && !scan.private_bytes.contains_key(owner)
        };
        let gone: Vec<u16> = self.owners.iter().copied().filter(gone).collect();
        self.owners.retain(|owner| !gone.contains(owner));
        gone
    }

    /// Host memory behind its RAM as it is most likely now, bytes: what it released since the kernel's figure was
    /// read is not in it. No more than [`Figures::ram_bytes`], which counts for everything that it gains by.
    #[must_use]
    pub fn held_likely_bytes(&self) -> u64 {
        let totals = self.frames.totals();
        let released = self
            .figures
            .reading()
            .map_or(0, |reading| reading.table.private_bytes().saturating_sub(table_bytes(&totals)));
        self.figures.ram_bytes(&totals).saturating_sub(released).max(table_bytes(&totals))
    }

    /// What is known of its memory, for the accounting. The resident set and the images in it are of one reading; of
    /// the table the newest figure counts if it is larger.
    #[must_use]
    pub fn reading(&self, accounting: System) -> GuestReading {
        let (kernel, images, scan) = (self.figures.kernel(), self.figures.images(), self.scan.as_ref());
        let elsewhere = |scan: &TableScan| {
            let is_other = |owner: &u16| *owner != self.owner && self.owners.contains(owner);
            scan.private_bytes
                .iter()
                .filter(|(owner, _)| is_other(owner))
                .map(|(o, bytes)| (*o, *bytes))
                .collect()
        };
        GuestReading {
            owner: self.owner,
            resident_bytes: kernel.map(|kernel| kernel.resident_bytes),
            beside_bytes: kernel.map_or(0, |kernel| kernel.page_tables_bytes),
            table_bytes: table_bytes(&self.frames.totals()),
            // Also of a table that is not trusted: it charges only containers that it may charge, and an event tells
            // the operator (`table_disagrees`).
            table_elsewhere_bytes: scan.map_or_else(BTreeMap::new, elsewhere),
            pool_bytes: images.pool.bytes_max,
            images_bytes: images.all.bytes_max,
            error_bytes: match accounting {
                System::Rss => images.pool.doubt_bytes(),
                _ => images.all.bytes_max.saturating_sub(images.pool.known_bytes),
            },
            blocks_used: scan.map(|scan| scan.blocks_used),
            ram_bytes: self.frames.ram_bytes(),
        }
    }

    /// What it is known to have touched since the last scan: only the next scan shows which container is charged for
    /// it. Bytes.
    #[must_use]
    pub fn touched_since_scan(&self) -> u64 {
        let scanned =
            |scan: &TableScan| scan.private_bytes.values().fold(0u64, |sum, b| sum.saturating_add(*b));
        table_bytes(&self.frames.totals()).saturating_sub(self.scan.as_ref().map_or(0, scanned))
    }

    /// The kernel's objects that it takes. Of descriptors and threads, the larger of what its `vmm` reported and what
    /// the kernel counts: right after the launch those that are reported are not there yet.
    #[must_use]
    pub fn objects(&self) -> ObjectCounts {
        objects(&self.about, self.process)
    }

    /// Age of what was counted of that, milliseconds.
    #[must_use]
    pub fn objects_age_ms(&self, now: Instant) -> Option<u64> {
        Some(age_ms(self.process?.at, now))
    }

    /// Puts a message for its `vmm` into the outbox. False if that is full: what matters is sent again with the next
    /// tick.
    pub fn send(&self, message: ToVmm) -> bool {
        self.outbox.try_send(message).is_ok()
    }

    /// Adds an event that the guest caused, unless it caused too many.
    pub fn event(&mut self, events: &mut Events, kind: &str, detail: &str, now: Instant) {
        let Some(dropped) = self.event_bucket.take(now) else { return };
        let (name, container) = (Some(self.about.name.as_str()), Some(&self.about.container));
        if dropped > 0 {
            let detail = format!("{dropped} events of this guest came too fast and are not shown");
            events.push("events_dropped", name, container, &detail);
        }
        events.push(kind, name, container, detail);
    }
}

/// The kernel's objects of a guest with this registration, of which this was counted.
pub fn objects(about: &Register, process: Option<ProcessObjects>) -> ObjectCounts {
    ObjectCounts {
        vcpus: about.cpus.into(),
        guests: 1,
        devices: about.devices.into(),
        fds: about.fds.max(process.map_or(0, |process| process.fds)).into(),
        threads: about.threads.max(process.map_or(0, |process| process.threads)).into(),
    }
}

#[cfg(test)]
#[path = "guest_test.rs"]
mod tests;
