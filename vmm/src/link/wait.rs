//! How a guest comes in before it runs: it is registered, and waits for memory if it may: for the balancer's answer, a signal, the end
//! of its machine, or the end of patience, whichever comes first.

use super::{Link, StartError, ensure_running};
use crate::events::signals::Signals;
use crate::spec::Wait;
use protocol::message::{Register, ToVmm};
use protocol::place::Place;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
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
    /// The machine that was to get the memory ended.
    #[error("The machine ended while it waited for memory")]
    MachineEnded,
    /// No balancer can be started.
    #[error("No balancer")]
    NoBalancer(#[from] StartError),
    /// It does not answer.
    #[error("Cannot register with the balancer")]
    Link(#[source] io::Error),
}

/// What is waited for beside the balancer.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'a> {
    /// Signals that end the wait.
    pub signals: &'a Signals,
    /// How long it may be, if at all.
    pub wait: Option<Wait>,
    /// Readable once the machine ended, where that is a process of its own.
    pub machine: Option<&'a OwnedFd>,
}

/// Asks the balancer, and waits for memory if that is wanted.
///
/// # Errors
/// When there is no balancer, it refuses the guest, or the wait ends without memory.
pub fn enter(
    place: &Place,
    register: &Register,
    table: BorrowedFd<'_>,
    beside: &Beside<'_>,
) -> Result<(Link, ToVmm), NotTaken> {
    let deadline = match beside.wait {
        Some(Wait::For(time)) => Some(Instant::now() + time),
        _ => None,
    };
    loop {
        ensure_running(place)?;
        let (link, mut answer) =
            Link::register(&place.guest_socket(), register, table).map_err(NotTaken::Link)?;
        if let ToVmm::Waiting { reason } = answer {
            crate::say(&format!("{reason}. Waiting"));
            answer = match link.wait(beside, deadline) {
                Ok(Waited::Answer(answer)) => answer,
                Ok(Waited::Signal(number)) => return Err(NotTaken::Ended(number)),
                Ok(Waited::MachineEnded) => return Err(NotTaken::MachineEnded),
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
    /// The machine is gone.
    MachineEnded,
    /// It took too long.
    Late,
}

impl Link {
    /// Waits for the answer to a registration that has to wait.
    fn wait(&self, beside: &Beside<'_>, deadline: Option<Instant>) -> io::Result<Waited> {
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
            if let Some(number) = beside.signals.take() {
                return Ok(Waited::Signal(number));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Waited::Late);
            }
            // Rounded up: a wait of less than a millisecond is no busy loop.
            let timeout = left.map_or(-1, |left| i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX));
            let readable = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // A descriptor of -1 is passed over.
            let machine = beside.machine.map_or(-1, AsRawFd::as_raw_fd);
            let mut fds =
                [readable(self.as_raw_fd()), readable(beside.signals.as_raw_fd()), readable(machine)];
            // SAFETY: descriptors that are open, and the length of the array that has them.
            if unsafe { libc::poll(fds.as_mut_ptr(), 3, timeout) } < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error);
                }
            } else if fds[2].revents != 0 {
                return Ok(Waited::MachineEnded);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn a_wait_ends_with_the_machine_that_waits() {
        let (ours, _balancer) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (sender, _ends) = std::sync::mpsc::channel();
        let signals = Signals::new(sender).unwrap();
        let (machine, other) = UnixStream::pair().unwrap();
        let machine = OwnedFd::from(machine);
        let beside = Beside { signals: &signals, wait: None, machine: Some(&machine) };
        let soon = || Some(Instant::now() + Duration::from_millis(50));
        let link = Link(ours);
        assert!(matches!(link.wait(&beside, soon()), Ok(Waited::Late)));
        drop(other);
        let late = Some(Instant::now() + Duration::from_secs(60));
        assert!(matches!(link.wait(&beside, late), Ok(Waited::MachineEnded)));
        let alone = Beside { machine: None, ..beside };
        assert!(matches!(link.wait(&alone, soon()), Ok(Waited::Late)));
    }
}
