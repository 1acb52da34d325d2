//! One registered guest.

use super::budget::Budget;
use super::cross_check::CrossCheck;
use super::disk_cache::DiskCache;
use super::figures::{Figures, table_bytes};
use super::look::{CarriedOut, Look, Looking};
use super::process::ProcessObjects;
use super::reading::Reading;
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

/// A guest that is to be watched, or was read: its session, its process, its RAM in bytes.
pub type Watchable = (u64, i32, u64);

/// After it ran out of memory a guest keeps what it holds for so long.
const OUT_OF_MEMORY_HOLD: Duration = Duration::from_secs(30);

/// A working set that was read longer ago says nothing. It is read every six seconds or so.
const WORKING_SET_AGE_MAX: Duration = Duration::from_secs(30);

/// A guest that takes memory back in need again and again is answered at most so often between two turns.
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
    /// A value of now.
    pub fn now(value: T) -> Self {
        Self { value, at: Instant::now() }
    }

    /// Age, milliseconds.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A registered guest.
#[derive(Debug)]
pub struct Guest {
    /// Tells this session from an earlier one of the same name.
    pub session: u64,
    /// What it said of itself.
    pub about: Register,
    /// Process of its `vmm`.
    pub pid: i32,
    /// Owner id of its container.
    pub owner: u16,
    /// Owner ids that it was told to charge and may still: its frame table can charge nobody else.
    pub owners: BTreeSet<u16>,
    /// Orders to charge somebody that were sent.
    pub orders: u64,
    /// The last of them that was carried out.
    pub carried_out: watch::Sender<u64>,
    /// The last look at all of its frames, where totals do not tell enough.
    pub look: Option<Look>,
    /// True if the next look is wanted before the last one is old.
    pub look_wanted: bool,
    /// True while somebody looks.
    pub is_looked_at: bool,
    /// Orders that were carried out since the last look began.
    pub unseen: Vec<CarriedOut>,
    /// Its frame table.
    pub frames: Arc<FrameReader>,
    /// Its balloon as told last.
    pub balloon: Sampled<Balloon>,
    /// Its own statistics as told last.
    pub statistics: Option<Sampled<Statistics>>,
    /// The host's page cache of its disks as told last.
    pub disk_cache: DiskCache,
    /// What it costs the host.
    pub figures: Figures,
    /// What it held when the host's figures were read last, bytes.
    pub held_with_host_bytes: u64,
    /// Whether its table is to be believed.
    pub cross_check: CrossCheck,
    /// Descriptors and threads of its `vmm` as counted last.
    pub process: Option<ProcessObjects>,
    /// What it used lately by the kernel's word, bytes; as read last.
    pub working_set: Option<Sampled<u64>>,
    /// What the kernel merges of it as read last.
    pub merge: Option<Sampled<Merged>>,
    /// Messages to its `vmm`.
    pub outbox: mpsc::Sender<ToVmm>,
    /// What it was asked last, bytes.
    pub sent_target_bytes: Option<u64>,
    /// The rule behind that.
    pub target_reason: String,
    /// It was told to stand still, because the host starves.
    pub paused: bool,
    /// What the policy remembers of it.
    pub memory: GuestMemory,
    /// When it last took memory back because it was out of memory; `None` when that is over.
    pub out_of_memory_at: Option<Instant>,
    /// Comparisons of its table that were answered.
    pub reconciled: watch::Sender<u64>,
    /// What it was told last that its comparisons may cost, parts per million of one CPU.
    pub sent_cpu_ppm: Option<u32>,
    /// What it was told last of descriptors that are left for it.
    pub sent_fds_max: Option<u32>,
    /// Why its machine does not answer, and since when; `None` while it does.
    pub stuck: Option<Sampled<String>>,
    /// When it registered.
    pub registered_at: Instant,
    /// Events that it may cause.
    pub budget: Budget,
    /// When its need was last answered at once.
    pub answered_need_at: Option<Instant>,
    /// Messages to its `vmm` about granules of managed images; `None` while it does not ask for any.
    pub pool_outbox: Option<mpsc::Sender<ToVmm>>,
}

