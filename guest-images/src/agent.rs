//! The host's side of a guest's console port: typed commands to `workload`. A wait for an answer goes on while the
//! guest moves ([`wait`]).

use std::io::{self, Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;
use wait::{Activity, Counted, Limits, Missed, Progress, QUIET_MAX, Waiting};

use crate::error::{Error, Result};

/// How often a guest that has not answered yet is asked again: a guest that boots loses what came early.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// How long one read may wait, before progress is looked at again.
const READ_WITHIN: Duration = Duration::from_millis(200);
/// A longer line is not an answer.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What a guest holds under a name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Held {
    /// The name it was given.
    pub name: String,
    /// Its bytes, a multiple of the page.
    pub bytes: u64,
    /// As [`workload::pattern::checksum`] returns it.
    pub checksum: String,
}

/// What a guest found on comparing what it holds with what it wrote.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Verified {
    /// Whether every byte is as written.
    pub intact: bool,
    /// Pages that differ.
    pub bad_pages: u64,
    /// Bytes compared.
    pub bytes: u64,
    /// Of what is there now.
    pub checksum: String,
}

/// What was moved to or from a file or a disk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Moved {
    /// Bytes moved.
    pub bytes: u64,
    /// Of the content moved.
    pub checksum: String,
}

/// What all files below a folder are.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct TreeRead {
    /// Regular files.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Of all of them, in order of their names.
    pub checksum: String,
    /// Files that the guest's kernel serves by DAX.
    pub dax_files: u64,
    /// Their bytes.
    pub dax_bytes: u64,
    /// The guest's page cache before.
    pub cached_before_bytes: u64,
    /// And after.
    pub cached_after_bytes: u64,
}

/// What became of a program so far.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Ran {
    /// Whether it has ended.
    pub ended: bool,
    /// Its exit code, 128 + signal; 0 while it runs.
    pub code: u64,
    /// The end of what it printed.
    pub output: String,
    /// Bytes printed before that.
    pub cut_bytes: u64,
}

/// How a process that took too much memory ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct OomOutcome {
    /// It got and filled all of it.
    pub survived: bool,
    /// The guest's kernel refused to map so much.
    pub refused: bool,
    /// The signal that ended it; 0 for none.
    pub signal: u64,
}

/// A connection to the program in one guest.
#[derive(Debug)]
pub struct Agent {
    stream: UnixStream,
    received: Vec<u8>,
    received_bytes: u64,
    next_id: u64,
    /// What the guest does while it does not answer.
    activity: Activity,
    limits: Limits,
}

impl Agent {
    /// Connects to a console port's unix socket and waits until the guest answers. This wait and those for later
    /// answers go on while there is activity.
    pub fn connect(path: &Path, activity: Activity) -> Result<Agent> {
        Agent::connect_within(Limits::default(), path, activity)
    }

