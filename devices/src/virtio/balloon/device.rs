//! The balloon as a virtio device: features, configuration, which queue does what, statistics on request.

use super::config::Config;
use super::events::Events;
use super::inflate::Direction;
use super::oom::OomWatch;
use super::stats::BUFFER_BYTES_MAX;
use super::{
    BalloonBackend, BalloonCounters, BalloonEvent, BalloonStats, DEFLATE_QUEUE, FrameRun, INFLATE_QUEUE,
    Outcome, STATS_QUEUE, StatsSample, feature,
};
use crate::DeviceMemory;
use crate::virtio::VirtioDevice;
use crate::virtio::buffers::Buffers;
use crate::virtio::queue::{BrokenQueue, QueueOutcome, pop, push, settled};
use std::fmt;
use std::time::Instant;
use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use virtio_queue::Queue;

/// Entries of the queues by number. Linux reports with 32 descriptors at once and needs as many entries.
const QUEUE_SIZES: [u16; 5] = [128, 128, 16, 128, 128];

/// What is offered to the driver. Telling the host before pages are used again always is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalloonOptions {
    /// The driver may take pages back rather than kill a process.
    pub deflate_on_oom: bool,
    /// The driver reports free pages.
    pub free_page_reporting: bool,
    /// The driver sends statistics.
    pub stats: bool,
}

/// The statistics buffer: which side has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StatsTurn {
    /// The driver has not sent its first buffer.
    #[default]
    Unprimed,
    /// The host holds the buffer of chain `head`.
    Held { head: u16 },
    /// The host is about to give the buffer back.
    Returning { head: u16 },
    /// The driver has the buffer and is filling it.
    Asked,
}

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Pfns(Direction),
    Stats,
    Reporting,
    None,
}

/// A balloon.
pub struct Balloon {
    pub(super) backend: Box<dyn BalloonBackend>,
    pub(super) counters: BalloonCounters,
    /// The list of the last event, kept for its memory.
    pub(super) pfns: Vec<u32>,
    pub(super) oom: OomWatch,
    options: BalloonOptions,
    ram_frames: u64,
    config: Config,
    /// Features of the driver, once it is ready.
    negotiated: Option<u64>,
    events: Events,
    turn: StatsTurn,
    sample: Option<StatsSample>,
    samples: u64,
}

impl Balloon {
    /// A balloon for a guest of `ram_frames` frames of RAM, with a target of 0.
    pub fn new(ram_frames: u64, backend: Box<dyn BalloonBackend>, options: BalloonOptions) -> Self {
        Self {
            backend,
            counters: BalloonCounters::default(),
            pfns: Vec::new(),
            oom: OomWatch::default(),
            options,
            ram_frames,
            config: Config::default(),
            negotiated: None,
            events: Events::default(),
            turn: StatsTurn::default(),
            sample: None,
            samples: 0,
        }
    }

    /// Asks the driver to hold `ballooned_frames`, or all frames of RAM if that is less. True when that is new: the
    /// transport's `config_changed` is to be called then.
    pub fn set_target(&mut self, ballooned_frames: u32) -> bool {
        let most = u32::try_from(self.ram_frames).unwrap_or(u32::MAX);
        let target = ballooned_frames.min(most);
        if target == self.config.target {
            return false;
        }
        self.oom.target_changed(self.config.target, target, self.held_frames());
        self.config.target = target;
        true
    }

    /// Frames that the driver is asked to hold.
    pub fn target_frames(&self) -> u32 {
        self.config.target
    }

    /// Frames that the driver says it holds. The driver may lie: nothing may depend on it.
    pub fn actual_frames(&self) -> u32 {
        self.config.actual
    }

    /// Frames that the host itself counts as ballooned.
    pub fn held_frames(&self) -> u64 {
        self.backend.ballooned_frames()
    }

    /// Asks for statistics. True when the driver's buffer is here and goes back with the next queue event of
    /// [`STATS_QUEUE`]; false when the driver has none to fill: there are no statistics, or it still owes an answer.
    pub fn request_stats(&mut self) -> bool {
        match self.turn {
            StatsTurn::Held { head } => {
                self.turn = StatsTurn::Returning { head };
                true
            }
            StatsTurn::Returning { .. } => true,
            StatsTurn::Unprimed | StatsTurn::Asked => false,
        }
    }

    /// The latest statistics, if the driver has sent any.
    pub fn stats(&self) -> Option<&StatsSample> {
        self.sample.as_ref()
    }

    /// A driver is ready and follows the target.
    pub fn driver_ready(&self) -> bool {
        self.negotiated.is_some()
    }

    /// What happened since the last call, in order.
    pub fn take_events(&mut self) -> Vec<BalloonEvent> {
        self.events.take()
    }

    /// What went through.
    pub fn counters(&self) -> &BalloonCounters {
        &self.counters
    }

    pub(super) fn event(&mut self, event: BalloonEvent) {
        if !self.events.push(event) {
            self.counters.dropped_events += 1;
        }
    }

    /// Counts a call to the backend.
    pub(super) fn count(&mut self, runs: &[FrameRun], outcome: &Outcome) {
        self.counters.batches += 1;
        self.counters.runs += runs.len() as u64;
        self.counters.repeated_frames += outcome.repeated_frames;
        self.counters.freed_bytes += outcome.freed_bytes;
    }

