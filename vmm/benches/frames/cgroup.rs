//! Two memory cgroups: the root's, which charges nothing, and a new one for this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The root's memory cgroup and a new one. Dropping this moves the process back to its first cgroup.
pub struct Pair {
    root: PathBuf,
    home: PathBuf,
    own: PathBuf,
}

impl Pair {
    /// Makes the new cgroup, version 1 or 2.
    pub fn open() -> Result<Self, String> {
        let of = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let (root, path) = of
            .lines()
            .find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
                let root = Path::new("/sys/fs/cgroup");
                match controllers {
                    "memory" => Some((root.join("memory"), path)),
                    "" if root.join("cgroup.controllers").exists() => Some((root.into(), path)),
                    _ => None,
                }
            })
            .ok_or("this machine has none")?;
        let home = root.join(path);
        // In version 2 a group with processes cannot have groups that are charged; a sibling of it can be charged.
        let own = root.join(format!("ballast-bench-{}", std::process::id()));
        fs::create_dir(&own).map_err(|error| format!("{} cannot be made: {error}", own.display()))?;
        let pair = Self { root, home, own };
        let charges =
            ["memory.current", "memory.usage_in_bytes"].iter().any(|file| pair.own.join(file).exists());
        if charges { Ok(pair) } else { Err(format!("{} is not charged", pair.own.display())) }
    }

    pub fn enter_root(&self) -> io::Result<()> {
        enter(&self.root)
    }

    pub fn enter_own(&self) -> io::Result<()> {
        enter(&self.own)
    }
}

fn enter(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = enter(&self.home);
        let _ = fs::remove_dir(&self.own);
    }
}
