//! How a device raises its interrupt.

/// An edge-triggered interrupt line. The VMM implements it with an eventfd that KVM listens on (irqfd).
pub trait Interrupt: Send + Sync {
    /// Raises one edge. Several edges before the guest reacts may be seen as one.
    fn trigger(&self);
}