impl Guest {
    /// Takes a report on the balloon. True if it tells of memory taken back in need.
    pub fn take_balloon(&mut self, balloon: Balloon) -> bool {
        let in_need = balloon.oom_deflates > self.balloon.value.oom_deflates;
        if in_need {
            self.out_of_memory_at = Some(Instant::now());
        }
        self.balloon = Sampled::now(balloon);
        in_need
    }

    /// Whether its need is to be answered at once; the next turn answers in any case. The guest has what it took
    /// already, so no time is lost, while deciding anew costs as much as there are guests and containers.
    pub fn answer_need(&mut self) -> bool {
        let now = Instant::now();
        let due = self.answered_need_at.is_none_or(|at| now.duration_since(at) >= NEED_INTERVAL);
        if due {
            self.answered_need_at = Some(now);
        }
        due
    }

    /// What it uses by fresh statistics, bytes.
    #[must_use]
    pub fn used_bytes(&self) -> Option<u64> {
        let statistics = self.policy_statistics()?;
        (statistics.age_ms <= STATISTICS_AGE_MS_MAX).then_some(statistics.used_bytes)
    }

    /// What it used lately by the kernel's word, as long as that is not old.
    #[must_use]
    pub fn working_set(&self) -> Option<&Sampled<u64>> {
        self.working_set.as_ref().filter(|sample| sample.at.elapsed() <= WORKING_SET_AGE_MAX)
    }

    /// Its statistics as the policy sees them, however old; `None` if it does not tell what it has and what is
    /// available.
    fn policy_statistics(&self) -> Option<GuestStatistics> {
        let sample = self.statistics.as_ref()?;
        let told = &sample.value;
        let (total, available) = (told.total_memory_bytes?, told.available_memory_bytes?);
        Some(GuestStatistics {
            age_ms: sample.age_ms().saturating_add(told.age_ms),
            sequence: told.sequence,
            used_bytes: total.saturating_sub(available).saturating_sub(told.ballooned_used_bytes),
            available_bytes: available,
            cache_bytes: told.disk_caches_bytes.unwrap_or(0),
            working_set_bytes: self.working_set().map(|sample| sample.value),
            counters: Counters {
                oom_kills: told.oom_kills.unwrap_or(0),
                alloc_stalls: told.alloc_stalls.unwrap_or(0),
                direct_scans: told.direct_scans.unwrap_or(0),
                direct_reclaims: told.direct_reclaims.unwrap_or(0),
                major_faults: told.major_faults.unwrap_or(0),
                swap_in_bytes: told.swap_in_bytes.unwrap_or(0),
            },
        })
    }

    /// Whether it is out of memory, for the policy.
    #[must_use]
    pub fn out_of_memory(&self) -> OutOfMemory {
        let actual_bytes = self.balloon.value.actual_bytes;
        match self.out_of_memory_at {
            None => OutOfMemory::No,
            Some(at) if at.elapsed() < OUT_OF_MEMORY_HOLD => OutOfMemory::Holding { actual_bytes },
            Some(_) => OutOfMemory::Returning { actual_bytes },
        }
    }

