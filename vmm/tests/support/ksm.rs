//! KSM at full speed for one test, on a host where no other process uses it. Dropping this restores the settings.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Settings of the kernel, and their values while a test runs.
const SETTINGS: [(&str, &str); 4] =
    [("use_zero_pages", "0"), ("pages_to_scan", "20000"), ("sleep_millisecs", "10"), ("run", "1")];

pub struct Ksm(Vec<(PathBuf, String)>);

impl Ksm {
    /// Switches it on, or returns the reason why not.
    pub fn start() -> Result<Self, String> {
        let dir = Path::new("/sys/kernel/mm/ksm");
        let read = |name: &str| fs::read_to_string(dir.join(name)).map(|text| text.trim().to_owned());
        if read("run").map_err(|_| "this kernel has no KSM")? != "0" {
            return Err("KSM runs on this host already".into());
        }
        if let Some(pid) = merging_process() {
            return Err(format!("pages of process {pid} would be merged too"));
        }
        if own("ksm_merging_pages").is_none() {
            return Err("this kernel does not report merged pages of a process (Linux 6.4 does)".into());
        }
        let mut ksm = Self(vec![]);
        for (name, value) in SETTINGS {
            let before = read(name).map_err(|error| format!("{name} cannot be read: {error}"))?;
            ksm.0.push((dir.join(name), before));
            set(&dir.join(name), value).map_err(|error| format!("{name} cannot be set: {error}"))?;
        }
        Ok(ksm)
    }
}

impl Drop for Ksm {
    fn drop(&mut self) {
        for (path, before) in self.0.iter().rev() {
            if let Err(error) = set(path, before) {
                eprintln!("{} could not be set back to {before}: {error}", path.display());
            }
        }
    }
}

fn set(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, value)
}

/// A figure of this process in `/proc/self/ksm_stat`.
pub fn own(name: &str) -> Option<u64> {
    figure(&fs::read_to_string("/proc/self/ksm_stat").ok()?, name)
}

fn figure(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// A process that asked to be merged.
fn merging_process() -> Option<i32> {
    fs::read_dir("/proc").ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("ksm_stat")).unwrap_or_default();
        let asked = stat.lines().any(|line| line.starts_with("ksm_merg") && line.ends_with(": yes"));
        (asked || figure(&stat, "ksm_rmap_items").is_some_and(|items| items > 0)).then_some(pid)
    })
}
