//! The interface of a machine to its control, whichever hypervisor runs it.

use event_manager::EventOps;
use protocol::message::{Balloon, Statistics};
use std::time::Duration;

/// A change in a guest that the balancer wants to know.
#[derive(Debug, Clone, PartialEq)]
pub enum GuestUpdate {
    /// The balloon moved, or its driver came or went.
    Balloon(Balloon),
    /// The guest deflated its balloon because it was out of memory. The machine has moved the target with it: otherwise
    /// the guest would have to give the same memory again while it still needs it.
    OutOfMemory,
    /// A fresh sample of the guest's statistics.
    Statistics(Box<Statistics>),
    /// The machine does not answer, and why; `None` once it answers again.
    Stuck(Option<String>),
}

/// A running machine.
pub trait Machine {
    /// Time between two readings of [`Machine::overhead_bytes`], on which a limit without a balancer depends; `None` if
    /// it does not change.
    const OVERHEAD_INTERVAL: Option<Duration>;

    /// Waits for the events of the machine. They carry numbers from `base` on.
    fn watch(&self, ops: &mut EventOps<'_>, base: u32);

    /// Serves one of these events, counted from 0, and returns what changed, in order.
    fn serve(&mut self, event: u32) -> Vec<GuestUpdate>;

    /// The state of the balloon now.
    fn balloon(&self) -> Balloon;

    /// RAM of the guest, bytes.
    fn ram_bytes(&self) -> u64;

    /// Asks the guest to hold at most this much of its RAM. Bytes.
    fn set_target(&mut self, target_bytes: u64);

    /// Asks for a fresh sample of the guest's statistics, which follows as an update. An update that is known at once
    /// is returned.
    fn sample(&mut self) -> Option<GuestUpdate>;

    /// Pauses or resumes the vCPUs.
    fn set_paused(&mut self, paused: bool);

    /// Bounds the descriptors of the process that runs the machine; `None` for no limit but the system's.
    fn set_fds_max(&mut self, fds_max: Option<u32>);

    /// Detaches from a machine that another program started, and restores its original settings.
    fn detach(&mut self);

    /// Memory that counts against a limit in addition to guest RAM, as far as the limit was not reduced by it already.
    /// Bytes.
    fn overhead_bytes(&self) -> u64;
}
