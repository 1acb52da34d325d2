//! How a guest comes in before it runs: it is registered, and waits for memory if it may: for the balancer's answer, a signal, or
//! the end of patience, whichever comes first.

use super::{Link, StartError, ensure_running};
use crate::events::signals::Signals;
use crate::spec::Wait;
use protocol::message::{Register, ToVmm};
use protocol::place::Place;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Before a balancer is asked again that hung up on one who waits.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why a guest is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The balancer says no.
    #[error("{0}")]
    Refused(String),
    /// A signal ended the wait for memory.
    #[error("Ended by signal {0}")]
    Ended(i32),
    /// No balancer can be started.
    #[error("No balancer")]
    NoBalancer(#[from] StartError),
    /// It does not answer.
    #[error("Cannot register with the balancer")]
    Link(#[source] io::Error),
}

/// Asks the balancer, and waits for memory if that is wanted.
///
/// # Errors
/// When there is no balancer, it refuses the guest, or the wait ends without memory.
pub fn enter(
    place: &Place,
    register: &Register,
    table: BorrowedFd<'_>,
    signals: &Signals,
    wait: Option<Wait>,
) -> Result<(Link, ToVmm), NotTaken> {
    let deadline = match wait {
        Some(Wait::For(time)) => Some(Instant::now() + time),
        _ => None,
    };
    loop {
        ensure_running(place)?;
        let (link, mut answer) =
            Link::register(&place.guest_socket(), register, table).map_err(NotTaken::Link)?;
        if let ToVmm::Waiting { reason } = answer {
            crate::say(&format!("{reason}. Waiting"));
            answer = match link.wait(signals, deadline) {
                Ok(Waited::Answer(answer)) => answer,
                Ok(Waited::Signal(number)) => return Err(NotTaken::Ended(number)),
                Ok(Waited::Late) => return Err(NotTaken::Refused(format!("It waited in vain: {reason}"))),
                // Another balancer begins with nobody that waits: behind those who ask it earlier.
                Err(error) => {
                    tracing::warn!(%error, "The wait for memory broke off; it is asked again");
                    std::thread::sleep(ASK_AGAIN);
                    continue;
                }
            };
        }
        return match answer {
            ToVmm::Refused { reason } => Err(NotTaken::Refused(reason)),
            answer => Ok((link, answer)),
        };
    }
}

/// How a wait ended.
#[derive(Debug)]
enum Waited {
    /// The balancer answered.
    Answer(ToVmm),
    /// A signal that ends this process came.
    Signal(i32),
    /// It took too long.
    Late,
}

impl Link {
    /// Waits for the answer to a registration that has to wait.
    fn wait(&self, signals: &Signals, deadline: Option<Instant>) -> io::Result<Waited> {
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
