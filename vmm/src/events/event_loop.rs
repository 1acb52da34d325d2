//! The event loop of a guest: it serves its subscribers until the guest ends.

use crate::epoll::watch;
use crate::vcpu::End;
use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use std::sync::mpsc::Receiver;
use vmm_sys_util::eventfd::EventFd;

/// Why an event loop cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("The event loop broke: {0}")]
pub struct EventLoopError(String);

impl From<event_manager::Error> for EventLoopError {
    fn from(error: event_manager::Error) -> Self {
        Self(error.to_string())
    }
}

/// The event loop of one guest.
pub struct EventLoop {
    manager: EventManager<Box<dyn MutEventSubscriber>>,
    ends: Receiver<End>,
}

impl EventLoop {
    /// An event loop with these subscribers. Whatever sends an end also writes `wake`.
    ///
    /// # Errors
    /// When the system has no epoll descriptor.
    pub fn new(
        subscribers: impl IntoIterator<Item = Box<dyn MutEventSubscriber>>,
        (ends, wake): (Receiver<End>, EventFd),
    ) -> Result<Self, EventLoopError> {
        let mut manager = EventManager::new()?;
        for subscriber in subscribers {
            manager.add_subscriber(subscriber);
        }
        manager.add_subscriber(Box::new(Wake(wake)) as Box<dyn MutEventSubscriber>);
        Ok(Self { manager, ends })
    }

    /// Serves events until an end comes.
    ///
    /// # Errors
    /// When the system refuses to wait for events.
    pub fn run(&mut self) -> Result<End, EventLoopError> {
        loop {
            self.manager.run()?;
            if let Ok(end) = self.ends.try_recv() {
                return Ok(end);
            }
        }
    }
}

/// Wakes the event loop, which then checks for an end.
struct Wake(EventFd);

impl MutEventSubscriber for Wake {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        let _ = self.0.read();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(ops, &self.0, 0);
    }
}
