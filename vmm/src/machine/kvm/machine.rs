//! The running machine of KVM: its balloon device, the gate of its vCPUs, the limits of this process.

use crate::attached::Attached;
use crate::control::{GuestUpdate, Machine};
use crate::events::queues::Queues;
use crate::objects::FdLimit;
use crate::vcpu::gate::Gate;
use devices::virtio::balloon::{Balloon, BalloonEvent, StatsSample};
use devices::virtio::mmio::VirtioMmio;
use event_manager::EventOps;
use protocol::bytes::FRAME_BYTES;
use protocol::message::{self, Statistics};
use protocol::sync::MutexExt;
use protocol::time::millis;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

const STATS_QUEUE: usize = 2;

/// A machine that this process runs.
pub struct KvmMachine {
    balloon: Attached<Balloon>,
    ram_bytes: u64,
    /// Closed while the guest is paused.
    gate: Arc<Gate>,
    /// Times that the guest deflated its balloon because it was out of memory, since boot.
    oom_deflates: u64,
    /// The last sample that was reported.
    sequence_sent: u64,
    /// The limit on descriptors at the start; `None` if the system refused to report it.
    fd_limit: Option<FdLimit>,
}

impl KvmMachine {
    /// A machine with this balloon, whose vCPUs go through this gate.
    #[must_use]
    pub fn new(balloon: Attached<Balloon>, ram_bytes: u64, gate: Arc<Gate>) -> Self {
        let fd_limit = FdLimit::read().ok();
        Self { balloon, ram_bytes, gate, oom_deflates: 0, sequence_sent: 0, fd_limit }
    }

    fn transport(&self) -> MutexGuard<'_, VirtioMmio<Balloon>> {
        self.balloon.device.acquire()
    }

    fn balloon_of(&self, device: &Balloon) -> message::Balloon {
        balloon(device, self.ram_bytes, self.oom_deflates)
    }
}

impl Machine for KvmMachine {
    // The overhead of this process is measured once, at the launch.
    const OVERHEAD_INTERVAL: Option<Duration> = None;

    fn watch(&self, ops: &mut EventOps<'_>, base: u32) {
        Queues::watch_all(&self.balloon, ops, base);
    }

    /// Serves a queue of the balloon. The device is locked once for the queue and for all that follows from it.
    fn serve(&mut self, event: u32) -> Vec<GuestUpdate> {
        let Self { balloon, ram_bytes, oom_deflates, sequence_sent, .. } = self;
        let after =
            |transport: &mut VirtioMmio<Balloon>| updates(transport, *ram_bytes, oom_deflates, sequence_sent);
        Queues::serve(balloon, event as usize, after).unwrap_or_default()
    }

    fn balloon(&self) -> message::Balloon {
        self.balloon_of(self.transport().device())
    }

    fn ram_bytes(&self) -> u64 {
        self.ram_bytes
    }

    fn set_target(&mut self, target_bytes: u64) {
        let ballooned = self.ram_bytes.saturating_sub(target_bytes).div_ceil(FRAME_BYTES);
        let ballooned = u32::try_from(ballooned).unwrap_or(u32::MAX);
        set_ballooned(&mut self.transport(), ballooned);
    }

    fn sample(&mut self) -> Option<GuestUpdate> {
        let mut transport = self.transport();
        if transport.device_mut().request_stats() {
            transport.queue_event(STATS_QUEUE);
        }
        // No queue event reports a driver that was unloaded.
        let device = transport.device();
        (!device.driver_ready()).then(|| GuestUpdate::Balloon(self.balloon_of(device)))
    }

    fn set_paused(&mut self, paused: bool) {
        self.gate.set_closed(paused);
    }

    fn set_fds_max(&mut self, fds_max: Option<u32>) {
        match self.fd_limit.as_ref().map(|limit| limit.set(fds_max)) {
            Some(Ok(limit)) => tracing::debug!(limit, "The limit on descriptors changed"),
            Some(Err(error)) => tracing::warn!(%error, "Cannot limit the descriptors"),
            None => {}
        }
    }

    fn detach(&mut self) {
        tracing::warn!("The balancer asked to detach a guest that this process runs");
    }

    fn overhead_bytes(&self) -> u64 {
        0
    }
}

/// What changed in the balloon since the last call.
fn updates(
    transport: &mut VirtioMmio<Balloon>,
    ram_bytes: u64,
    oom_deflates: &mut u64,
    sequence_sent: &mut u64,
) -> Vec<GuestUpdate> {
    let mut updates = Vec::new();
    let device = transport.device();
    if let Some(sample) = device.stats().filter(|sample| sample.sequence > *sequence_sent) {
        *sequence_sent = sample.sequence;
        let in_used = if device.deflates_on_oom() { device.held_frames() * FRAME_BYTES } else { 0 };
        updates.push(GuestUpdate::Statistics(Box::new(statistics(sample, in_used))));
    }
    let mut is_moved = false;
    for event in transport.device_mut().take_events() {
        match event {
            BalloonEvent::OomDeflated { .. } => {
                *oom_deflates += 1;
                is_moved = true;
                follow_oom(transport);
                updates.push(GuestUpdate::OutOfMemory);
            }
            BalloonEvent::StatsUpdated => {}
            _ => is_moved = true,
        }
    }
    if is_moved {
        updates.push(GuestUpdate::Balloon(balloon(transport.device(), ram_bytes, *oom_deflates)));
    }
    updates
}

/// The guest was out of memory: the target is not below what it holds now.
fn follow_oom(transport: &mut VirtioMmio<Balloon>) {
    let held = u32::try_from(transport.device().held_frames()).unwrap_or(u32::MAX);
    let target = transport.device().target_frames().min(held);
    set_ballooned(transport, target);
}

fn set_ballooned(transport: &mut VirtioMmio<Balloon>, frames: u32) {
    if transport.device_mut().set_target(frames) {
        transport.config_changed();
    }
}

fn balloon(device: &Balloon, ram_bytes: u64, oom_deflates: u64) -> message::Balloon {
    let held = |frames: u64| ram_bytes.saturating_sub(frames * FRAME_BYTES);
    message::Balloon {
        driver_ready: device.driver_ready(),
        target_bytes: held(u64::from(device.target_frames())),
        actual_bytes: held(device.held_frames()),
        oom_deflates,
    }
}

fn statistics(sample: &StatsSample, ballooned_used_bytes: u64) -> Statistics {
    let stats = &sample.stats;
    Statistics {
        swap_in_bytes: stats.swap_in_bytes,
        swap_out_bytes: stats.swap_out_bytes,
        major_faults: stats.major_faults,
        minor_faults: stats.minor_faults,
        free_memory_bytes: stats.free_memory_bytes,
        total_memory_bytes: stats.total_memory_bytes,
        available_memory_bytes: stats.available_memory_bytes,
        disk_caches_bytes: stats.disk_caches_bytes,
        hugetlb_allocations: stats.hugetlb_allocations,
        hugetlb_failures: stats.hugetlb_failures,
        oom_kills: stats.oom_kill,
        alloc_stalls: stats.alloc_stall,
        async_scans: stats.async_scan,
        direct_scans: stats.direct_scan,
        async_reclaims: stats.async_reclaim,
        direct_reclaims: stats.direct_reclaim,
        ballooned_used_bytes,
        sequence: sample.sequence,
        age_ms: millis(sample.at.elapsed()),
    }
}

#[cfg(test)]
#[path = "machine_test.rs"]
mod tests;
