//! The commands and their text form.

use std::str::{FromStr, SplitAsciiWhitespace};

/// What the host can ask for. Names are chosen by the host; seeds default to 0.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the arguments are explained with each command")]
pub enum Command {
    /// `ping`: the program that answers, and since when.
    Ping,
    /// `alloc NAME BYTES [SEED]`: maps anonymous memory and fills every page.
    Alloc { name: String, bytes: u64, seed: u64 },
    /// `touch NAME`: reads one byte of each page.
    Touch { name: String },
    /// `rewrite NAME [SEED]`: fills every page again.
    Rewrite { name: String, seed: u64 },
    /// `verify NAME`: compares with what was written, and returns the checksum.
    Verify { name: String },
    /// `free NAME`: unmaps.
    Free { name: String },
    /// `holds`: everything held, with checksums.
    Holds,
    /// `leak BYTES`: allocates what nothing can free.
    Leak { bytes: u64 },
    /// `fill-file PATH BYTES [SEED]`: writes a file, through the page cache.
    FillFile { path: String, bytes: u64, seed: u64 },
    /// `read-file PATH [BYTES]`: reads a file through the page cache.
    ReadFile { path: String, bytes: u64 },
    /// `map-file NAME PATH`: maps a file, shared and read-only, and touches every page.
    MapFile { name: String, path: String },
    /// `write-pages NAME PATH PERCENT [SEED]`: maps a file, private, and fills so many of a hundred pages.
    WritePages { name: String, path: String, percent: u64, seed: u64 },
    /// `read-tree PATH`: reads all files below a folder, and returns how many bytes of them came by DAX.
    ReadTree { path: String },
    /// `run MS COMMAND...`: runs a shell's command in the root, for `MS` milliseconds at most. A space stands for
    /// several.
    Run { ms: u64, command: String },
    /// `start NAME COMMAND...`: starts one.
    Start { name: String, command: String },
    /// `wait NAME MS`: what it printed, and its end if that comes so soon.
    Wait { name: String, ms: u64 },
    /// `stop NAME`: ends it with all that it started.
    Stop { name: String },
    /// `drop-caches`: writes 3 to `/proc/sys/vm/drop_caches`.
    DropCaches,
    /// `meminfo`: `/proc/meminfo`.
    Meminfo,
    /// `vmstat [NAME...]`: counters of `/proc/vmstat`; a selection unless named.
    Vmstat { names: Vec<String> },
    /// `idle MS`: does nothing.
    Idle { ms: u64 },
    /// `mount DEVICE FOLDER FSTYPE [ro|rw]`.
    Mount { device: String, folder: String, fstype: String, read_only: bool },
    /// `umount FOLDER`.
    Umount { folder: String },
    /// `sync`: everything written reaches the disks.
    Sync,
    /// `write-disk DEVICE OFFSET BYTES [SEED]`: direct I/O, then a flush.
    WriteDisk { device: String, offset: u64, bytes: u64, seed: u64 },
    /// `clear-disk DEVICE OFFSET BYTES`: fills with zeros by a hole, which the device has to support.
    ClearDisk { device: String, offset: u64, bytes: u64 },
    /// `read-disk DEVICE OFFSET BYTES`: direct I/O.
    ReadDisk { device: String, offset: u64, bytes: u64 },
    /// `oom BYTES`: a child, first in line for the OOM killer, fills so much; did it survive?
    Oom { bytes: u64 },
    /// `rmmod-balloon`: unloads the balloon driver.
    RmmodBalloon,
    /// `insmod-balloon`: loads it again.
    InsmodBalloon,
    /// `charge PATH`: that container pays for what is touched from now on; `-` for the guest's own.
    Charge { container: String },
    /// `poweroff`.
    PowerOff,
    /// `reboot`.
    Reboot,
}

/// A request that was understood, or the id it had (0 without one) and what is wrong with it.
pub type Request = Result<(u64, Command), (u64, String)>;

/// Parses one line, `ID COMMAND [ARGUMENT...]`.
pub fn parse(line: &str) -> Request {
    let mut words = line.split_ascii_whitespace();
    let id = words.next().unwrap_or_default();
    let Ok(id) = id.parse::<u64>() else {
        return Err((0, format!("Expected `ID COMMAND`, the ID a number, got {id:?}")));
    };
    let verb = words.next().unwrap_or_default();
    let mut arguments = Arguments { verb, words };
    let command = arguments.command().and_then(|command| match arguments.words.next() {
        Some(more) => Err(format!("{verb}: unexpected argument {more:?}")),
        None => Ok(command),
    });
    command.map(|command| (id, command)).map_err(|problem| (id, problem))
}

struct Arguments<'a> {
    verb: &'a str,
    words: SplitAsciiWhitespace<'a>,
}

