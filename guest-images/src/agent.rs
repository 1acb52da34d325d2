//! The host's side of a guest's console port: typed commands to `workload`, a deadline on every wait.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// How long a command may take unless told otherwise: an emulated guest is slow.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(60);
/// Filling a guest's whole memory, and its kernel's search for something else to give up, take longest.
const OOM_DEADLINE: Duration = Duration::from_secs(300);
/// What an answer may take longer than the program that it is about.
const SLACK: Duration = Duration::from_secs(30);
/// How often a guest that has not answered yet is asked again. A guest that boots loses what came early.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// A longer line is no answer.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What a guest holds under a name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Held {
    /// The name it was given.
    pub name: String,
    /// Its bytes, a multiple of the page.
    pub bytes: u64,
    /// As [`workload::pattern::checksum`] tells it.
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
    next_id: u64,
}

impl Agent {
    /// Connects to a console port's unix socket and waits until the guest answers, all within `deadline`.
    pub fn connect(path: &Path, deadline: Duration) -> Result<Agent> {
        let end = Instant::now() + deadline;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(20)),
                Err(source) => return Err(Error::AgentConnect { path: path.into(), source }),
            }
        };
        Agent::over(stream, end.saturating_duration_since(Instant::now()))
    }

    /// As [`Agent::connect`], over a stream that is connected already.
    pub fn over(stream: UnixStream, deadline: Duration) -> Result<Agent> {
        let mut agent = Agent { stream, received: Vec::new(), next_id: 1 };
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match agent.call_within("ping", &[], left.min(PING_INTERVAL)) {
                Ok(_) => return Ok(agent),
                Err(Error::AgentTimeout { .. }) if Instant::now() < end => {}
                Err(Error::AgentTimeout { command, .. }) => {
                    return Err(Error::AgentTimeout { command, waited: deadline });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one command and waits for its answer.
    pub fn call(&mut self, command: &str, arguments: &[&dyn ToString]) -> Result<Value> {
        self.call_within(command, arguments, COMMAND_DEADLINE)
    }

    /// Sends one command and waits for its answer, `deadline` at most. An answer that comes later is skipped.
    pub fn call_within(
        &mut self,
        command: &str,
        arguments: &[&dyn ToString],
        deadline: Duration,
    ) -> Result<Value> {
        let id = self.send(command, arguments)?;
        self.answer(id, command, deadline)
    }

    /// Sends one command and returns its id; [`Agent::answer`] waits for what becomes of it.
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
        self.stream.set_write_timeout(Some(COMMAND_DEADLINE)).map_err(broken)?;
        self.stream.write_all(line.as_bytes()).map_err(broken)?;
        Ok(id)
    }

    /// Waits for the answer to the command `id`. Other lines are skipped: late answers, echo, noise.
    pub fn answer(&mut self, id: u64, command: &str, deadline: Duration) -> Result<Value> {
        let end = Instant::now() + deadline;
        loop {
            let line = self.line(end).map_err(|source| match source.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    Error::AgentTimeout { command: command.into(), waited: deadline }
                }
                _ => Error::AgentChannel { command: command.into(), source },
            })?;
            let Ok(reply) = serde_json::from_slice::<Value>(&line) else { continue };
            if reply["id"].as_u64() != Some(id) {
                continue;
            }
            return match reply["ok"].as_bool() {
                Some(true) => Ok(reply),
                _ => {
                    let message = reply["error"].as_str().unwrap_or_default().to_string();
                    Err(Error::AgentRefused { command: command.into(), message })
                }
            };
        }
    }

    fn line(&mut self, end: Instant) -> io::Result<Vec<u8>> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.received[seen..].iter().position(|byte| *byte == b'\n') {
                return Ok(self.received.drain(..=seen + at).collect());
            }
            seen = self.received.len();
            if seen > LINE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end"));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Maps `bytes` and fills them with the pattern of `seed`.
    pub fn alloc(&mut self, name: &str, bytes: u64, seed: u64) -> Result<Held> {
        self.typed("alloc", &[&name, &bytes, &seed])
    }

    /// Fills what is held anew.
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
    pub fn read_tree(&mut self, path: &str, within: Duration) -> Result<TreeRead> {
        let reply = self.call_within("read-tree", &[&path], within)?;
        typed("read-tree", &reply)
    }

    /// Runs a shell's command in the guest's root; one that takes longer is ended, which is an error.
    pub fn run(&mut self, command: &str, within: Duration) -> Result<Ran> {
        let reply = self.call_within("run", &[&within.as_millis(), &command], within + SLACK)?;
        typed("run", &reply)
    }

    /// Starts a shell's command in the guest's root.
    pub fn start(&mut self, name: &str, command: &str) -> Result<()> {
        self.call("start", &[&name, &command]).map(|_| ())
    }

    /// Waits for the end of what was started, so long at most.
    pub fn wait(&mut self, name: &str, within: Duration) -> Result<Ran> {
        let reply = self.call_within("wait", &[&name, &within.as_millis()], within + SLACK)?;
        typed("wait", &reply)
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
        let reply = self.call_within("oom", &[&bytes], OOM_DEADLINE)?;
        typed("oom", &reply)
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
