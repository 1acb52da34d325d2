//! Carries the commands out and keeps what they leave.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::process;
use std::thread;
use std::time::Duration;

use crate::command::Command;
use crate::hold::Hold;
use crate::machine::{self, End};
use crate::pattern;
use crate::program::{self, Program};
use crate::region::{Region, Writable};
use crate::reply::Reply;
use crate::{charge, disk, file, oom, stats, tree};

/// Holds at the same time: a host that forgets to free must not run the guest out of mappings.
const HOLDS_MAX: usize = 1024;
/// Programs at the same time.
const PROGRAMS_MAX: usize = 64;

/// What is held. It ends with the process.
#[derive(Debug, Default)]
pub struct Session {
    holds: BTreeMap<String, Hold>,
    leaked: Vec<Writable>,
    programs: BTreeMap<String, Program>,
}

/// An answer, and what follows once it is delivered.
pub type Outcome = (Result<Reply, String>, Option<End>);

impl Session {
    /// Carries out one command.
    pub fn execute(&mut self, command: &Command) -> Outcome {
        match command {
            Command::PowerOff => (Ok(Reply::new()), Some(End::PowerOff)),
            Command::Reboot => (Ok(Reply::new()), Some(End::Reboot)),
            command => (self.reply(command), None),
        }
    }

    fn reply(&mut self, command: &Command) -> Result<Reply, String> {
        match command {
            Command::Ping => Ok(ping()),
            Command::Alloc { name, bytes, seed } => {
                self.hold(name, || Hold::pattern(*bytes, *seed).map_err(|e| format!("alloc {bytes}: {e}")))
            }
            Command::MapFile { name, path } => self.hold(name, || Hold::file(path).map_err(named(path))),
            Command::WritePages { name, path, percent, seed } => {
                self.hold(name, || Hold::private(path, *percent, *seed).map_err(named(path)))
            }
            Command::ReadTree { path } => tree::read(path).map_err(named(path)),
            Command::Run { ms, command } => program::run(command, Duration::from_millis(*ms)),
            Command::Start { name, command } => self.start(name, command),
            Command::Wait { name, ms } => {
                let program = self.programs.get_mut(name).ok_or_else(|| not_started(name))?;
                let status = program.wait(Duration::from_millis(*ms)).map_err(named(name))?;
                Ok(program.reply(status))
            }
            Command::Stop { name } => self.stop(name),
            Command::Touch { name } => Ok(Reply::new().number("pages", self.held(name)?.memory().touch())),
            Command::Rewrite { name, seed } => {
                self.held(name)?.rewrite(*seed)?;
                Ok(described(name, self.held(name)?))
            }
            Command::Verify { name } => Ok(self.held(name)?.verify()),
            Command::Free { name } => {
                let hold = self.holds.remove(name).ok_or_else(|| unknown(name))?;
                Ok(Reply::new().number("bytes", hold.memory().bytes()))
            }
            Command::Holds => {
                let holds: Vec<Reply> = self.holds.iter().map(|(name, hold)| described(name, hold)).collect();
                Ok(Reply::new().list("holds", &holds).number("leaked_bytes", self.leaked_bytes()))
            }
            Command::Leak { bytes } => self.leak(*bytes),
            Command::FillFile { path, bytes, seed } => file::fill(path, *bytes, *seed).map_err(named(path)),
            Command::ReadFile { path, bytes } => file::read(path, *bytes).map_err(named(path)),
            Command::DropCaches => done(fs::write("/proc/sys/vm/drop_caches", "3"), "drop-caches"),
            Command::Meminfo => stats::meminfo().map_err(named("/proc/meminfo")),
            Command::Vmstat { names } => stats::vmstat(names).map_err(named("/proc/vmstat")),
            Command::Idle { ms } => {
                thread::sleep(Duration::from_millis(*ms));
                Ok(Reply::new())
            }
            Command::Mount { device, folder, fstype, read_only } => {
                done(machine::mount(device, folder, fstype, *read_only), device)
            }
            Command::Umount { folder } => done(machine::umount(folder), folder),
            Command::Sync => {
                machine::sync();
                Ok(Reply::new())
            }
            Command::WriteDisk { device, offset, bytes, seed } => {
                disk::write(device, *offset, *bytes, *seed).map_err(named(device))
            }
            Command::ClearDisk { device, offset, bytes } => {
                disk::clear(device, *offset, *bytes).map_err(named(device))
            }
            Command::ReadDisk { device, offset, bytes } => {
                disk::read(device, *offset, *bytes).map_err(named(device))
            }
            Command::Oom { bytes } => oom::provoke(*bytes).map_err(named("fork")),
            Command::RmmodBalloon => done(machine::unload_balloon(), "virtio_balloon"),
            Command::InsmodBalloon => done(machine::load_balloon(), "virtio_balloon"),
            Command::Charge { container } => charge::charge(container).map(|()| Reply::new()),
            Command::PowerOff | Command::Reboot => Ok(Reply::new()),
        }
    }