impl Arguments<'_> {
    fn command(&mut self) -> Result<Command, String> {
        Ok(match self.verb {
            "ping" => Command::Ping,
            "alloc" => Command::Alloc { name: self.text("NAME")?, bytes: self.bytes()?, seed: self.seed()? },
            "touch" => Command::Touch { name: self.text("NAME")? },
            "rewrite" => Command::Rewrite { name: self.text("NAME")?, seed: self.seed()? },
            "verify" => Command::Verify { name: self.text("NAME")? },
            "free" => Command::Free { name: self.text("NAME")? },
            "holds" => Command::Holds,
            "leak" => Command::Leak { bytes: self.bytes()? },
            "fill-file" => {
                Command::FillFile { path: self.text("PATH")?, bytes: self.bytes()?, seed: self.seed()? }
            }
            "read-file" => {
                Command::ReadFile { path: self.text("PATH")?, bytes: self.optional("BYTES", u64::MAX)? }
            }
            "map-file" => Command::MapFile { name: self.text("NAME")?, path: self.text("PATH")? },
            "write-pages" => Command::WritePages {
                name: self.text("NAME")?,
                path: self.text("PATH")?,
                percent: self.percent()?,
                seed: self.seed()?,
            },
            "read-tree" => Command::ReadTree { path: self.text("PATH")? },
            "run" => Command::Run { ms: self.number("MS")?, command: self.rest()? },
            "start" => Command::Start { name: self.text("NAME")?, command: self.rest()? },
            "wait" => Command::Wait { name: self.text("NAME")?, ms: self.number("MS")? },
            "stop" => Command::Stop { name: self.text("NAME")? },
            "drop-caches" => Command::DropCaches,
            "meminfo" => Command::Meminfo,
            "vmstat" => Command::Vmstat { names: self.words.by_ref().map(String::from).collect() },
            "idle" => Command::Idle { ms: self.number("MS")? },
            "mount" => Command::Mount {
                device: self.text("DEVICE")?,
                folder: self.text("FOLDER")?,
                fstype: self.text("FSTYPE")?,
                read_only: self.read_only()?,
            },
            "umount" => Command::Umount { folder: self.text("FOLDER")? },
            "sync" => Command::Sync,
            "write-disk" => Command::WriteDisk {
                device: self.text("DEVICE")?,
                offset: self.number("OFFSET")?,
                bytes: self.bytes()?,
                seed: self.seed()?,
            },
            "clear-disk" => Command::ClearDisk {
                device: self.text("DEVICE")?,
                offset: self.number("OFFSET")?,
                bytes: self.bytes()?,
            },
            "read-disk" => Command::ReadDisk {
                device: self.text("DEVICE")?,
                offset: self.number("OFFSET")?,
                bytes: self.bytes()?,
            },
            "oom" => Command::Oom { bytes: self.bytes()? },
            "rmmod-balloon" => Command::RmmodBalloon,
            "insmod-balloon" => Command::InsmodBalloon,
            "charge" => Command::Charge { container: self.text("PATH")? },
            "poweroff" => Command::PowerOff,
            "reboot" => Command::Reboot,
            unknown => return Err(format!("Unknown command {unknown:?}")),
        })
    }

    fn text(&mut self, what: &str) -> Result<String, String> {
        self.words.next().map(String::from).ok_or_else(|| format!("{}: {what} is missing", self.verb))
    }

    fn number(&mut self, what: &str) -> Result<u64, String> {
        let word = self.text(what)?;
        self.parsed(what, &word)
    }

    fn optional(&mut self, what: &str, default: u64) -> Result<u64, String> {
        self.words.next().map_or(Ok(default), |word| self.parsed(what, word))
    }

    fn bytes(&mut self) -> Result<u64, String> {
        match self.number("BYTES")? {
            0 => Err(format!("{}: BYTES must be above 0", self.verb)),
            bytes => Ok(bytes),
        }
    }

    fn percent(&mut self) -> Result<u64, String> {
        match self.number("PERCENT")? {
            percent @ 1..=100 => Ok(percent),
            other => Err(format!("{}: PERCENT must be from 1 to 100, got {other}", self.verb)),
        }
    }

    fn rest(&mut self) -> Result<String, String> {
        let words: Vec<&str> = self.words.by_ref().collect();
        match words.is_empty() {
            true => Err(format!("{}: COMMAND is missing", self.verb)),
            false => Ok(words.join(" ")),
        }
    }

    fn seed(&mut self) -> Result<u64, String> {
        self.optional("SEED", 0)
    }

    fn read_only(&mut self) -> Result<bool, String> {
        match self.words.next() {
            None | Some("rw") => Ok(false),
            Some("ro") => Ok(true),
            Some(other) => Err(format!("mount: expected ro or rw, got {other:?}")),
        }
    }

    fn parsed<T: FromStr>(&self, what: &str, word: &str) -> Result<T, String> {
        word.parse().map_err(|_| format!("{}: {what} must be a number, got {word:?}", self.verb))
    }
}

#[cfg(test)]
#[path = "command_test.rs"]
mod tests;
