//! `/proc`: the one parser of each file about a process (proc(5)).
//!
//! ```text
//!   Folder::of(pid).read::<Statm>()      reads a file once
//!   Opened::<Statm>::new(&folder)        keeps it open, for a reader that asks often: one pread each time, no memory
//! ```

use protocol::bytes::FRAME_BYTES;
use std::fs::{self, File};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

/// The folder of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

/// What is read of one file of that folder.
pub trait Figures: Sized {
    /// Name of the file.
    const FILE: &'static str;

    /// Parses the file's text; `None` if it is not such a text.
    fn parse(text: &str) -> Option<Self>;
}

impl Folder {
    /// That of this process.
    #[must_use]
    pub fn own() -> Self {
        Self("/proc/self".into())
    }

    /// That of any process.
    #[must_use]
    pub fn of(pid: i32) -> Self {
        Self(format!("/proc/{pid}").into())
    }

    /// Reads figures once.
    ///
    /// # Errors
    /// When the process is gone, or this one may not look.
    pub fn read<T: Figures>(&self) -> io::Result<T> {
        parse(&fs::read_to_string(self.0.join(T::FILE))?)
    }

    /// The lines of `maps`, for [`mappings`].
    ///
    /// # Errors
    /// When the process is gone, or this one may not look.
    pub fn maps(&self) -> io::Result<String> {
        fs::read_to_string(self.0.join("maps"))
    }

    /// Opens `pagemap`.
    ///
    /// # Errors
    /// When the process is gone, or this one may not look (ptrace(2), `PTRACE_MODE_READ`).
    pub fn pagemap(&self) -> io::Result<File> {
        File::open(self.0.join("pagemap"))
    }

    /// Path of the program; empty if that is not known.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        fs::read_link(self.0.join("exe")).unwrap_or_default()
    }

    /// Open descriptors: the length of `fd` (Linux 6.2, `proc_fd_getattr` in fs/proc/fd.c); before, its entries are
    /// counted.
    ///
    /// # Errors
    /// When the process is gone, or this one may not look.
    pub fn fds(&self) -> io::Result<u64> {
        let fd = self.0.join("fd");
        match fs::metadata(&fd)?.len() {
            0 => Ok(fs::read_dir(&fd)?.count() as u64),
            length => Ok(length),
        }
    }

    /// Threads: `task` has two links and one more for each thread (`proc_task_getattr` in fs/proc/base.c).
    ///
    /// # Errors
    /// When the process is gone, or this one may not look.
    pub fn threads(&self) -> io::Result<u64> {
        Ok(fs::metadata(self.0.join("task"))?.nlink().saturating_sub(2))
    }
}

/// All processes that this one can see.
pub fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parse<T: Figures>(text: &str) -> io::Result<T> {
    let strange =
        || io::Error::new(io::ErrorKind::InvalidData, format!("{} of a process is {text:?}", T::FILE));
    T::parse(text).ok_or_else(strange)
}

/// A file of a process that stays open.
#[derive(Debug)]
pub struct Opened<T>(File, PhantomData<fn() -> T>);

impl<T: Figures> Opened<T> {
    /// Opens it.
    ///
    /// # Errors
    /// When the process is gone, or this one may not look.
    pub fn new(folder: &Folder) -> io::Result<Self> {
        Ok(Self(File::open(folder.0.join(T::FILE))?, PhantomData))
    }

    /// Reads the figures of now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn read(&self) -> io::Result<T> {
        let mut text = [0; 4096];
        let count = self.0.read_at(&mut text, 0)?;
        parse(&String::from_utf8_lossy(&text[..count]))
    }
}

/// `/proc/PID/statm`: resident memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statm {
    /// Pages in memory, of all kinds.
    pub resident_frames: u64,
    /// Those of them that are pages of files or of shared memory.
    pub file_frames: u64,
}

impl Figures for Statm {
    const FILE: &'static str = "statm";

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace().skip(1).map(|field| field.parse::<u64>().ok());
        Some(Self { resident_frames: fields.next()??, file_frames: fields.next()?? })
    }
}

impl Statm {
    /// Pages in memory, bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.resident_frames.saturating_mul(FRAME_BYTES)
    }

    /// Anonymous pages in memory.
    #[must_use]
    pub fn anonymous_frames(&self) -> u64 {
        self.resident_frames.saturating_sub(self.file_frames)
    }
}

/// `/proc/PID/status` (proc_pid_status(5)). All figures of memory come from one read: a page that is swapped out
/// between two reads would be in neither sum, or in both. A line that is missing counts as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Memory that is resident; `None` where there are no figures, as for a process of the kernel.
    pub resident: Option<Resident>,
    /// Anonymous memory that was swapped out (`VmSwap`), bytes.
    pub swapped_bytes: u64,
    /// Page tables, which are not resident memory (`VmPTE`), bytes.
    pub page_tables_bytes: u64,
    /// False if huge pages are off for the process (`THP_enabled`, Linux 5.0); true where the kernel does not say.
    pub has_huge_pages: bool,
}

/// Resident memory of a process, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Anonymous memory (`RssAnon`), bytes. The zero page does not count.
    pub anonymous_bytes: u64,
    /// Pages of files and of shared memory that are mapped (`RssFile` and `RssShmem`), bytes.
    pub file_bytes: u64,
}

impl Figures for Status {
    const FILE: &'static str = "status";

