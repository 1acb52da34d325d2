//! The serial port, a 16550A at I/O ports 0x3f8 to 0x3ff.

use crate::bus::{Action, BusDevice};
use crate::irq::Interrupt;
use std::convert::Infallible;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_superio::Trigger;

/// I/O ports that the device occupies.
pub const SERIAL_PORTS: u64 = 8;

struct Line(Arc<dyn Interrupt>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.trigger();
        Ok(())
    }
}

type Uart = vm_superio::Serial<Line, vm_superio::serial::NoEvents, Box<dyn Write + Send>>;

/// The guest's first serial port. What the guest sends goes to a writer at once, one byte at a time.
pub struct Serial {
    uart: Mutex<Uart>,
}

impl Serial {
    /// A serial port that writes to `out` and interrupts through `irq`.
    ///
    /// `out` is called from the vCPU that sends, so it must not block for long. Its errors are not the guest's
    /// concern: bytes that it refuses are lost.
    pub fn new(out: Box<dyn Write + Send>, irq: Arc<dyn Interrupt>) -> Self {
        Self { uart: Mutex::new(vm_superio::Serial::new(Line(irq), out)) }
    }

    /// Puts bytes into the receive FIFO and returns how many fitted.
    pub fn input(&self, bytes: &[u8]) -> usize {
        // The FIFO refuses to be called when it is full or the port is in loop-back mode: nothing is accepted then.
        self.uart().enqueue_raw_bytes(bytes).unwrap_or(0)
    }

    /// Bytes that [`input`](Self::input) would accept now.
    pub fn free_input(&self) -> usize {
        self.uart().fifo_capacity()
    }

    fn uart(&self) -> MutexGuard<'_, Uart> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BusDevice for Serial {
    fn read(&self, offset: u64, data: &mut [u8]) {
        // Registers are one byte wide; a wider access sees the neighbours float.
        data.fill(0xff);
        if let ([first, ..], Ok(offset @ 0..8)) = (data, u8::try_from(offset)) {
            *first = self.uart().read(offset);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        if let ([value], Ok(offset @ 0..8)) = (data, u8::try_from(offset))
            && let Err(error) = self.uart().write(offset, *value)
        {
            tracing::trace!(?error, "Serial output lost");
        }
        Action::None
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "serial_test.rs"]
mod tests;
