//! Standard input goes to the guest's serial console.

use devices::serial::Serial;
use event_manager::{EventOps, Events, MutEventSubscriber};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use vmm_sys_util::epoll::EventSet;

const STDIN: RawFd = libc::STDIN_FILENO;

/// A terminal in raw mode; dropping this restores its mode. Ctrl-C still ends the VMM.
///
/// The flag `O_NONBLOCK` of standard input and output is restored as well, terminal or not: the shell that started
/// this process shares them, and a QEMU at this console that is killed leaves them as it set them.
pub struct RawTerminal {
    terminal: Option<libc::termios>,
    blocking: [Blocking; 2],
}

impl RawTerminal {
    /// Puts standard input into raw mode if it is a terminal.
    #[must_use]
    pub fn enter() -> Self {
        let blocking = [STDIN, libc::STDOUT_FILENO].map(Blocking::of);
        // SAFETY: all zero is a valid termios to be filled; every pointer is valid; a failure leaves the terminal as
        // it is.
        let terminal = unsafe {
            let mut saved: libc::termios = std::mem::zeroed();
            (libc::tcgetattr(STDIN, &raw mut saved) == 0).then(|| {
                let mut raw = saved;
                libc::cfmakeraw(&raw mut raw);
                raw.c_lflag |= libc::ISIG;
                raw.c_oflag |= libc::OPOST;
                libc::tcsetattr(STDIN, libc::TCSANOW, &raw const raw);
                saved
            })
        };
        Self { terminal, blocking }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.terminal {
            // SAFETY: a termios that the system gave us.
            unsafe { libc::tcsetattr(STDIN, libc::TCSANOW, saved) };
        }
        self.blocking.iter().for_each(Blocking::restore);
    }
}

/// Whether reads and writes of an open file block, for all processes that share it.
struct Blocking {
    fd: RawFd,
    /// `O_NONBLOCK` or 0; `None` for a descriptor that is not open.
    flag: Option<libc::c_int>,
}

impl Blocking {
    fn of(fd: RawFd) -> Self {
        // SAFETY: only reads flags, of any descriptor.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        Self { fd, flag: (flags >= 0).then_some(flags & libc::O_NONBLOCK) }
    }

    fn restore(&self) {
        let (Some(flag), Self { flag: Some(now), .. }) = (self.flag, Self::of(self.fd)) else { return };
        if now != flag {
            // SAFETY: sets one flag, of a descriptor that is open; a failure leaves it as it is.
            unsafe {
                let flags = libc::fcntl(self.fd, libc::F_GETFL);
                libc::fcntl(self.fd, libc::F_SETFL, flags & !libc::O_NONBLOCK | flag);
            }
        }
    }
}

/// Feeds standard input into the serial port.
pub struct Stdin {
    serial: Arc<Serial>,
    _terminal: RawTerminal,
}

impl Stdin {
    /// Reads standard input for this port.
    #[must_use]
    pub fn new(serial: Arc<Serial>) -> Self {
        Self { serial, _terminal: RawTerminal::enter() }
    }
}

impl MutEventSubscriber for Stdin {
    fn process(&mut self, _: Events, ops: &mut EventOps<'_>) {
        let mut buffer = [0u8; 64];
        let room = self.serial.free_input().min(buffer.len());
        if room == 0 {
            // The guest does not read. The input is lost, as on a real serial line.
            let room = buffer.len();
            let _ = read(&mut buffer[..room]);
            return;
        }
        match read(&mut buffer[..room]) {
            Ok(0) | Err(_) => {
                let _ = ops.remove(Events::empty_raw(STDIN));
            }
            Ok(count) => {
                self.serial.input(&buffer[..count]);
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        // A regular file or /dev/null cannot be waited for, and is not used as input.
        if let Err(error) = ops.add(Events::with_data_raw(STDIN, 0, EventSet::IN)) {
            tracing::debug!(?error, "No input for the serial console");
        }
    }
}

fn read(buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is as long as we say.
    let count = unsafe { libc::read(STDIN, buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_blocking_flag_of_an_open_file_is_restored_and_other_flags_are_kept() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let fd = reader.as_raw_fd();
        let set = |flags: libc::c_int| {
            // SAFETY: a descriptor of this test.
            unsafe { libc::fcntl(fd, libc::F_SETFL, flags) };
        };
        // SAFETY: as above.
        let flags = || unsafe { libc::fcntl(fd, libc::F_GETFL) } & (libc::O_NONBLOCK | libc::O_APPEND);
        for found in [0, libc::O_NONBLOCK] {
            set(found);
            let blocking = Blocking::of(fd);
            set(libc::O_APPEND | found ^ libc::O_NONBLOCK);
            blocking.restore();
            assert_eq!(flags(), libc::O_APPEND | found);
        }
        assert!(Blocking::of(-1).flag.is_none());
        Blocking::of(-1).restore();
    }
}