    /// The driver takes frames back when the guest is out of memory; Linux then counts the balloon as used memory.
    pub fn deflates_on_oom(&self) -> bool {
        self.negotiated(feature::DEFLATE_ON_OOM)
    }

    fn negotiated(&self, bit: u32) -> bool {
        self.negotiated.is_some_and(|features| features & 1 << bit != 0)
    }

    /// What queue `index` is for, by the table in the head of the module.
    fn role(&self, index: usize) -> Role {
        match index {
            INFLATE_QUEUE => Role::Pfns(Direction::Inflate),
            DEFLATE_QUEUE => Role::Pfns(Direction::Deflate),
            STATS_QUEUE if self.negotiated(feature::STATS_VQ) => Role::Stats,
            _ if self.negotiated(feature::PAGE_REPORTING) => Role::Reporting,
            _ => Role::None,
        }
    }

    /// Gives the buffer back if that was asked for, and takes what the driver sent.
    fn process_stats(&mut self, mem: &DeviceMemory, queue: &mut Queue) -> QueueOutcome {
        let mut used = 0;
        if let StatsTurn::Returning { head } = self.turn {
            self.turn = StatsTurn::Asked;
            if push(mem, queue, head, 0).is_err() {
                return QueueOutcome::BROKEN;
            }
            used += 1;
        }
        // As many as the queue holds: the driver has one buffer, so all but one are a mistake of it.
        for _ in 0..QUEUE_SIZES[STATS_QUEUE] {
            let chain = match pop(mem, queue) {
                Ok(Some(chain)) => chain,
                Ok(None) => break,
                Err(BrokenQueue) => return QueueOutcome::BROKEN,
            };
            let head = chain.head_index();
            if let StatsTurn::Held { head: previous } = self.turn {
                self.counters.unasked_stats += 1;
                if push(mem, queue, previous, 0).is_err() {
                    return QueueOutcome::BROKEN;
                }
                used += 1;
            }
            match Buffers::of(mem, chain) {
                Ok(mut buffers) if buffers.writable.is_empty() => {
                    let mut bytes = [0; BUFFER_BYTES_MAX];
                    let count = buffers.readable.read(&mut bytes);
                    self.sample(&bytes[..count]);
                }
                _ => self.counters.bad_chains += 1,
            }
            self.turn = StatsTurn::Held { head };
        }
        settled(mem, queue, used)
    }

    /// Takes the contents of a buffer for a sample if it was asked for. Others are of no known age.
    fn sample(&mut self, bytes: &[u8]) {
        if self.turn != StatsTurn::Asked {
            return;
        }
        let (stats, unknown) = BalloonStats::decode(bytes);
        self.counters.unknown_stats += unknown;
        self.samples += 1;
        self.sample = Some(StatsSample { stats, at: Instant::now(), sequence: self.samples });
        self.event(BalloonEvent::StatsUpdated);
    }
}

impl VirtioDevice for Balloon {
    fn id(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        1 << feature::MUST_TELL_HOST
            | u64::from(self.options.stats) << feature::STATS_VQ
            | u64::from(self.options.deflate_on_oom) << feature::DEFLATE_ON_OOM
            | u64::from(self.options.free_page_reporting) << feature::PAGE_REPORTING
    }

    fn queue_sizes(&self) -> &[u16] {
        match self.options {
            BalloonOptions { free_page_reporting: true, .. } => &QUEUE_SIZES,
            BalloonOptions { stats: true, .. } => &QUEUE_SIZES[..=STATS_QUEUE],
            _ => &QUEUE_SIZES[..=DEFLATE_QUEUE],
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) -> bool {
        let before = self.config.actual;
        let written = self.config.write(offset, data);
        if self.config.actual != before {
            self.event(BalloonEvent::ActualChanged { frames: self.config.actual });
        }
        written
    }

    fn activate(&mut self, features: u64) {
        self.negotiated = Some(features);
        self.event(BalloonEvent::DriverReady { features });
    }

    fn process_queue(&mut self, mem: &DeviceMemory, index: usize, queue: &mut Queue) -> QueueOutcome {
        match self.role(index) {
            Role::Pfns(direction) => self.process_pfns(mem, queue, direction),
            Role::Stats => self.process_stats(mem, queue),
            Role::Reporting => self.process_reports(mem, queue),
            Role::None => QueueOutcome::IDLE,
        }
    }

    /// The target stays, it is the host's. What the driver held it has forgotten.
    fn reset(&mut self) {
        self.turn = StatsTurn::default();
        self.sample = None;
        self.config.actual = 0;
        if self.negotiated.take().is_none() {
            // Linux resets a device before it probes it: nothing was lost by that.
            return;
        }
        self.backend.driver_reset();
        self.event(BalloonEvent::DriverReset);
    }
}

impl fmt::Debug for Balloon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balloon")
            .field("config", &self.config)
            .field("held_frames", &self.held_frames())
            .field("negotiated", &self.negotiated)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "balloon_test.rs"]
mod tests;

#[cfg(test)]
#[path = "hostile_test.rs"]
mod hostile_tests;