    fn parse(text: &str) -> Option<Self> {
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let bytes = |name| {
            let kib = line(name)?.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
            Some(kib.saturating_mul(1024))
        };
        let resident = |anonymous_bytes| Resident {
            anonymous_bytes,
            file_bytes: bytes("RssFile").unwrap_or(0).saturating_add(bytes("RssShmem").unwrap_or(0)),
        };
        Some(Self {
            resident: bytes("RssAnon").map(resident),
            swapped_bytes: bytes("VmSwap").unwrap_or(0),
            page_tables_bytes: bytes("VmPTE").unwrap_or(0),
            has_huge_pages: line("THP_enabled").is_none_or(|value| value.trim() != "0"),
        })
    }
}

/// `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The process that started it, or took it over; field 4.
    pub parent: i32,
    /// Minor and major page faults of all its threads; fields 10 and 12.
    pub faults: u64,
    /// When it started, clock ticks since the host did; field 22.
    pub started_ticks: u64,
}

impl Figures for Stat {
    const FILE: &'static str = "stat";

    fn parse(text: &str) -> Option<Self> {
        // The name of the program is in parentheses and may have anything in it; field 3 comes next.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: i32::try_from(number(4)?).ok()?,
            faults: number(10)?.saturating_add(number(12)?),
            started_ticks: number(22)?,
        })
    }
}

/// A line of `/proc/PID/maps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// First address.
    pub start: u64,
    /// The address behind it.
    pub end: u64,
    /// `rw-p`: what may be done with it, and whether it is private.
    pub mode: &'a str,
    /// True if there is no file behind it.
    pub is_anonymous: bool,
    /// First word of the file's path or of the kernel's name for it; empty if it has none.
    pub name: &'a str,
}

/// The mappings in the text of a `maps`, ascending. A line of another form is left out.
pub fn mappings(maps: &str) -> impl Iterator<Item = Mapping<'_>> {
    maps.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let (start, end, mode) = (hex(start)?, hex(end)?, words.next()?);
        let is_anonymous = words.nth(2)? == "0";
        Some(Mapping { start, end, mode, is_anonymous, name: words.next().unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_parsed_whatever_the_program_is_called() {
        let stat = "12 (qemu) (x) S 1 12 12 0 -1 4194304 1500 7 3 9 11 12 0 0 20 0 1 0 777 4096";
        assert_eq!(Stat::parse(stat), Some(Stat { parent: 1, faults: 1503, started_ticks: 777 }));
        assert_eq!((Stat::parse("12 (x) S 1"), Stat::parse("")), (None, None));
        let statm = Statm { resident_frames: 500, file_frames: 120 };
        assert_eq!(Statm::parse("900 500 120 1 0 300 0\n"), Some(statm));
        assert_eq!((statm.resident_bytes(), statm.anonymous_frames()), (500 << 12, 380));
        assert_eq!((Statm::parse("900 500"), Statm::parse("a b c")), (None, None));
    }

    #[test]
    fn figures_of_memory_come_from_one_text() {
        let text = "Name:\tvmm\nVmRSS:\t  40 kB\nRssAnon:\t  20 kB\nRssFile:\t  16 kB\nRssShmem:\t  4 kB\n\
                    VmPTE:\t     188 kB\nVmSwap:\t      12 kB\nTHP_enabled:\t0\n";
        let status = Status {
            resident: Some(Resident { anonymous_bytes: 20 << 10, file_bytes: 20 << 10 }),
            swapped_bytes: 12 << 10,
            page_tables_bytes: 188 << 10,
            has_huge_pages: false,
        };
        assert_eq!(Status::parse(text), Some(status));
        let unknown = Status { resident: None, swapped_bytes: 0, page_tables_bytes: 0, has_huge_pages: true };
        assert_eq!(Status::parse("Name:\tkthreadd\nVmSwap: lots\n"), Some(unknown));
    }

    #[test]
    fn mappings_are_parsed_and_other_lines_are_left_out() {
        let maps = "1000-3000 rw-p 00000000 00:00 0 \nnonsense\n\
                    6000-8000 rw-s 00000000 00:01 77 /memfd:ram (deleted)\n";
        let found: Vec<_> = mappings(maps).collect();
        assert_eq!(
            found,
            [
                Mapping { start: 0x1000, end: 0x3000, mode: "rw-p", is_anonymous: true, name: "" },
                Mapping { start: 0x6000, end: 0x8000, mode: "rw-s", is_anonymous: false, name: "/memfd:ram" },
            ]
        );
    }

    #[test]
    fn the_files_of_this_process_are_read_once_and_often() {
        let (own, pid) = (Folder::own(), std::process::id().cast_signed());
        let same = Folder::of(pid);
        let opened = (Opened::<Statm>::new(&own).unwrap(), Opened::<Status>::new(&same).unwrap());
        let (statm, status) = (opened.0.read().unwrap(), opened.1.read().unwrap());
        assert!(statm.anonymous_frames() > 0 && statm.file_frames > 0 && status.page_tables_bytes > 0);
        assert_eq!(own.read::<Stat>().unwrap().started_ticks, same.read::<Stat>().unwrap().started_ticks);
        assert!(own.fds().unwrap() >= 3 && own.threads().unwrap() >= 1);
        assert!(mappings(&own.maps().unwrap()).any(|mapping| mapping.name == "[stack]"));
        assert!(processes().any(|found| found == pid));
        assert!(Folder::of(i32::MAX).read::<Statm>().is_err() && Folder::of(i32::MAX).fds().is_err());
    }

    #[test]
    fn a_process_started_before_its_child_did() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let of_child: Stat = Folder::of(child.id().cast_signed()).read().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let own: Stat = Folder::own().read().unwrap();
        assert!(own.started_ticks > 0 && own.started_ticks <= of_child.started_ticks);
        assert_eq!(of_child.parent, std::process::id().cast_signed());
    }
}
