//! A connection to a monitor. Every wait has a deadline, every line a longest length, and nothing that QEMU says is trusted.

use super::wire::{Capabilities, Command, Event, Message};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a command may take. QEMU answers within milliseconds unless it hangs, is stopped, or the host is.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(5);
/// How long the greeting may take: QEMU loads its firmware and the kernel before.
pub const GREETING_DEADLINE: Duration = Duration::from_secs(20);
/// Longest line, bytes. The longest answer that is asked for has some KiB.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Events that wait to be looked at; more of them replace the oldest.
const EVENTS_MAX: usize = 64;
/// Messages that are read without doing anything else in between.
const MESSAGES_AT_ONCE: usize = 1024;

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Nobody listens, or the system refused.
    #[error("Cannot reach the monitor {name}")]
    Connect {
        /// The socket.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// It is connected and says nothing.
    #[error(
        "The monitor did not greet within {} s: another client has it (it serves one at a time), or QEMU hangs",
        waited.as_secs()
    )]
    NoGreeting {
        /// How long was waited.
        waited: Duration,
    },
    /// What listens is no monitor.
    #[error("What answers is no QMP monitor: {0}")]
    NoMonitor(String),
    /// The command was not answered in time.
    #[error("QEMU did not answer {command} within {} s", waited.as_secs_f32())]
    Deadline {
        /// The command.
        command: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// QEMU says no.
    #[error("QEMU refused {command}: {desc} ({class})")]
    Refused {
        /// The command.
        command: &'static str,
        /// Kind of the error, in QEMU's words.
        class: String,
        /// The error, in QEMU's words.
        desc: String,
    },
    /// The answer has another form than the schema says.
    #[error("QEMU answered {command} with something else than it should: {problem}")]
    Malformed {
        /// The command.
        command: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The connection is over.
    #[error("QEMU closed its monitor")]
    Closed,
    /// The connection broke.
    #[error("The connection to QEMU's monitor broke")]
    Broken(#[from] io::Error),
}

impl QmpError {
    /// True if the connection is of no use any more.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Closed | Self::Broken(_) | Self::Connect { .. } | Self::NoMonitor(_))
    }
}

/// A monitor that takes commands.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    received: Vec<u8>,
    /// How much of it is known to hold no end of a line.
    searched: usize,
    events: VecDeque<Event>,
    last_id: u64,
    /// A command whose answer did not come in time.
    overdue: Option<(u64, &'static str)>,
}

impl Qmp {
    /// Connects to a monitor's socket.
    ///
    /// # Errors
    /// When nobody listens, or what listens is no monitor that is free.
    pub fn connect(path: &Path) -> Result<Self, QmpError> {
        let name = path.display().to_string();
        let stream = UnixStream::connect(path).map_err(|source| QmpError::Connect { name, source })?;
        Self::over(stream, COMMAND_DEADLINE)
    }

    /// Speaks over a stream that is connected: waits for the greeting, and ends the negotiation.
    ///
    /// # Errors
    /// When no monitor answers in time.
    pub fn over(stream: UnixStream, greeting: Duration) -> Result<Self, QmpError> {
        let mut qmp = Self {
            stream,
            received: Vec::new(),
            searched: 0,
            events: VecDeque::new(),
            last_id: 0,
            overdue: None,
        };
        qmp.stream.set_write_timeout(Some(COMMAND_DEADLINE))?;
        match qmp.message(Instant::now() + greeting)? {
            Some(Message { greeting: Some(_), .. }) => {}
            Some(_) => return Err(QmpError::NoMonitor("it does not greet".into())),
            None => return Err(QmpError::NoGreeting { waited: greeting }),
        }
        qmp.call(&Capabilities {})?;
        Ok(qmp)
    }

    /// The other end of the connection.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Readable when QEMU said something.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends a command and waits for its answer, [`COMMAND_DEADLINE`] at most.
    ///
    /// # Errors
    /// When there is none, or QEMU refuses.
    pub fn call<C: Command>(&mut self, command: &C) -> Result<C::Return, QmpError> {
        self.last_id += 1;
        let id = self.last_id;
        let mut line = json!({ "execute": C::NAME, "arguments": command, "id": id }).to_string();
        line.push('\n');
        let full = |error: io::Error| match error.kind() {
            // A QEMU that does not read: what was written in part cannot be taken back.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                QmpError::Deadline { command: C::NAME, waited: COMMAND_DEADLINE }
            }
            ErrorKind::BrokenPipe => QmpError::Closed,
            _ => QmpError::Broken(error),
        };
        self.overdue = Some((id, C::NAME));
        self.stream.write_all(line.as_bytes()).map_err(full)?;
        let answer = self.answer(id, Instant::now() + COMMAND_DEADLINE)?;
        let Some(answer) = answer else {
            return Err(QmpError::Deadline { command: C::NAME, waited: COMMAND_DEADLINE });
        };
        self.overdue = None;
        if let Some(refusal) = answer.error {
            let (class, desc) = (shortened(&refusal.class), shortened(&refusal.desc));
            return Err(QmpError::Refused { command: C::NAME, class, desc });
        }
        let malformed = |problem: String| QmpError::Malformed { command: C::NAME, problem };
        let returned = answer.returned.ok_or_else(|| malformed("neither an answer nor an error".into()))?;
        serde_json::from_value(returned).map_err(|error| malformed(shortened(&error.to_string())))
    }

    /// True once the answer came that was late, which is waited for until `deadline`.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn caught_up(&mut self, deadline: Instant) -> Result<bool, QmpError> {
        let Some((id, _)) = self.overdue else { return Ok(true) };
        if self.answer(id, deadline)?.is_some() {
            self.overdue = None;
        }
        Ok(self.overdue.is_none())
    }

    /// Events that came so far; reads what is there, without waiting.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn events(&mut self) -> Result<VecDeque<Event>, QmpError> {
        for _ in 0..MESSAGES_AT_ONCE {
            match self.message(Instant::now()) {
                Ok(Some(_)) => {}
                // What was said before the end counts.
                Err(_) if !self.events.is_empty() => break,
                Ok(None) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(std::mem::take(&mut self.events))
    }

    /// The answer with this id; others, late ones, are skipped. `None` at the deadline.
    fn answer(&mut self, id: u64, deadline: Instant) -> Result<Option<Message>, QmpError> {
        loop {
            match self.message(deadline)? {
                Some(message) if message.event.is_none() && message.id == Some(id) => {
                    return Ok(Some(message));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next message; an event is kept as well. `None` at the deadline.
    fn message(&mut self, deadline: Instant) -> Result<Option<Message>, QmpError> {
        let Some(line) = self.line(deadline)? else { return Ok(None) };
        let message: Message = serde_json::from_slice(&line)
            .map_err(|error| QmpError::NoMonitor(shortened(&error.to_string())))?;
        if let Some(event) = message.known_event() {
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
        Ok(Some(message))
    }

    fn line(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, QmpError> {
        loop {
            if let Some(at) = self.received[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.received.drain(..=self.searched + at).collect();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.received.len();
            if self.searched > LINE_BYTES_MAX {
                return Err(QmpError::NoMonitor(format!("a line of more than {LINE_BYTES_MAX} bytes")));
            }
            // A socket without a time-out would be waited at without end.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match (&self.stream).read(&mut buffer) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(QmpError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What QEMU said, as far as it is shown: one line, not long.
fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}
