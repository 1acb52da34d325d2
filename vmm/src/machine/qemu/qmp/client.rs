//! A connection to a monitor. Every wait has a deadline, however much QEMU sends meanwhile, every line has a longest
//! length, and nothing that QEMU sends is trusted.

use super::wire::{Capabilities, Command, Event, Message};
use host::wait::{PollFd, PollFlags, is_ready, ready};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a monitor may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Until it greets.
    pub greeting: Duration,
    /// Until it answers a command. QEMU answers within milliseconds unless QEMU or the host hangs.
    pub command: Duration,
}

impl Default for Deadlines {
    /// For a QEMU that runs already.
    fn default() -> Self {
        Self { greeting: Duration::from_secs(5), command: Duration::from_secs(5) }
    }
}

impl Deadlines {
    /// For a QEMU that is started: it loads its firmware and the kernel before it greets.
    #[must_use]
    pub fn of_child() -> Self {
        Self { greeting: Duration::from_secs(20), ..Self::default() }
    }
}

/// Longest line, bytes. The longest answer that is asked for has some KiB.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Events that wait to be taken; more of them replace the oldest.
const EVENTS_MAX: usize = 64;
/// Messages that are read without doing anything else in between.
const MESSAGES_AT_ONCE: usize = 1024;

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// No process listens, or the system refused.
    #[error("Cannot reach the monitor {name}")]
    Connect {
        /// The socket.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A monitor that other clients may use as well sends nothing.
    #[error(
        "The monitor did not greet within {} s: another client has it (it serves one at a time), or QEMU hangs",
        waited.as_secs()
    )]
    Busy {
        /// How long this process waited.
        waited: Duration,
    },
    /// A monitor of this process alone sends nothing.
    #[error("QEMU did not greet within {} s", waited.as_secs())]
    NoGreeting {
        /// How long this process waited.
        waited: Duration,
    },
    /// The descriptor that is watched next to the monitor became readable.
    #[error("A signal interrupted the wait for QEMU's answer")]
    Interrupted,
    /// The other side is not a monitor.
    #[error("The other side is not a QMP monitor: {0}")]
    NotAMonitor(String),
    /// The command was not answered in time.
    #[error("QEMU did not answer {command} within {} s", waited.as_secs_f32())]
    Deadline {
        /// The command.
        command: &'static str,
        /// How long this process waited.
        waited: Duration,
    },
    /// QEMU refused.
    #[error("QEMU refused {command}: {desc} ({class})")]
    Refused {
        /// The command.
        command: &'static str,
        /// Kind of the error, in QEMU's words.
        class: String,
        /// The error, in QEMU's words.
        desc: String,
    },
    /// The answer has another form than in the schema.
    #[error("QEMU's answer to {command} is malformed: {problem}")]
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
    /// True if the connection is over.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Closed | Self::Broken(_) | Self::Connect { .. } | Self::NotAMonitor(_))
    }
}

/// A monitor that takes commands.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    deadlines: Deadlines,
    received: Vec<u8>,
    /// How many of these bytes hold no end of a line.
    searched: usize,
    events: VecDeque<Event>,
    last_id: u64,
    /// A command whose answer did not come in time.
    overdue: Option<(u64, &'static str)>,
    /// Ends each wait when it is readable.
    watched: Option<OwnedFd>,
}

impl Qmp {
    /// Connects to a monitor's socket, and watches a descriptor as [`Self::over`] does.
    ///
    /// # Errors
    /// When no process listens, or it is not a free monitor.
    pub fn connect(path: &Path, deadlines: Deadlines, watched: Option<OwnedFd>) -> Result<Self, QmpError> {
        let name = path.display().to_string();
        let stream = UnixStream::connect(path).map_err(|source| QmpError::Connect { name, source })?;
        Self::over(stream, deadlines, watched).map_err(|error| match error {
            QmpError::NoGreeting { waited } => QmpError::Busy { waited },
            error => error,
        })
    }

