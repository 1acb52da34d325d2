//! What stands in for a guest: a driver that speaks to any device through its registers, and a balloon backend in plain memory.

mod driver;
pub mod fuzz;
mod ram;

pub use driver::{Buffer, FakeGuest};
pub use ram::{FakeRam, FrameState};

use crate::irq::Interrupt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// An interrupt line that counts.
#[derive(Debug, Default)]
pub struct RecordingIrq(AtomicUsize);

impl RecordingIrq {
    /// Edges so far.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Interrupt for RecordingIrq {
    fn trigger(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A writer whose clones write to the same place.
#[derive(Clone, Debug, Default)]
pub struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    /// What was written so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Appends bytes.
    pub fn append(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
