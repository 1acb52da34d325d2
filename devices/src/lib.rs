//! Device models of a guest: serial port, power, and virtio devices behind a virtio-mmio transport.
//!
//! There is no KVM, no thread and no socket in here: every device is driven by [`bus::BusDevice`] accesses and
//! queue events, and raises interrupts through [`irq::Interrupt`]. So each of them can be built and driven in a unit
//! test, and each of them can be handed bytes that no honest guest would send.
//!
//! What a guest writes is hostile input throughout. A mistake of the guest is a counter and an answer, never a
//! panic, and never unbounded work.

#![deny(unsafe_code)]

pub mod bus;
pub mod irq;
pub mod memory;
pub mod power;
pub mod serial;
pub mod virtio;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use memory::DeviceMemory;

/// Guest RAM as the VMM sees it. Dirty pages are not tracked here: accounting works on frames, not on writes.
pub type GuestRam = vm_memory::GuestMemoryMmap<()>;