    /// Talks over a connected stream: waits for the greeting, and ends the negotiation. From here on every wait ends
    /// once `watched` is readable, until [`Self::watch_nothing`].
    ///
    /// # Errors
    /// When no monitor answers in time.
    pub fn over(
        stream: UnixStream,
        deadlines: Deadlines,
        watched: Option<OwnedFd>,
    ) -> Result<Self, QmpError> {
        let mut qmp = Self {
            stream,
            deadlines,
            received: Vec::new(),
            searched: 0,
            events: VecDeque::new(),
            last_id: 0,
            overdue: None,
            watched,
        };
        qmp.stream.set_write_timeout(Some(deadlines.command))?;
        match qmp.message(Instant::now() + deadlines.greeting)? {
            Some(Message { greeting: Some(_), .. }) => {}
            Some(_) => return Err(QmpError::NotAMonitor("it does not greet".into())),
            None => return Err(QmpError::NoGreeting { waited: deadlines.greeting }),
        }
        qmp.call(&Capabilities {})?;
        Ok(qmp)
    }

    /// Waits for QEMU alone from here on.
    pub fn watch_nothing(&mut self) {
        self.watched = None;
    }

    /// The other end of the connection.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Readable when QEMU sent something.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends a command and waits for its answer, at most until the deadline of a command.
    ///
    /// # Errors
    /// When there is none, or QEMU refuses.
    pub fn call<C: Command>(&mut self, command: &C) -> Result<C::Return, QmpError> {
        let waited = self.deadlines.command;
        self.last_id += 1;
        let id = self.last_id;
        let mut line = json!({ "execute": C::NAME, "arguments": command, "id": id }).to_string();
        line.push('\n');
        let full = |error: io::Error| match error.kind() {
            // QEMU does not read, and a partly written command cannot be undone.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => QmpError::Deadline { command: C::NAME, waited },
            ErrorKind::BrokenPipe => QmpError::Closed,
            _ => QmpError::Broken(error),
        };
        self.overdue = Some((id, C::NAME));
        self.stream.write_all(line.as_bytes()).map_err(full)?;
        let answer = self.answer(id, Instant::now() + waited)?;
        let Some(answer) = answer else {
            return Err(QmpError::Deadline { command: C::NAME, waited });
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

    /// Waits for a late answer until `deadline`; true once it came, or if none is late.
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

    /// Events that came so far; reads what is there, and does not wait.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn events(&mut self) -> Result<VecDeque<Event>, QmpError> {
        for _ in 0..MESSAGES_AT_ONCE {
            match self.message(Instant::now()) {
                Ok(Some(_)) => {}
                // Events before the end count.
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
                // A monitor that sends messages without end has not answered either.
                Some(_) if Instant::now() >= deadline => return Ok(None),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next message; an event is kept as well. `None` at the deadline.
    fn message(&mut self, deadline: Instant) -> Result<Option<Message>, QmpError> {
        let Some(line) = self.line(deadline)? else { return Ok(None) };
        let message: Message = serde_json::from_slice(&line)
            .map_err(|error| QmpError::NotAMonitor(shortened(&error.to_string())))?;
        if let Some(event) = message.known_event() {
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
        Ok(Some(message))
    }

    /// The next line. Bytes that are there are read once, also after the deadline.
    fn line(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, QmpError> {
        let mut was_read = false;
        loop {
            if let Some(at) = self.received[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.received.drain(..=self.searched + at).collect();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.received.len();
            if self.searched > LINE_BYTES_MAX {
                return Err(QmpError::NotAMonitor(format!("a line of more than {LINE_BYTES_MAX} bytes")));
            }
            if was_read && Instant::now() >= deadline || !self.is_readable(deadline)? {
                return Ok(None);
            }
            was_read = true;
            let mut buffer = [0; 4096];
            match (&self.stream).read(&mut buffer) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(QmpError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until QEMU sent something, or closed the connection. False at the deadline.
    fn is_readable(&self, deadline: Instant) -> Result<bool, QmpError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
            let mut fds = vec![readable(self.stream.as_fd())];
            fds.extend(self.watched.as_ref().map(|watched| readable(watched.as_fd())));
            match ready(&mut fds, Some(left))? {
                _ if fds.get(1).is_some_and(is_ready) => return Err(QmpError::Interrupted),
                0 if left.is_zero() => return Ok(false),
                0 => {}
                _ => return Ok(true),
            }
        }
    }
}

/// Text of QEMU for a message of ours: one line, not long.
fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}
