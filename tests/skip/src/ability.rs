//! What a machine may lack, and how to see that it does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bit of `CAP_SYS_ADMIN` in the capability sets of `/proc/self/status`.
const CAP_SYS_ADMIN: u32 = 21;
/// Blocks of `/proc/buddyinfo` of this order and above are huge pages: 2 MiB.
const HUGE_ORDER: usize = 9;

/// Something that some tests need and not every machine has. Only what `tests/skip/allowed.txt` names may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// `/dev/kvm` can be opened.
    Kvm,
    /// The effective user is root.
    Root,
    /// File systems can be mounted.
    Mount,
    /// `unshare` makes a mount namespace.
    MountNamespace,
    /// The kernel mounts EROFS from a loop device.
    ErofsMount,
    /// The programs of erofs-utils, with compression. `scripts/setup.sh` installs them.
    ErofsUtils,
    /// KSM can be switched on, and no other process uses it.
    Ksm,
    /// The kernel reports what is merged of one process (Linux 6.4).
    KsmStat,
    /// DAMON has its control files, and no other process uses it.
    Damon,
    /// userfaultfd handles faults of the kernel too.
    Userfaultfd,
    /// The folder of the test programs is on a disk, not in a tmpfs.
    ProgramsOnDisk,
    /// The folder of temporary files is on a disk, not in a tmpfs.
    TemporaryOnDisk,
    /// A memory cgroup of one's own can be made.
    MemoryCgroup,
    /// Pressure stall information of memory.
    Psi,
    /// Extended attributes of all name spaces can be set on temporary files.
    Xattr,
    /// The system call cachestat (Linux 6.5).
    Cachestat,
    /// `PAGEMAP_SCAN` (Linux 6.7).
    PagemapScan,
    /// The host gives huge pages.
    HugePages,
    /// schemathesis can be installed from PyPI: `scripts/schemathesis.sh`.
    Schemathesis,
}

impl Ability {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Kvm,
        Self::Root,
        Self::Mount,
        Self::MountNamespace,
        Self::ErofsMount,
        Self::ErofsUtils,
        Self::Ksm,
        Self::KsmStat,
        Self::Damon,
        Self::Userfaultfd,
        Self::ProgramsOnDisk,
        Self::TemporaryOnDisk,
        Self::MemoryCgroup,
        Self::Psi,
        Self::Xattr,
        Self::Cachestat,
        Self::PagemapScan,
        Self::HugePages,
        Self::Schemathesis,
    ];

    /// The word in the list of what may be missing.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Root => "root",
            Self::Mount => "mount",
            Self::MountNamespace => "mount-namespace",
            Self::ErofsMount => "erofs-mount",
            Self::ErofsUtils => "erofs-utils",
            Self::Ksm => "ksm",
            Self::KsmStat => "ksm-stat",
            Self::Damon => "damon",
            Self::Userfaultfd => "userfaultfd",
            Self::ProgramsOnDisk => "programs-on-disk",
            Self::TemporaryOnDisk => "temporary-on-disk",
            Self::MemoryCgroup => "memory-cgroup",
            Self::Psi => "psi",
            Self::Xattr => "xattr",
            Self::Cachestat => "cachestat",
            Self::PagemapScan => "pagemap-scan",
            Self::HugePages => "huge-pages",
            Self::Schemathesis => "schemathesis",
        }
    }

    /// What the summary says when the probe finds the ability.
    #[must_use]
    pub fn present(self) -> &'static str {
        "the probe found it"
    }

    /// Why this machine lacks the ability; `None` if it does not. Nothing on the machine is changed.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Kvm => cannot_open("/dev/kvm"),
            Self::Root => (effective_user()? != 0).then(|| "the effective user is not root".into()),
            Self::Mount => cannot_administer(),
            Self::MountNamespace => fails("unshare", &["--mount", "--map-root-user", "true"]),
            Self::ErofsMount => cannot_administer().or_else(cannot_mount_erofs),
            Self::ErofsUtils => fails("fsck.erofs", &["-V"]).or_else(cannot_compress),
            Self::Ksm => cannot_use_ksm(),
            Self::KsmStat => lacks("/proc/self/ksm_stat", "ksm_process_profit"),
            Self::Damon => cannot_use_damon(),
            Self::Userfaultfd => cannot_handle_faults(),
            Self::ProgramsOnDisk => {
                in_memory(&std::env::current_exe().ok()?.parent().map(Path::to_path_buf)?)
            }
            Self::TemporaryOnDisk => in_memory(&std::env::temp_dir()),
            Self::MemoryCgroup => cannot_make_cgroup(),
            Self::Psi => cannot_open("/proc/pressure/memory"),
            Self::Xattr => cannot_administer().or_else(|| in_memory(&std::env::temp_dir())),
            Self::Cachestat => older_than(6, 5),
            Self::PagemapScan => older_than(6, 7),
            Self::HugePages => no_huge_pages(),
            Self::Schemathesis => {
                fails(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/schemathesis.sh"), &["--version"])
            }
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn lacks(path: &str, word: &str) -> Option<String> {
    (!read(path).contains(word)).then(|| format!("{path} does not contain {word}"))
}

fn cannot_open(path: &str) -> Option<String> {
    let error = fs::OpenOptions::new().read(true).write(true).open(path).err()?;
    Some(format!("{path}: {error}"))
}

fn fails(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Some(format!("{program}: {error}")),
    }
}

/// A field of `/proc/self/status`.
fn status(name: &str) -> Option<String> {
    read("/proc/self/status")
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(Into::into))
}

fn effective_user() -> Option<u32> {
    status("Uid")?.split_whitespace().nth(1)?.parse().ok()
}

