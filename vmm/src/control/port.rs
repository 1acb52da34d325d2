//! The control port: a console by which a guest chooses the container that is charged for the frames it touches from
//! now on.
//!
//! ```text
//!  guest                        vmm                          balancer
//!   | charge /tenants/x -------> | AskCharge ----------------> |  may it? is there room?
//!   |                            | <-- Charge or RefuseCharge  |
//!   |                            |  earlier frames are charged as before, then the owner changes
//!   | <----- ok, or error WHY -- | Charged ------------------> |
//! ```
//!
//! A line is a command, and each is answered by one line: `charge PATH`, or `charge -` for the guest's own container.
//! One command is served at a time; a command before the answer to the last one is refused. A terminal in the guest
//! that is not in raw mode echoes what it reads: lines that look like answers are not commands.

use crate::attached::Attached;
use crate::epoll::watch;
use crate::events::queues::Queues;
use crate::link::PersistentLink;
use devices::virtio::console::{Console, Output, RECEIVE_QUEUE};
use event_manager::EventOps;
use protocol::message::FromVmm;
use protocol::path::{ContainerPath, DEPTH_MAX, NAME_BYTES_MAX};
use protocol::sync::MutexExt;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

/// Longest line, bytes: the longest path there can be, and the command.
const LINE_BYTES_MAX: usize = DEPTH_MAX * (NAME_BYTES_MAX + 1) + 16;
/// Most lines that wait; the port drops further ones.
const LINES_MAX: usize = 16;

/// The command of a line: a container, `None` for the guest's own; or what is wrong with the line.
pub(crate) type Command = Result<Option<ContainerPath>, String>;

/// Bytes of the guest on their way to commands.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    is_too_long: bool,
    commands: VecDeque<Command>,
    dropped: u64,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.line.len() >= LINE_BYTES_MAX => self.is_too_long = true,
                byte => self.line.push(*byte),
            }
        }
    }

    fn end_line(&mut self) {
        let command = if std::mem::take(&mut self.is_too_long) {
            Some(Err(format!("The line is longer than {LINE_BYTES_MAX} bytes")))
        } else {
            command(&String::from_utf8_lossy(&self.line))
        };
        self.line.clear();
        let Some(command) = command else { return };
        if self.commands.len() < LINES_MAX {
            self.commands.push_back(command);
        } else {
            self.dropped += 1;
        }
    }
}

/// The command of a line; `None` if the line is not a command.
fn command(line: &str) -> Option<Command> {
    let mut words = line.split_ascii_whitespace();
    let command = match (words.next()?, words.next(), words.next()) {
        ("ok" | "error", _, _) => return None,
        ("charge", Some("-"), None) => Ok(None),
        ("charge", Some(path), None) => path.parse().map(Some).map_err(|error| format!("{error}")),
        (word, _, _) => {
            let word: String = word.chars().take(32).collect();
            Err(format!("{word:?} with these arguments is not a command: there are charge PATH and charge -"))
        }
    };
    Some(command)
}

/// The host's end of the console.
enum Wire {
    /// A console that this process serves.
    Device(Attached<Console>),
    /// A console that another process serves, which passes its bytes over this stream.
    Stream(UnixStream),
}

/// Longest read of a stream, bytes.
const READ_BYTES: usize = 4096;

/// The port of one guest.
pub struct Port {
    wire: Wire,
    lines: Arc<Mutex<Lines>>,
    questions: u64,
    /// The question that waits for its answer, and the charge that answers it once that is known.
    pending: Option<(u64, Option<u64>)>,
    /// Answers for which the guest left no room.
    lost: u64,
}

impl Port {
    /// An output for a console, and the lines that it fills.
    pub(crate) fn output() -> (Output, Arc<Mutex<Lines>>) {
        let lines = Arc::new(Mutex::new(Lines::default()));
        let sink = Arc::clone(&lines);
        let output = move |bytes: &[u8]| sink.acquire().push(bytes);
        (Box::new(output), lines)
    }

    /// The port behind this console.
    pub(crate) fn new(console: Attached<Console>, lines: Arc<Mutex<Lines>>) -> Self {
        Self { wire: Wire::Device(console), lines, questions: 0, pending: None, lost: 0 }
    }

