//! What is typed goes to the guest's serial console.

use devices::serial::Serial;
use event_manager::{EventOps, Events, MutEventSubscriber};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use vmm_sys_util::epoll::EventSet;

const STDIN: RawFd = libc::STDIN_FILENO;

/// A terminal in raw mode, put back when it is dropped. Ctrl-C still ends the VMM.
pub struct RawTerminal(Option<libc::termios>);

impl RawTerminal {
    /// Puts standard input into raw mode if it is a terminal.
    #[must_use]
    pub fn enter() -> Self {
        // SAFETY: all zero is a valid termios to be filled; every pointer is valid; a failure leaves the terminal as it is.
        unsafe {
            let mut saved: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(STDIN, &raw mut saved) != 0 {
                return Self(None);
            }
            let mut raw = saved;
            libc::cfmakeraw(&raw mut raw);
            raw.c_lflag |= libc::ISIG;
            raw.c_oflag |= libc::OPOST;
            libc::tcsetattr(STDIN, libc::TCSANOW, &raw const raw);
            Self(Some(saved))
        }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.0 {
            // SAFETY: a termios that the system gave us.
            unsafe { libc::tcsetattr(STDIN, libc::TCSANOW, saved) };
        }
    }
}

/// Feeds standard input into the serial port.
pub struct Stdin {
    serial: Arc<Serial>,
    _terminal: RawTerminal,
}

impl Stdin {
    /// Reads for this port.
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
            // Nobody reads in the guest. What was typed is lost, as on a real serial line.
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
        // What cannot be waited for, a regular file or /dev/null, is no input.
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
