//! Admission of a guest before it runs: it registers, and waits for memory if it may. The wait ends with the
//! balancer's answer, a signal, the end of its machine, or its deadline, whichever comes first.

use super::{Link, StartError, ensure_running};
use crate::events::signals::Signals;
use crate::spec::Wait;
use host::wait::{PollFd, PollFlags, is_ready, ready};
use protocol::message::{Register, ToVmm};
use protocol::run_dir::RunDir;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Time before a waiter asks again after the balancer closed the connection.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Why a guest is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// The balancer refused it.
    #[error("{0}")]
    Refused(String),
    /// A signal ended the wait for memory.
    #[error("Ended by signal {0}")]
    Signal(i32),
    /// The machine ended before it got the memory.
    #[error("The machine ended while it waited for memory")]
    MachineEnded,
    /// No balancer can be started.
    #[error("No balancer")]
    NoBalancer(#[from] StartError),
    /// The balancer does not answer.
    #[error("Cannot register with the balancer")]
    Link(#[source] io::Error),
}

/// What ends the wait for memory before the balancer answers.
#[derive(Debug, Clone, Copy)]
pub struct Interrupts<'a> {
    /// Signals that end the wait.
    pub signals: &'a Signals,
    /// Longest wait; `None` for a guest that does not wait.
    pub wait: Option<Wait>,
    /// Readable once the machine ended, if it is another process.
    pub machine: Option<&'a OwnedFd>,
}

/// Registers with the balancer, and waits for memory if that is wanted.
///
/// # Errors
/// When there is no balancer, it refuses the guest, or the wait ends without memory.
pub fn enter(
    run_dir: &RunDir,
    register: &Register,
    table: BorrowedFd<'_>,
    interrupts: &Interrupts<'_>,
) -> Result<(Link, ToVmm), NotAdmitted> {
    let deadline = match interrupts.wait {
        Some(Wait::For(time)) => Some(Instant::now() + time),
        _ => None,
    };
    loop {
        ensure_running(run_dir)?;
        let (link, mut answer) =
            Link::register(&run_dir.guest_socket(), register, table).map_err(NotAdmitted::Link)?;
        if let ToVmm::Waiting { reason } = answer {
            crate::print_notice(&format!("{reason}. Waiting"));
            answer = match link.wait(interrupts, deadline) {
                Ok(Waited::Answer(answer)) => answer,
                Ok(Waited::Signal(number)) => return Err(NotAdmitted::Signal(number)),
                Ok(Waited::MachineEnded) => return Err(NotAdmitted::MachineEnded),
                Ok(Waited::TimedOut) => {
                    return Err(NotAdmitted::Refused(format!("The wait for memory took too long: {reason}")));
                }
                // Another balancer starts without waiters, and serves them in the order in which they ask.
                Err(error) => {
                    tracing::warn!(%error, "The wait for memory was interrupted; retrying");
                    std::thread::sleep(RETRY_INTERVAL);
                    continue;
                }
            };
        }
        return match answer {
            ToVmm::Refused { reason } => Err(NotAdmitted::Refused(reason)),
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
    TimedOut,
}

impl Link {
    /// Waits for the answer to a registration that has to wait.
    fn wait(&self, interrupts: &Interrupts<'_>, deadline: Option<Instant>) -> io::Result<Waited> {
        loop {
            match self.receive() {
                Ok(Some(answer @ (ToVmm::Registered { .. } | ToVmm::Refused { .. }))) => {
                    return Ok(Waited::Answer(answer));
                }
                // Not an answer.
                Ok(Some(_)) => continue,
                Ok(None) => {
                    return Err(io::Error::new(
                        ErrorKind::ConnectionReset,
                        "the balancer closed the connection",
                    ));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if let Some(number) = interrupts.signals.take() {
                return Ok(Waited::Signal(number));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Waited::TimedOut);
            }
            let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
            let mut fds = vec![readable(self.as_fd()), readable(interrupts.signals.as_fd())];
            fds.extend(interrupts.machine.map(|machine| readable(machine.as_fd())));
            ready(&mut fds, left)?;
            if fds.get(2).is_some_and(is_ready) {
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
    fn a_wait_ends_when_the_machine_ends() {
        let (ours, _balancer) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (sender, _ends) = std::sync::mpsc::channel();
        let signals = Signals::new(sender).unwrap();
        let (machine, other) = UnixStream::pair().unwrap();
        let machine = OwnedFd::from(machine);
        let interrupts = Interrupts { signals: &signals, wait: None, machine: Some(&machine) };
        let soon = || Some(Instant::now() + Duration::from_millis(50));
        let link = Link(ours);
        assert!(matches!(link.wait(&interrupts, soon()), Ok(Waited::TimedOut)));
        drop(other);
        let late = Some(Instant::now() + Duration::from_secs(60));
        assert!(matches!(link.wait(&interrupts, late), Ok(Waited::MachineEnded)));
        let without_machine = Interrupts { machine: None, ..interrupts };
        assert!(matches!(link.wait(&without_machine, soon()), Ok(Waited::TimedOut)));
    }
}