    /// As [`Agent::connect`], with other limits of each wait.
    pub fn connect_within(limits: Limits, path: &Path, activity: Activity) -> Result<Agent> {
        let mut waiting = Waiting::begin(limits, &activity);
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Agent::over(limits, stream, activity),
                Err(source) => match waiting.go_on(&activity) {
                    Ok(pause) => thread::sleep(pause),
                    Err(_) => return Err(Error::AgentConnect { path: path.into(), source }),
                },
            }
        }
    }

    /// As [`Agent::connect_within`], over a stream that is connected already.
    pub fn over(limits: Limits, stream: UnixStream, activity: Activity) -> Result<Agent> {
        let mut agent =
            Agent { stream, received: Vec::new(), received_bytes: 0, next_id: 1, activity, limits };
        let mut waiting = Waiting::begin(limits, &agent.activity);
        let first = agent.next_id;
        loop {
            let last = agent.send("ping", &[])?;
            let until = Instant::now() + PING_INTERVAL.min(limits.quiet);
            // A slow guest may answer an earlier ping.
            if agent.reply(first..=last, "ping", &mut waiting, Some(until))?.is_some() {
                return Ok(agent);
            }
        }
    }

    /// Sends one command and waits for its answer.
    pub fn call(&mut self, command: &str, arguments: &[&dyn ToString]) -> Result<Value> {
        let id = self.send(command, arguments)?;
        self.answer(id, command)
    }

    /// Sends one command and returns its id; [`Agent::answer`] waits for the answer.
    pub fn send(&mut self, command: &str, arguments: &[&dyn ToString]) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        // The empty line before ends what a terminal in front of the guest may have kept of other input.
        let mut line = format!("\n{id} {command}");
        for argument in arguments {
            line.push(' ');
            line += &argument.to_string();
        }
        line.push('\n');
        let broken = |source| Error::AgentChannel { command: command.into(), source };
        self.stream.set_write_timeout(Some(QUIET_MAX)).map_err(broken)?;
        self.stream.write_all(line.as_bytes()).map_err(broken)?;
        Ok(id)
    }

    /// Waits for the answer to the command `id`. Other lines are skipped: late answers, echo, noise.
    pub fn answer(&mut self, id: u64, command: &str) -> Result<Value> {
        let mut waiting = Waiting::begin(self.limits, &self.activity);
        loop {
            if let Some(reply) = self.reply(id..=id, command, &mut waiting, None)? {
                return Ok(reply);
            }
        }
    }

    /// The answer to one of these commands; `None` when `until` comes first.
    fn reply(
        &mut self,
        ids: RangeInclusive<u64>,
        command: &str,
        waiting: &mut Waiting,
        until: Option<Instant>,
    ) -> Result<Option<Value>> {
        loop {
            let line = match self.line(waiting, until) {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(None),
                Err(Broken::Missed(missed)) => {
                    return Err(Error::AgentSilent { command: command.into(), missed });
                }
                Err(Broken::Channel(source)) => {
                    return Err(Error::AgentChannel { command: command.into(), source });
                }
            };
            let Ok(reply) = serde_json::from_slice::<Value>(&line) else { continue };
            if !reply["id"].as_u64().is_some_and(|id| ids.contains(&id)) {
                continue;
            }
            return match reply["ok"].as_bool() {
                Some(true) => Ok(Some(reply)),
                _ => {
                    let message = reply["error"].as_str().unwrap_or_default().to_string();
                    Err(Error::AgentRefused { command: command.into(), message })
                }
            };
        }
    }

    /// The next line; `None` when `until` comes first.
    fn line(
        &mut self,
        waiting: &mut Waiting,
        until: Option<Instant>,
    ) -> std::result::Result<Option<Vec<u8>>, Broken> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.received[seen..].iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.received.drain(..=seen + at).collect()));
            }
            seen = self.received.len();
            if seen > LINE_BYTES_MAX {
                let problem = io::Error::new(io::ErrorKind::InvalidData, "a line without an end");
                return Err(Broken::Channel(problem));
            }
            waiting
                .go_on(&Counted(|| self.activity.count() + self.received_bytes))
                .map_err(Broken::Missed)?;
            let now = Instant::now();
            let left = until.map_or(READ_WITHIN, |until| until.saturating_duration_since(now));
            if left.is_zero() {
                return Ok(None);
            }
            let within = left.min(READ_WITHIN).min(self.limits.quiet / 4);
            self.stream.set_read_timeout(Some(within)).map_err(Broken::Channel)?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Broken::Channel(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    self.received.extend_from_slice(&buffer[..n]);
                    self.received_bytes += n as u64;
                }
                Err(error) if is_passing(error.kind()) => {}
                Err(error) => return Err(Broken::Channel(error)),
            }
        }
    }

    /// Maps `bytes` and fills them with the pattern of `seed`.
    pub fn alloc(&mut self, name: &str, bytes: u64, seed: u64) -> Result<Held> {
        self.typed("alloc", &[&name, &bytes, &seed])
    }

    /// Fills what is held again.
    pub fn rewrite(&mut self, name: &str, seed: u64) -> Result<Held> {
        self.typed("rewrite", &[&name, &seed])
    }

    /// Maps a file of the guest and reads all of it.
    pub fn map_file(&mut self, name: &str, path: &str) -> Result<Held> {
        self.typed("map-file", &[&name, &path])
    }

    /// Reads one byte of each page held; returns the pages.
    pub fn touch(&mut self, name: &str) -> Result<u64> {
        let reply = self.call("touch", &[&name])?;
        member("touch", "pages", &reply)
    }

    /// Compares what is held with what was written.
    pub fn verify(&mut self, name: &str) -> Result<Verified> {
        self.typed("verify", &[&name])
    }

    /// Unmaps; returns the bytes.
    pub fn free(&mut self, name: &str) -> Result<u64> {
        let reply = self.call("free", &[&name])?;
        member("free", "bytes", &reply)
    }

    /// Everything held.
    pub fn holds(&mut self) -> Result<Vec<Held>> {
        let reply = self.call("holds", &[])?;
        member("holds", "holds", &reply)
    }

    /// Writes a file of the guest, through its page cache.
    pub fn fill_file(&mut self, path: &str, bytes: u64, seed: u64) -> Result<Moved> {
        self.typed("fill-file", &[&path, &bytes, &seed])
    }

    /// Reads a file of the guest through its page cache.
    pub fn read_file(&mut self, path: &str) -> Result<Moved> {
        self.typed("read-file", &[&path])
    }

    /// Writes a disk, past the page cache, and flushes it. Offset and bytes are multiples of 512.
    pub fn write_disk(&mut self, device: &str, offset: u64, bytes: u64, seed: u64) -> Result<Moved> {
        self.typed("write-disk", &[&device, &offset, &bytes, &seed])
    }

    /// Reads a disk, past the page cache. Offset and bytes are multiples of 512.
    pub fn read_disk(&mut self, device: &str, offset: u64, bytes: u64) -> Result<Moved> {
        self.typed("read-disk", &[&device, &offset, &bytes])
    }

    /// Maps a file of the guest, private, and fills so many of a hundred pages.
    pub fn write_pages(&mut self, name: &str, path: &str, percent: u64, seed: u64) -> Result<Held> {
        self.typed("write-pages", &[&name, &path, &percent, &seed])
    }

    /// Reads all files below a folder of the guest.
    pub fn read_tree(&mut self, path: &str) -> Result<TreeRead> {
        self.typed("read-tree", &[&path])
    }

    /// Runs a shell's command in the guest's root. The guest ends one that takes longer, which is an error.
    pub fn run(&mut self, command: &str, within: Duration) -> Result<Ran> {
        self.typed("run", &[&within.as_millis(), &command])
    }

    /// Starts a shell's command in the guest's root.
    pub fn start(&mut self, name: &str, command: &str) -> Result<()> {
        self.call("start", &[&name, &command]).map(|_| ())
    }

    /// Waits for the end of what was started, `within` at most by the guest's clock.
    pub fn wait(&mut self, name: &str, within: Duration) -> Result<Ran> {
        self.typed("wait", &[&name, &within.as_millis()])
    }

    /// Ends what was started, with all that it started itself.
    pub fn stop(&mut self, name: &str) -> Result<Ran> {
        self.typed("stop", &[&name])
    }

    /// One amount of `/proc/meminfo` in bytes, by its name in the answer: `mem_available_bytes`.
    pub fn meminfo(&mut self, name: &str) -> Result<u64> {
        let reply = self.call("meminfo", &[])?;
        member("meminfo", name, &reply)
    }

    /// One counter of `/proc/vmstat`.
    pub fn vmstat(&mut self, name: &str) -> Result<u64> {
        let reply = self.call("vmstat", &[&name])?;
        member("vmstat", name, &reply)
    }

    /// Lets a process that the OOM killer takes first fill `bytes`.
    pub fn oom(&mut self, bytes: u64) -> Result<OomOutcome> {
        self.typed("oom", &[&bytes])
    }

    /// Powers the guest off; returns when the guest has taken the command.
    pub fn power_off(&mut self) -> Result<()> {
        self.call("poweroff", &[]).map(|_| ())
    }

    /// Reboots the guest; returns when the guest has taken the command.
    pub fn reboot(&mut self) -> Result<()> {
        self.call("reboot", &[]).map(|_| ())
    }

    fn typed<T: DeserializeOwned>(&mut self, command: &str, arguments: &[&dyn ToString]) -> Result<T> {
        let reply = self.call(command, arguments)?;
        typed(command, &reply)
    }
}

/// Why no line comes.
enum Broken {
    Missed(Missed),
    Channel(io::Error),
}

/// A read that may be tried again.
fn is_passing(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn typed<T: DeserializeOwned>(command: &str, reply: &Value) -> Result<T> {
    T::deserialize(reply).map_err(|error| Error::AgentReply {
        command: command.into(),
        problem: error.to_string(),
        reply: reply.to_string(),
    })
}

fn member<T: DeserializeOwned>(command: &str, name: &str, reply: &Value) -> Result<T> {
    let value = reply.get(name).unwrap_or(&Value::Null);
    T::deserialize(value).map_err(|error| Error::AgentReply {
        command: command.into(),
        problem: format!("{name}: {error}"),
        reply: reply.to_string(),
    })
}

#[cfg(test)]
#[path = "agent_test.rs"]
mod tests;