fn cannot_administer() -> Option<String> {
    let effective = u64::from_str_radix(status("CapEff")?.trim(), 16).ok()?;
    (effective >> CAP_SYS_ADMIN & 1 == 0).then(|| "this process lacks CAP_SYS_ADMIN".into())
}

fn cannot_mount_erofs() -> Option<String> {
    if !Path::new("/dev/loop-control").exists() {
        return Some("there is no /dev/loop-control".into());
    }
    lacks("/proc/filesystems", "erofs").filter(|_| fails("modprobe", &["--dry-run", "erofs"]).is_some())
}

fn cannot_compress() -> Option<String> {
    let help = Command::new("mkfs.erofs").arg("--help").output();
    let text = help.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    (!String::from_utf8_lossy(&text).contains("lz4")).then(|| "mkfs.erofs does not compress with lz4".into())
}

fn cannot_use_ksm() -> Option<String> {
    const RUN: &str = "/sys/kernel/mm/ksm/run";
    let is_on = || {
        let run = read(RUN);
        (run.trim() != "0")
            .then(|| format!("another user of this host switched KSM on: {RUN} is {}", run.trim()))
    };
    let own = || lacks("/proc/self/ksm_stat", "ksm_merging_pages");
    cannot_open(RUN).or_else(is_on).or_else(own).or_else(merged_process)
}

/// A process that asked to be merged: it would be merged with the test's.
fn merged_process() -> Option<String> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("ksm_stat")).ok()?;
        let is_merged = stat.lines().any(|line| match line.split_once(char::is_whitespace) {
            Some((name, value)) if name.starts_with("ksm_merg") && name.ends_with(':') => {
                value.trim() == "yes"
            }
            Some(("ksm_rmap_items", value)) => value.trim() != "0",
            _ => false,
        });
        is_merged.then(|| format!("process {} uses KSM", entry.file_name().display()))
    })
}

fn cannot_use_damon() -> Option<String> {
    const COUNT: &str = "/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds";
    cannot_open(COUNT).or_else(|| {
        let count = read(COUNT);
        (count.trim() != "0")
            .then(|| format!("another user of this host uses DAMON: {COUNT} is {}", count.trim()))
    })
}

fn cannot_handle_faults() -> Option<String> {
    const SETTING: &str = "/proc/sys/vm/unprivileged_userfaultfd";
    let device = cannot_open("/dev/userfaultfd")?;
    cannot_administer().filter(|_| read(SETTING).trim() != "1").map(|why| format!("{device}; {why}"))
}

/// Whether a folder's file system is a tmpfs: the last mount on the longest path above it counts.
fn in_memory(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = read("/proc/self/mounts");
    let above = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (on, kind) = (PathBuf::from(fields.next()?), fields.next()?);
        folder.starts_with(&on).then_some((on.components().count(), kind))
    });
    let (_, kind) = above.max_by_key(|(length, _)| *length)?;
    (kind == "tmpfs").then(|| format!("{} is on a tmpfs", folder.display()))
}

/// As the tests do: version 1 where the controller is mounted so, otherwise version 2.
fn cannot_make_cgroup() -> Option<String> {
    let groups = read("/proc/self/cgroup");
    let parent = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controller, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        match controller {
            "memory" => Some(PathBuf::from("/sys/fs/cgroup/memory").join(path)),
            "" => Some(PathBuf::from("/sys/fs/cgroup").join(path)),
            _ => None,
        }
    });
    let Some(parent) = parent else { return Some("this process is in no memory cgroup".into()) };
    let own = parent.join(format!("ballast-probe-{}", std::process::id()));
    match fs::create_dir(&own) {
        Err(error) => Some(format!("{}: {error}", own.display())),
        Ok(()) => {
            let has_files =
                ["memory.current", "memory.usage_in_bytes"].iter().any(|name| own.join(name).exists());
            let _ = fs::remove_dir(&own);
            (!has_files).then(|| format!("{} does not count memory", parent.display()))
        }
    }
}

fn older_than(major: u32, minor: u32) -> Option<String> {
    let release = read("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next()?);
    (version < (major, minor)).then(|| format!("the kernel is {}, {major}.{minor} has it", release.trim()))
}

fn no_huge_pages() -> Option<String> {
    const ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    if read(ENABLED).contains("[never]") || read(ENABLED).is_empty() {
        return Some(format!("{ENABLED} is {:?}", read(ENABLED).trim()));
    }
    let buddies = read("/proc/buddyinfo");
    let free = buddies.lines().flat_map(|line| line.split_whitespace().skip(4 + HUGE_ORDER));
    let has_free = free.filter_map(|count| count.parse::<u64>().ok()).any(|count| count > 0);
    (!has_free).then(|| "the host has no free block of 2 MiB".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ability_has_a_name_of_its_own() {
        let mut names: Vec<_> = Ability::ALL.iter().map(|ability| ability.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Ability::ALL.len());
    }

    #[test]
    fn a_probe_says_what_is_missing() {
        assert!(older_than(1, 0).is_none());
        assert!(older_than(1000, 0).unwrap().contains("1000.0 has it"));
        assert!(cannot_open("/nowhere").unwrap().starts_with("/nowhere: "));
        assert!(fails("true", &[]).is_none() && fails("false", &[]).is_some());
        assert!(fails("no-such-program", &[]).unwrap().starts_with("no-such-program: "));
        assert!(lacks("/proc/self/status", "CapEff").is_none());
        assert!(lacks("/proc/self/status", "no such line").is_some());
        assert!(in_memory(Path::new("/proc")).is_none());
    }

    #[test]
    fn the_user_of_this_process_is_known() {
        assert!(effective_user().is_some());
    }
}
