//! Standard input goes to the guest's serial console.

use super::escape::Escape;
use devices::serial::Serial;
use event_manager::{EventOps, Events, MutEventSubscriber};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};
use std::io::{self, Write};
use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;
use vmm_sys_util::epoll::EventSet;

const STDIN: RawFd = libc::STDIN_FILENO;

/// A terminal in raw mode; dropping this restores its mode. Ctrl-C ends the VMM until the guest has the terminal.
///
/// The flag `O_NONBLOCK` of standard input and output is restored as well, terminal or not: the shell that started
/// this process shares them, and a QEMU at this console that is killed leaves them as it set them.
pub struct RawTerminal {
    terminal: Option<Termios>,
    /// `O_NONBLOCK` of standard input and output; `None` for a descriptor that is not open.
    blocking: [Option<bool>; 2],
}

impl RawTerminal {
    /// Puts standard input into raw mode if it is a terminal.
    #[must_use]
    pub fn enter() -> Self {
        let blocking = [is_nonblocking(io::stdin()), is_nonblocking(io::stdout())];
        let terminal = tcgetattr(io::stdin()).ok();
        if let Some(saved) = &terminal {
            let mut raw = saved.clone();
            raw.make_raw();
            raw.local_modes |= LocalModes::ISIG;
            raw.output_modes |= OutputModes::OPOST;
            // A failure leaves the terminal as it is.
            tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok();
        }
        Self { terminal, blocking }
    }

    /// True if there is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Gives the guest the keys that end or stop a program: Ctrl-C, Ctrl-Z, Ctrl-\\. Says how the guest is ended now.
    pub fn give_to_guest(&self) {
        let Ok(mut raw) = tcgetattr(io::stdin()) else { return };
        raw.local_modes -= LocalModes::ISIG;
        // A failure leaves these keys to this process.
        if tcsetattr(io::stdin(), OptionalActions::Now, &raw).is_ok() {
            writeln!(io::stderr(), "The guest has this terminal, Ctrl-C too: Ctrl-A x ends the guest").ok();
        }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.terminal {
            tcsetattr(io::stdin(), OptionalActions::Now, saved).ok();
        }
        set_nonblocking(io::stdin(), self.blocking[0]);
        set_nonblocking(io::stdout(), self.blocking[1]);
    }
}

/// True if reads and writes of an open file do not block, for all processes that share it; `None` if it is not open.
fn is_nonblocking(fd: impl AsFd) -> Option<bool> {
    Some(fcntl_getfl(fd).ok()?.contains(OFlags::NONBLOCK))
}

/// Restores that flag; `None` leaves it as it is.
fn set_nonblocking(fd: impl AsFd, wanted: Option<bool>) {
    let (Some(wanted), Ok(mut flags)) = (wanted, fcntl_getfl(&fd)) else { return };
    if flags.contains(OFlags::NONBLOCK) != wanted {
        flags.set(OFlags::NONBLOCK, wanted);
        fcntl_setfl(&fd, flags).ok();
    }
}

/// Feeds standard input into the serial port.
pub struct Stdin {
    serial: Arc<Serial>,
    terminal: RawTerminal,
    escape: Escape,
}

impl Stdin {
    /// Reads standard input for this port.
    #[must_use]
    pub fn new(serial: Arc<Serial>) -> Self {
        Self { serial, terminal: RawTerminal::enter(), escape: Escape::default() }
    }
}

impl Stdin {
    /// Number of bytes that are for the guest, which are in front then. Of a pipe all are. The keys of a user that end
    /// the guest are a signal to this process, as Ctrl-C is before the guest runs.
    fn of_guest(&mut self, bytes: &mut [u8]) -> usize {
        if !self.terminal.is_terminal() {
            return bytes.len();
        }
        self.escape.filter(bytes).unwrap_or_else(|| {
            if let Err(error) = kill_process(getpid(), Signal::INT) {
                tracing::warn!(%error, "Cannot end the guest");
            }
            0
        })
    }
}

impl MutEventSubscriber for Stdin {
    fn process(&mut self, _: Events, ops: &mut EventOps<'_>) {
        let mut buffer = [0u8; 64];
        let room = self.serial.free_input().min(buffer.len());
        if room == 0 {
            // The guest does not read. The input is lost, as on a real serial line.
            if let Ok(count) = read(&mut buffer) {
                self.of_guest(&mut buffer[..count]);
            }
            return;
        }
        match read(&mut buffer[..room]) {
            Ok(0) | Err(_) => {
                let _ = ops.remove(Events::empty_raw(STDIN));
            }
            Ok(count) => {
                let count = self.of_guest(&mut buffer[..count]);
                self.serial.input(&buffer[..count]);
            }
        }
    }

    /// The guest runs from now on.
    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.terminal.give_to_guest();
        // A regular file or /dev/null cannot be waited for, and is not used as input.
        if let Err(error) = ops.add(Events::with_data_raw(STDIN, 0, EventSet::IN)) {
            tracing::debug!(?error, "No input for the serial console");
        }
    }
}

fn read(buffer: &mut [u8]) -> io::Result<usize> {
    // Not through the standard library, which would read ahead.
    Ok(rustix::io::read(io::stdin(), buffer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocking_flag_of_an_open_file_is_restored_and_other_flags_are_kept() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let both = OFlags::NONBLOCK | OFlags::APPEND;
        for found in [OFlags::empty(), OFlags::NONBLOCK] {
            fcntl_setfl(&reader, found).unwrap();
            let flag = is_nonblocking(&reader);
            fcntl_setfl(&reader, OFlags::APPEND | found ^ OFlags::NONBLOCK).unwrap();
            set_nonblocking(&reader, None);
            assert_eq!(fcntl_getfl(&reader).unwrap() & both, OFlags::APPEND | found ^ OFlags::NONBLOCK);
            set_nonblocking(&reader, flag);
            assert_eq!(fcntl_getfl(&reader).unwrap() & both, OFlags::APPEND | found);
        }
    }
}
