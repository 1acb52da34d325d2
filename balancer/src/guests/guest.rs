//! One registered guest.

use super::figures::Figures;
use crate::policy::{GuestView, OutOfMemory};
use protocol::frames::FrameReader;
use protocol::message::{Balloon, Register, Statistics, ToVmm};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// A guest's statistics older than this say nothing.
const STATISTICS_AGE_MAX: Duration = Duration::from_secs(5);
/// After it ran out of memory a guest keeps what it holds for so long.
const OUT_OF_MEMORY_HOLD: Duration = Duration::from_secs(30);

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
    /// Its frame table.
    pub frames: Arc<FrameReader>,
    /// Its balloon as told last.
    pub balloon: Sampled<Balloon>,
    /// Its own statistics as told last.
    pub statistics: Option<Sampled<Statistics>>,
    /// What it costs the host.
    pub figures: Figures,
    /// Messages to its `vmm`.
    pub outbox: mpsc::Sender<ToVmm>,
    /// What it was asked last, bytes.
    pub sent_target_bytes: Option<u64>,
    /// The rule behind that.
    pub target_reason: String,
    /// When it last took memory back because it was out of memory; `None` when that is over.
    pub out_of_memory_at: Option<Instant>,
    /// Comparisons of its table that were answered.
    pub reconciled: watch::Sender<u64>,
    /// When a comparison was asked for last.
    pub reconcile_asked_at: Option<Instant>,
    /// When it registered.
    pub registered_at: Instant,
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

    /// What it uses by fresh statistics, bytes.
    #[must_use]
    pub fn used_bytes(&self) -> Option<u64> {
        let sample = self.statistics.as_ref()?;
        let age = sample.at.elapsed() + Duration::from_millis(sample.value.age_ms);
        if age > STATISTICS_AGE_MAX {
            return None;
        }
        let (total, available) = (sample.value.total_memory_bytes?, sample.value.available_memory_bytes?);
        Some(total.saturating_sub(available))
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

    /// The guest as the policy sees it.
    #[must_use]
    pub fn view(&self) -> GuestView {
        GuestView {
            name: self.about.name.clone(),
            container: self.about.container.clone(),
            ram_bytes: self.about.ram_bytes,
            floor_bytes: self.about.floor_bytes,
            overhead_bytes: self.figures.overhead_bytes(),
            used_bytes: self.used_bytes(),
            out_of_memory: self.out_of_memory(),
        }
    }

    /// Says something to its `vmm`. False if that does not listen: what matters is said again at the next tick.
    pub fn say(&self, message: ToVmm) -> bool {
        self.outbox.try_send(message).is_ok()
    }
}
