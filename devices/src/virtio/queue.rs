//! Serving a queue: every popped chain gets its used entry, and one event does a bounded amount of work.

use crate::DeviceMemory;
use std::ops::BitOr;
use std::sync::atomic::{Ordering, fence};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// A descriptor chain in guest RAM.
pub type Chain<'m> = DescriptorChain<&'m DeviceMemory>;

/// What serving a queue came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueOutcome {
    /// The driver is to be interrupted.
    pub interrupt: bool,
    /// Chains are left: serve the queue again.
    pub more: bool,
    /// The rings make no sense. The device needs a reset (virtio 1.3, section 2.1.2).
    pub broken: bool,
}

impl QueueOutcome {
    /// Nothing to do.
    pub const IDLE: Self = Self { interrupt: false, more: false, broken: false };
    /// The rings make no sense.
    pub const BROKEN: Self = Self { interrupt: false, more: false, broken: true };
}

impl BitOr for QueueOutcome {
    type Output = Self;

    /// What came before, followed by `later`: only the latter knows whether work is left.
    fn bitor(self, later: Self) -> Self {
        Self {
            interrupt: self.interrupt || later.interrupt,
            more: later.more,
            broken: self.broken || later.broken,
        }
    }
}

/// The driver's rings are not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenQueue;

/// Takes the next available chain.
///
/// # Errors
/// When the available index ran ahead by more than the queue holds, or names a chain beyond the descriptor table. A
/// driver that does either could otherwise make the device walk the ring forever.
pub fn pop<'m>(mem: &'m DeviceMemory, queue: &mut Queue) -> Result<Option<Chain<'m>>, BrokenQueue> {
    let chain = queue.iter(mem).map_err(|_| BrokenQueue)?.next();
    match chain {
        Some(chain) if chain.head_index() >= queue.size() => Err(BrokenQueue),
        chain => Ok(chain),
    }
}

/// Gives a chain back: `written` bytes of its buffers were filled.
///
/// # Errors
/// When the used ring can't be written or the queue has no such chain.
pub fn push(mem: &DeviceMemory, queue: &mut Queue, head: u16, written: u32) -> Result<(), BrokenQueue> {
    // Checked here because the library reports it through the log, which a guest must not be able to fill.
    if head >= queue.size() {
        return Err(BrokenQueue);
    }
    queue.add_used(mem, head, written).map_err(|_| BrokenQueue)
}

/// The outcome after `used` chains were given back.
pub fn settled(mem: &DeviceMemory, queue: &Queue, used: usize) -> QueueOutcome {
    let Ok(avail) = queue.avail_idx(mem, Ordering::Acquire) else { return QueueOutcome::BROKEN };
    QueueOutcome {
        interrupt: used > 0 && wants_interrupt(mem, queue),
        more: avail.0 != queue.next_avail(),
        broken: false,
    }
}

/// Whether the driver wants to hear of used chains (virtio 1.3, section 2.7.7). Each interrupt that Linux does not
/// want costs it two exits to read and acknowledge it.
fn wants_interrupt(mem: &DeviceMemory, queue: &Queue) -> bool {
    // The used index must be visible before the flag is read: the driver clears the flag first and then looks
    // at the used index once more. One of the two then sees the other.
    fence(Ordering::SeqCst);
    let flags = mem.load::<u16>(GuestAddress(queue.avail_ring()), Ordering::Relaxed).map_or(0, u16::from_le);
    u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0
}

/// Serves up to `budget` chains, each by `serve`, which returns how many bytes it wrote into the chain's buffers.
pub fn drain(
    mem: &DeviceMemory,
    queue: &mut Queue,
    budget: usize,
    mut serve: impl FnMut(Chain<'_>) -> u32,
) -> QueueOutcome {
    let mut used = 0;
    while used < budget {
        let chain = match pop(mem, queue) {
            Ok(Some(chain)) => chain,
            Ok(None) => break,
            Err(BrokenQueue) => return QueueOutcome::BROKEN,
        };
        let head = chain.head_index();
        let written = serve(chain);
        if push(mem, queue, head, written).is_err() {
            return QueueOutcome::BROKEN;
        }
        used += 1;
    }
    settled(mem, queue, used)
}

/// Serves up to `budget` chains as one: `collect` looks at each, `settle` then acts on all of them, and only then do
/// they get their used entries, with nothing written.
///
/// The order is the point. The used entry is the host's word that what the chain asked for is done.
pub fn drain_batch<S>(
    mem: &DeviceMemory,
    queue: &mut Queue,
    budget: usize,
    state: &mut S,
    mut collect: impl FnMut(&mut S, Chain<'_>),
    settle: impl FnOnce(&mut S),
) -> QueueOutcome {
    let mut heads = Vec::new();
    let mut broken = false;
    while heads.len() < budget {
        match pop(mem, queue) {
            Ok(Some(chain)) => {
                heads.push(chain.head_index());
                collect(state, chain);
            }
            Ok(None) => break,
            Err(BrokenQueue) => {
                broken = true;
                break;
            }
        }
    }
    if !heads.is_empty() {
        settle(state);
    }
    for &head in &heads {
        broken |= push(mem, queue, head, 0).is_err();
    }
    if broken { QueueOutcome::BROKEN } else { settled(mem, queue, heads.len()) }
}
