//! A virtio device that is attached to a guest.

use devices::virtio::VirtioDevice;
use devices::virtio::mmio::VirtioMmio;
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::EventFd;

/// A device on the bus, with the eventfds of its queues.
pub struct Attached<D: VirtioDevice> {
    /// The device behind its transport.
    pub device: Arc<Mutex<VirtioMmio<D>>>,
    /// One per queue, written by KVM when the guest kicks it.
    pub kicks: Vec<EventFd>,
}