    /// Memory that nothing frees before the guest ends.
    fn leak(&mut self, bytes: u64) -> Result<Reply, String> {
        let mut memory = Region::anonymous(bytes).map_err(|e| format!("leak {bytes}: {e}"))?;
        pattern::fill(self.leaked.len() as u64, 0, memory.content_mut());
        self.leaked.push(memory);
        Ok(Reply::new().number("leaked_bytes", self.leaked_bytes()))
    }

    fn hold(&mut self, name: &str, make: impl FnOnce() -> Result<Hold, String>) -> Result<Reply, String> {
        if self.holds.contains_key(name) {
            return Err(format!("{name:?} is held already"));
        }
        if self.holds.len() >= HOLDS_MAX {
            return Err(format!("{HOLDS_MAX} holds are the most"));
        }
        let hold = make()?;
        let reply = described(name, &hold);
        self.holds.insert(name.into(), hold);
        Ok(reply)
    }

    fn start(&mut self, name: &str, command: &str) -> Result<Reply, String> {
        if self.programs.contains_key(name) {
            return Err(format!("{name:?} is started already"));
        }
        if self.programs.len() >= PROGRAMS_MAX {
            return Err(format!("{PROGRAMS_MAX} programs are the most"));
        }
        self.programs.insert(name.into(), Program::start(command).map_err(named(command))?);
        Ok(Reply::new())
    }

    fn stop(&mut self, name: &str) -> Result<Reply, String> {
        let mut program = self.programs.remove(name).ok_or_else(|| not_started(name))?;
        let status = program.kill().map_err(named(name))?;
        Ok(program.reply(status))
    }

    fn held(&mut self, name: &str) -> Result<&mut Hold, String> {
        self.holds.get_mut(name).ok_or_else(|| unknown(name))
    }

    fn leaked_bytes(&self) -> u64 {
        self.leaked.iter().map(|memory| memory.bytes()).sum()
    }
}

fn ping() -> Reply {
    let first_word = |path| fs::read_to_string(path).unwrap_or_default();
    let uptime = first_word("/proc/uptime");
    let seconds: f64 = uptime.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
    Reply::new()
        .number("pid", process::id().into())
        .number("uptime_ms", (seconds * 1000.0) as u64)
        .text("release", first_word("/proc/sys/kernel/osrelease").trim())
}

fn described(name: &str, hold: &Hold) -> Reply {
    let checksum = pattern::checksum(hold.memory().content());
    let reply =
        Reply::new().text("name", name).number("bytes", hold.memory().bytes()).text("checksum", &checksum);
    match hold.written_pages() {
        Some(pages) => reply.number("written_pages", pages),
        None => reply,
    }
}

fn not_started(name: &str) -> String {
    format!("Nothing is started as {name:?}")
}

fn unknown(name: &str) -> String {
    format!("Nothing is held as {name:?}")
}

fn named(what: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

fn done(result: io::Result<()>, what: &str) -> Result<Reply, String> {
    result.map(|()| Reply::new()).map_err(named(what))
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
