//! A queue while the driver sets it up, and when it is ready.

use crate::DeviceMemory;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemory, Permissions};

/// Bytes per descriptor, and of the rings' parts (virtio 1.3, sections 2.7.5, 2.7.6, 2.7.8).
const DESCRIPTOR_BYTES: u64 = 16;
const AVAIL_ENTRY_BYTES: u64 = 2;
const USED_ENTRY_BYTES: u64 = 8;
/// flags, idx and the event index.
const RING_META_BYTES: u64 = 6;

/// The addresses that the driver writes, half by half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RingAddresses {
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
}

/// The rings of a queue can't be used as the driver described them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadQueue;

#[derive(Debug)]
pub(super) struct QueueSetup {
    queue: Queue,
    max: u16,
    entries: u32,
    pub addresses: RingAddresses,
}

impl QueueSetup {
    pub fn new(max: u16) -> Self {
        let queue = Queue::new(max).expect("queue sizes of devices are powers of two up to 32768");
        Self { queue, max, entries: 0, addresses: RingAddresses::default() }
    }

    pub fn max(&self) -> u16 {
        self.max
    }

    pub fn is_ready(&self) -> bool {
        self.queue.ready()
    }

    pub fn ready_mut(&mut self) -> Option<&mut Queue> {
        self.is_ready().then_some(&mut self.queue)
    }

    /// Takes QueueNum as written; it is judged with the rest.
    pub fn set_entries(&mut self, entries: u32) {
        self.entries = entries;
    }

    /// QueueReady = 1: every part of the rings must be aligned and in RAM, which an image is not, away from address 0.
    pub fn enable(&mut self, mem: &DeviceMemory) -> Result<(), BadQueue> {
        let entries = u16::try_from(self.entries).map_err(|_| BadQueue)?;
        let count = u64::from(entries);
        let RingAddresses { desc, avail, used } = self.addresses;
        self.queue.reset();
        self.queue.try_set_size(entries).map_err(|_| BadQueue)?;
        self.queue.try_set_desc_table_address(GuestAddress(desc)).map_err(|_| BadQueue)?;
        self.queue.try_set_avail_ring_address(GuestAddress(avail)).map_err(|_| BadQueue)?;
        self.queue.try_set_used_ring_address(GuestAddress(used)).map_err(|_| BadQueue)?;
        let parts = [
            (desc, DESCRIPTOR_BYTES * count),
            (avail, AVAIL_ENTRY_BYTES * count + RING_META_BYTES),
            (used, USED_ENTRY_BYTES * count + RING_META_BYTES),
        ];
        // The queue library takes address 0 for "not set".
        let usable = |(gpa, len): (u64, u64)| {
            gpa != 0 && mem.check_range(GuestAddress(gpa), len as usize, Permissions::ReadWrite)
        };
        if !parts.into_iter().all(usable) {
            return Err(BadQueue);
        }
        self.queue.set_ready(true);
        Ok(())
    }

    /// QueueReady = 0: stops the queue and forgets how far it was; what the driver wrote stays.
    pub fn disable(&mut self) {
        self.queue.reset();
    }

    pub fn reset(&mut self) {
        self.queue.reset();
        self.entries = 0;
        self.addresses = RingAddresses::default();
    }
}
