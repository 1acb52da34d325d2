//! A virtio driver in a few lines: it sets a device up through its registers as Linux's virtio-mmio driver does, lays
//! out rings in guest RAM, and can be made to misbehave.

use super::RecordingIrq;
use crate::DeviceMemory;
use crate::bus::BusDevice;
use crate::virtio::{NOTIFY_OFFSET, VirtioDevice, VirtioMmio};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FEATURES_OK,
};
use virtio_bindings::virtio_mmio as reg;
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, GuestAddress};

/// Each queue gets a block of guest RAM for its rings; buffers follow after the last.
const RINGS_BASE: u64 = 0x1000;
const RINGS_BYTES: u64 = 0x4000;
const BUFFERS_BASE: u64 = 0x20_000;

const AVAIL_OFFSET: u64 = 0x2000;
const USED_OFFSET: u64 = 0x3000;

/// A buffer to put into a chain: its address, its length, and which side writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u32,
    /// The device writes to it.
    pub writable: bool,
}

#[derive(Debug)]
struct DriverQueue {
    base: u64,
    size: u16,
    next_descriptor: u16,
    avail: u16,
    seen: u16,
}

/// A guest with one device.
#[derive(Debug)]
pub struct FakeGuest<D: VirtioDevice> {
    /// Guest RAM.
    pub mem: DeviceMemory,
    /// The device's interrupt line.
    pub irq: Arc<RecordingIrq>,
    transport: Arc<Mutex<VirtioMmio<D>>>,
    queues: BTreeMap<u32, DriverQueue>,
    next_buffer: u64,
}

impl<D: VirtioDevice> FakeGuest<D> {
    /// A guest with `ram_bytes` of RAM at 0 and an untouched device. At least 1 MiB, for rings and buffers.
    pub fn new(ram_bytes: usize, device: D) -> Self {
        Self::on(super::memory(ram_bytes), device)
    }

    /// A guest on existing RAM.
    pub fn on(mem: DeviceMemory, device: D) -> Self {
        let irq = Arc::new(RecordingIrq::default());
        let transport = Arc::new(Mutex::new(VirtioMmio::new(mem.clone(), device, irq.clone())));
        Self { mem, irq, transport, queues: BTreeMap::new(), next_buffer: BUFFERS_BASE }
    }

    /// A guest whose driver accepted all offered features among `wanted`, set up every queue and is ready.
    pub fn ready(ram_bytes: usize, device: D, wanted: u64) -> Self {
        let mut guest = Self::new(ram_bytes, device);
        guest.probe(wanted);
        guest
    }

    /// The transport, as the VMM has it.
    pub fn transport(&self) -> MutexGuard<'_, VirtioMmio<D>> {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device, for other code that serves it.
    pub fn shared_transport(&self) -> Arc<Mutex<VirtioMmio<D>>> {
        Arc::clone(&self.transport)
    }

    /// Resets the device and brings it up again; returns the features negotiated.
    pub fn probe(&mut self, wanted: u64) -> u64 {
        let features = self.negotiate(wanted);
        let queues = self.transport().queue_count();
        for queue in 0..queues {
            self.set_up_queue(queue as u32);
        }
        self.driver_ok();
        features
    }