    /// The guest as the policy sees it, attached to the container at this place of the observation.
    #[must_use]
    pub fn view(&self, container: usize) -> GuestView {
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
            statistics: self.policy_statistics(),
            out_of_memory: self.out_of_memory(),
            ceiling: None,
            memory: self.memory,
        }
    }

    /// True if it was ordered to charge somebody and did not say yet that it does.
    #[must_use]
    pub fn order_pending(&self) -> bool {
        *self.carried_out.borrow() < self.orders
    }

    /// A look at all of its frames that is due, where totals do not tell enough: whose they are if it ever charged
    /// more than one container, in how many blocks they lie under zones. One at a time.
    pub fn look_due(&mut self, accounting: System, guests: usize) -> Option<Looking> {
        let wanted = accounting == System::Zones || self.owners.len() > 1;
        let is_old = || self.look.as_ref().is_none_or(|look| look.is_old(guests));
        if self.is_looked_at || !(self.look_wanted || wanted && is_old()) {
            return None;
        }
        self.is_looked_at = true;
        self.look_wanted = false;
        Some(Looking {
            guest: self.about.name.clone(),
            session: self.session,
            frames: Arc::clone(&self.frames),
            carried_out: std::mem::take(&mut self.unseen),
        })
    }

    /// Forgets owners that none of its frames has any more, and returns them. What it charges now stays, and so does
    /// everything while an order is on its way.
    pub fn forget_owners(&mut self, charging: u16) -> Vec<u16> {
        let Some(look) = self.look.as_ref().filter(|_| self.owners.len() > 1 && !self.order_pending()) else {
            return vec![];
        };
        let gone = |owner: &u16| {
            *owner != self.owner && *owner != charging && !look.private_bytes.contains_key(owner)
        };
        let gone: Vec<u16> = self.owners.iter().copied().filter(gone).collect();
        self.owners.retain(|owner| !gone.contains(owner));
        gone
    }

    /// Reads its table and the kernel's figures of its processes, and takes both into account. Nothing happens when a
    /// process is gone.
    pub fn read_memory(&mut self) {
        let reading = Reading::take(&self.frames, &self.about.images, self.pid, self.about.machine);
        if let Some(reading) = reading {
            self.figures.update(reading);
        }
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
        let (kernel, images, look) = (self.figures.kernel(), self.figures.images(), self.look.as_ref());
        let elsewhere = |look: &Look| {
            let told = |owner: &u16| *owner != self.owner && self.owners.contains(owner);
            look.private_bytes
                .iter()
                .filter(|(owner, _)| told(owner))
                .map(|(o, bytes)| (*o, *bytes))
                .collect()
        };
        GuestReading {
            owner: self.owner,
            resident_bytes: kernel.map(|kernel| kernel.resident_bytes),
            beside_bytes: kernel.map_or(0, |kernel| kernel.page_tables_bytes),
            table_bytes: table_bytes(&self.frames.totals()),
            // Also of a table that is not trusted: it charges only containers that it was told to, and whoever runs the
            // host hears of it (`table_disagrees`).
            table_elsewhere_bytes: look.map_or_else(BTreeMap::new, elsewhere),
            pool_bytes: images.pool.bytes_max,
            images_bytes: images.all.bytes_max,
            error_bytes: match accounting {
                System::Rss => images.pool.doubt_bytes(),
                _ => images.all.bytes_max.saturating_sub(images.pool.known_bytes),
            },
            blocks_used: look.map(|look| look.blocks_used),
            ram_bytes: self.frames.ram_bytes(),
        }
    }

    /// What it is known to have touched since the last scan of its frames: only the next scan says which container is
    /// charged. Bytes.
    #[must_use]
    pub fn touched_since_look(&self) -> u64 {
        let looked = |look: &Look| look.private_bytes.values().fold(0u64, |sum, b| sum.saturating_add(*b));
        table_bytes(&self.frames.totals()).saturating_sub(self.look.as_ref().map_or(0, looked))
    }

    /// The kernel's objects that it takes. Of descriptors and threads the larger of what its `vmm` told and what the
    /// kernel counts: right after the launch those that are told are not there yet.
    #[must_use]
    pub fn objects(&self) -> ObjectCounts {
        objects(&self.about, self.process)
    }

    /// Age of what was counted of that, milliseconds.
    #[must_use]
    pub fn objects_age_ms(&self) -> Option<u64> {
        let age = self.process?.at.elapsed();
        Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }

    /// Says something to its `vmm`. False if that does not listen: what matters is said again at the next tick.
    pub fn say(&self, message: ToVmm) -> bool {
        self.outbox.try_send(message).is_ok()
    }
}

/// The kernel's objects of a guest that says this of itself, and has so many.
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
