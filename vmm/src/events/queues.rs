//! A virtio device whose queues the guest kicks.

use crate::attached::Attached;
use crate::epoll::watch;
use devices::virtio::VirtioDevice;
use devices::virtio::mmio::VirtioMmio;
use event_manager::{EventOps, Events, MutEventSubscriber};
use protocol::sync::MutexExt;

/// Serves the queues of one device.
pub struct Queues<D: VirtioDevice>(pub Attached<D>);

impl<D: VirtioDevice> Queues<D> {
    /// Serves a kick, and then does `after` under the same lock of the device; `None` for a queue without a kick. Work
    /// per event is bounded: the rest of the queue waits behind the events of other devices.
    pub(crate) fn serve<T>(
        attached: &Attached<D>,
        queue: usize,
        after: impl FnOnce(&mut VirtioMmio<D>) -> T,
    ) -> Option<T> {
        let kick = attached.kicks.get(queue)?;
        // The descriptor does not block; a spurious wake-up reads nothing and does no harm.
        let _ = kick.read();
        let mut transport = attached.device.acquire();
        if transport.queue_event(queue) {
            let _ = kick.write(1);
        }
        Some(after(&mut transport))
    }

    /// Waits for kicks of all queues. Their events carry numbers from `base` on.
    pub(crate) fn watch_all(attached: &Attached<D>, ops: &mut EventOps<'_>, base: u32) {
        for (queue, kick) in (base..).zip(&attached.kicks) {
            watch(ops, kick, queue);
        }
    }
}

impl<D: VirtioDevice> MutEventSubscriber for Queues<D> {
    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        Self::serve(&self.0, events.data() as usize, |_| ());
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        Self::watch_all(&self.0, ops, 0);
    }
}