    /// Resets the device and negotiates features up to FEATURES_OK.
    pub fn negotiate(&mut self, wanted: u64) -> u64 {
        self.set(reg::VIRTIO_MMIO_STATUS, 0);
        self.queues.clear();
        assert_eq!(self.get(reg::VIRTIO_MMIO_MAGIC_VALUE).to_le_bytes(), *b"virt");
        assert_eq!(self.get(reg::VIRTIO_MMIO_VERSION), 2);
        self.add_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
        self.add_status(VIRTIO_CONFIG_S_DRIVER);
        let mut offered = 0;
        for half in [1, 0] {
            self.set(reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
            offered = offered << 32 | u64::from(self.get(reg::VIRTIO_MMIO_DEVICE_FEATURES));
        }
        let features = offered & wanted | offered & 1 << 32;
        for (half, value) in [(1, features >> 32), (0, features & 0xffff_ffff)] {
            self.set(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            self.set(reg::VIRTIO_MMIO_DRIVER_FEATURES, value as u32);
        }
        self.add_status(VIRTIO_CONFIG_S_FEATURES_OK);
        assert_ne!(self.get(reg::VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK, 0, "features accepted");
        features
    }

    /// Sets a queue up with as many entries as the device allows.
    pub fn set_up_queue(&mut self, index: u32) {
        self.set(reg::VIRTIO_MMIO_QUEUE_SEL, index);
        assert_eq!(self.get(reg::VIRTIO_MMIO_QUEUE_READY), 0);
        let size = self.get(reg::VIRTIO_MMIO_QUEUE_NUM_MAX) as u16;
        assert!((1..=256).contains(&size), "queue {index} has {size} entries");
        let base = RINGS_BASE + u64::from(index) * RINGS_BYTES;
        self.mem.write_slice(&[0; RINGS_BYTES as usize], GuestAddress(base)).expect("rings are in RAM");
        self.set(reg::VIRTIO_MMIO_QUEUE_NUM, size.into());
        let rings = [
            (reg::VIRTIO_MMIO_QUEUE_DESC_LOW, base),
            (reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, base + AVAIL_OFFSET),
            (reg::VIRTIO_MMIO_QUEUE_USED_LOW, base + USED_OFFSET),
        ];
        for (low, gpa) in rings {
            self.set(low, gpa as u32);
            self.set(low + 4, (gpa >> 32) as u32);
        }
        self.set(reg::VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(self.get(reg::VIRTIO_MMIO_QUEUE_READY), 1);
        let queue = DriverQueue { base, size, next_descriptor: 0, avail: 0, seen: 0 };
        self.queues.insert(index, queue);
    }

    /// Sets DRIVER_OK.
    pub fn driver_ok(&self) {
        self.add_status(VIRTIO_CONFIG_S_DRIVER_OK);
    }

    /// Reads a register.
    pub fn get(&self, register: u32) -> u32 {
        let mut word = [0; 4];
        self.transport.read(register.into(), &mut word);
        u32::from_le_bytes(word)
    }

    /// Writes a register.
    pub fn set(&self, register: u32, value: u32) {
        self.transport.write(register.into(), &value.to_le_bytes());
    }

    /// Reads the configuration space.
    pub fn read_config<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.transport.read(u64::from(reg::VIRTIO_MMIO_CONFIG) + offset, &mut data);
        data
    }

    /// Writes the configuration space.
    pub fn write_config(&self, offset: u64, data: &[u8]) {
        self.transport.write(u64::from(reg::VIRTIO_MMIO_CONFIG) + offset, data);
    }

    /// Reads and acknowledges the causes of an interrupt.
    pub fn acknowledge(&self) -> u32 {
        let causes = self.get(reg::VIRTIO_MMIO_INTERRUPT_STATUS);
        self.set(reg::VIRTIO_MMIO_INTERRUPT_ACK, causes);
        causes
    }

    /// Guest RAM for a buffer of `len` bytes, 16-byte aligned. Never freed.
    pub fn allocate(&mut self, len: usize) -> u64 {
        let gpa = self.next_buffer;
        self.next_buffer += (len as u64).next_multiple_of(16);
        gpa
    }

    /// A buffer for the device to read, with these contents.
    pub fn readable(&mut self, bytes: &[u8]) -> Buffer {
        let gpa = self.allocate(bytes.len());
        self.mem.write_slice(bytes, GuestAddress(gpa)).expect("buffer is in RAM");
        Buffer { gpa, len: bytes.len() as u32, writable: false }
    }

    /// A buffer for the device to write.
    pub fn writable(&mut self, len: usize) -> Buffer {
        Buffer { gpa: self.allocate(len), len: len as u32, writable: true }
    }

    /// The contents of a buffer.
    pub fn contents(&self, buffer: Buffer) -> Vec<u8> {
        let mut bytes = vec![0; buffer.len as usize];
        self.mem.read_slice(&mut bytes, GuestAddress(buffer.gpa)).expect("buffer is in RAM");
        bytes
    }

    /// Makes a chain available without notifying the device; returns its head.
    pub fn add(&mut self, index: u32, buffers: &[Buffer]) -> u16 {
        let queue = self.queue_mut(index);
        let (size, head) = (queue.size, queue.next_descriptor);
        queue.next_descriptor = (head + buffers.len() as u16) % size;
        for (position, buffer) in buffers.iter().enumerate() {
            let this = (head + position as u16) % size;
            let more = position + 1 < buffers.len();
            let flags = if more { VRING_DESC_F_NEXT } else { 0 }
                | if buffer.writable { VRING_DESC_F_WRITE } else { 0 };
            self.write_descriptor(index, this, buffer.gpa, buffer.len, flags as u16, (this + 1) % size);
        }
        self.publish(index, head);
        head
    }

    /// Writes a descriptor as it is.
    pub fn write_descriptor(&self, index: u32, at: u16, gpa: u64, len: u32, flags: u16, next: u16) {
        let place = self.queue(index).base + u64::from(at) * 16;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&gpa.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.mem.write_slice(&bytes, GuestAddress(place)).expect("descriptor is in RAM");
    }

    /// Makes the chain of `head` available.
    pub fn publish(&mut self, index: u32, head: u16) {
        let queue = self.queue_mut(index);
        let slot = queue.base + AVAIL_OFFSET + 4 + u64::from(queue.avail % queue.size) * 2;
        queue.avail = queue.avail.wrapping_add(1);
        let avail = queue.avail;
        self.mem.write_obj(head.to_le(), GuestAddress(slot)).expect("ring is in RAM");
        self.set_avail_index(index, avail);
    }

    /// Writes the index of the available ring as it is.
    pub fn set_avail_index(&self, index: u32, avail: u16) {
        let place = self.queue(index).base + AVAIL_OFFSET + 2;
        self.mem.write_obj(avail.to_le(), GuestAddress(place)).expect("ring is in RAM");
    }

    /// Writes the flags of the available ring: 1 asks for no interrupts.
    pub fn set_avail_flags(&self, index: u32, flags: u16) {
        let place = self.queue(index).base + AVAIL_OFFSET;
        self.mem.write_obj(flags.to_le(), GuestAddress(place)).expect("ring is in RAM");
    }

    /// Notifies the device through its register.
    pub fn notify(&self, index: u32) {
        self.set(NOTIFY_OFFSET as u32, index);
    }

    /// The used entries since the last call: head and bytes written.
    pub fn used(&mut self, index: u32) -> Vec<(u32, u32)> {
        let mem = self.mem.clone();
        let queue = self.queue_mut(index);
        let ring = queue.base + USED_OFFSET;
        let count = u16::from_le(mem.read_obj(GuestAddress(ring + 2)).expect("ring is in RAM"));
        let mut entries = Vec::new();
        while queue.seen != count {
            let place = ring + 4 + u64::from(queue.seen % queue.size) * 8;
            let [head, len] = mem.read_obj::<[u32; 2]>(GuestAddress(place)).expect("ring is in RAM");
            entries.push((u32::from_le(head), u32::from_le(len)));
            queue.seen = queue.seen.wrapping_add(1);
        }
        entries
    }

    /// Adds a chain, notifies the device, and returns the bytes written when the chain came back.
    pub fn send(&mut self, index: u32, buffers: &[Buffer]) -> Option<u32> {
        let head = self.add(index, buffers);
        self.notify(index);
        match *self.used(index) {
            [(used, len)] if used == u32::from(head) => Some(len),
            [] => None,
            ref other => panic!("unexpected used entries {other:?}"),
        }
    }

    fn add_status(&self, bit: u32) {
        let status = self.get(reg::VIRTIO_MMIO_STATUS);
        self.set(reg::VIRTIO_MMIO_STATUS, status | bit);
    }

    fn queue(&self, index: u32) -> &DriverQueue {
        self.queues.get(&index).expect("queue is set up")
    }

    fn queue_mut(&mut self, index: u32) -> &mut DriverQueue {
        self.queues.get_mut(&index).expect("queue is set up")
    }
}