    /// The port behind a console that another process serves.
    ///
    /// # Errors
    /// When the stream cannot be made non-blocking.
    pub(crate) fn over(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { wire: Wire::Stream(stream), lines: Arc::default(), questions: 0, pending: None, lost: 0 })
    }

    /// Waits for the console's queues, known by numbers from `base` on.
    pub(crate) fn watch(&self, ops: &mut EventOps<'_>, base: u32) {
        match &self.wire {
            Wire::Device(console) => {
                for (queue, kick) in (base..).zip(&console.kicks) {
                    watch(ops, kick, queue);
                }
            }
            Wire::Stream(stream) => watch(ops, stream, base),
        }
    }

    /// Serves a queue, and returns the guest's commands.
    fn commands(&mut self, queue: usize) -> VecDeque<Command> {
        if let Wire::Device(console) = &self.wire {
            Queues::serve(console, queue, |_| ());
        }
        let mut lines = self.lines.acquire();
        if let Wire::Stream(stream) = &mut self.wire {
            let mut buffer = [0; READ_BYTES];
            // A bounded part at a time: the rest makes the stream readable again.
            let count = stream.read(&mut buffer).unwrap_or(0);
            lines.push(&buffer[..count]);
        }
        let dropped = std::mem::take(&mut lines.dropped);
        if dropped > 0 {
            tracing::debug!(dropped, "The guest wrote too many lines at once to its control port");
        }
        std::mem::take(&mut lines.commands)
    }

    /// Serves a queue, and passes the guest's questions on to the balancer.
    pub(super) fn serve(&mut self, queue: usize, link: &PersistentLink) {
        for command in self.commands(queue) {
            let to = match command {
                Ok(to) => to,
                Err(why) => {
                    self.answer(Err(&why));
                    continue;
                }
            };
            let Some(question) = self.ask() else {
                self.answer(Err("One command at a time: the last line is not answered yet"));
                continue;
            };
            match link.try_send(&FromVmm::AskCharge { question, to }) {
                Some(Ok(true)) => {}
                Some(_) => self.refused(question, "The balancer does not read its messages; ask again"),
                None => self.refused(question, "No balancer knows this guest"),
            }
        }
    }

    /// A new question for the balancer; `None` while one waits for its answer.
    fn ask(&mut self) -> Option<u64> {
        if self.pending.is_some() {
            return None;
        }
        self.questions += 1;
        self.pending = Some((self.questions, None));
        Some(self.questions)
    }

    /// The balancer granted a question by this charge.
    pub(super) fn granted(&mut self, question: u64, charge_id: u64) {
        if let Some((_, by)) = self.pending.as_mut().filter(|(pending, _)| *pending == question) {
            *by = Some(charge_id);
        }
    }

    /// A charge is in effect.
    pub(super) fn applied(&mut self, charge_id: u64) {
        if self.pending.is_some_and(|(_, by)| by == Some(charge_id)) {
            self.pending = None;
            self.answer(Ok(()));
        }
    }

    /// A question is refused.
    pub(super) fn refused(&mut self, question: u64, why: &str) {
        if self.pending.is_some_and(|(pending, _)| pending == question) {
            self.pending = None;
            self.answer(Err(why));
        }
    }

    /// The connection to the balancer is lost: refuses the question if it was not granted yet.
    pub(super) fn cancel_pending(&mut self) {
        if let Some((question, None)) = self.pending {
            self.refused(question, "The balancer is gone; ask again when there is one");
        }
    }

    /// Answers a line.
    fn answer(&mut self, answer: Result<(), &str>) {
        let line = match answer {
            Ok(()) => "ok\n".to_owned(),
            Err(why) => {
                let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                format!("error {why}\n")
            }
        };
        let console = match &mut self.wire {
            Wire::Device(console) => console,
            Wire::Stream(stream) => {
                if stream.write(line.as_bytes()).is_ok_and(|count| count == line.len()) {
                    return;
                }
                self.lost += 1;
                tracing::debug!(lost = self.lost, "The guest does not read the answers of its control port");
                return;
            }
        };
        let mut transport = console.device.acquire();
        if transport.device_mut().free_input() < line.len() {
            // The guest does not read.
            self.lost += 1;
            tracing::debug!(lost = self.lost, "The guest does not read the answers of its control port");
            return;
        }
        transport.device_mut().input(line.as_bytes());
        transport.queue_event(RECEIVE_QUEUE);
    }
}

#[cfg(test)]
#[path = "port_test.rs"]
mod tests;
