//! A virtio device whose queues the guest kicks.

use super::watch;
use crate::machine::attach::Attached;
use devices::virtio::VirtioDevice;
use event_manager::{EventOps, Events, MutEventSubscriber};
use std::sync::PoisonError;

/// Serves the queues of one device.
pub struct Queues<D: VirtioDevice>(pub Attached<D>);

impl<D: VirtioDevice> Queues<D> {
    /// Serves a kick. Work per event is bounded: what is left waits behind the other devices' events.
    pub(crate) fn serve(attached: &Attached<D>, queue: usize) {
        let Some(kick) = attached.kicks.get(queue) else { return };
        // Nonblocking; a spurious wake-up reads nothing and does no harm.
        let _ = kick.read();
        let more = attached.device.lock().unwrap_or_else(PoisonError::into_inner).queue_event(queue);
        if more {
            let _ = kick.write(1);
        }
    }

    pub(crate) fn watch_all(attached: &Attached<D>, ops: &mut EventOps<'_>) {
        for (queue, kick) in attached.kicks.iter().enumerate() {
            watch(ops, kick, u32::try_from(queue).expect("few queues"));
        }
    }
}

impl<D: VirtioDevice> MutEventSubscriber for Queues<D> {
    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        Self::serve(&self.0, events.data() as usize);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        Self::watch_all(&self.0, ops);
    }
}
