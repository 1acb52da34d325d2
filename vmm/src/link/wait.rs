//! Waiting for memory before the guest runs: for the balancer's answer, a signal, or the end of patience, whichever comes first.

use super::Link;
use crate::events::signals::Signals;
use protocol::message::ToVmm;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::time::Instant;

/// How a wait ended.
#[derive(Debug)]
pub enum Waited {
    /// The balancer answered.
    Answer(ToVmm),
    /// A signal that ends this process came.
    Signal(i32),
    /// It took too long.
    Late,
}

impl Link {
    /// Waits for the answer to a registration that has to wait.
    ///
    /// # Errors
    /// When the balancer hung up, or says something else than a message.
    pub fn wait(&self, signals: &Signals, deadline: Option<Instant>) -> io::Result<Waited> {
        loop {
            match self.receive() {
                Ok(Some(answer @ (ToVmm::Registered { .. } | ToVmm::Refused { .. }))) => {
                    return Ok(Waited::Answer(answer));
                }
                // No answer.
                Ok(Some(_)) => continue,
                Ok(None) => return Err(io::Error::new(ErrorKind::ConnectionReset, "the balancer hung up")),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if let Some(number) = signals.take() {
                return Ok(Waited::Signal(number));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Waited::Late);
            }
            // Rounded up: a wait of less than a millisecond is no busy loop.
            let timeout = left.map_or(-1, |left| i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX));
            let readable = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let mut fds = [readable(self.as_raw_fd()), readable(signals.as_raw_fd())];
            // SAFETY: two descriptors that are open, and the length of the array that has them.
            if unsafe { libc::poll(fds.as_mut_ptr(), 2, timeout) } < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
