//! A memory cgroup for this process alone, version 1 or 2.

use std::fs;
use std::path::PathBuf;

pub struct Group {
    dir: PathBuf,
    parent: PathBuf,
    usage: &'static str,
}

impl Group {
    pub fn enter() -> Option<Self> {
        let of = fs::read_to_string("/proc/self/cgroup").ok()?;
        let (parent, usage) = of.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
            match controllers {
                "memory" => {
                    Some((PathBuf::from("/sys/fs/cgroup/memory").join(path), "memory.usage_in_bytes"))
                }
                "" => Some((PathBuf::from("/sys/fs/cgroup").join(path), "memory.current")),
                _ => None,
            }
        })?;
        let dir = parent.join(format!("ballast-test-{}", std::process::id()));
        fs::create_dir(&dir).ok()?;
        let group = Self { dir, parent, usage };
        fs::write(group.dir.join("cgroup.procs"), std::process::id().to_string()).ok()?;
        group.dir.join(usage).exists().then_some(group)
    }

    pub fn usage_bytes(&self) -> u64 {
        fs::read_to_string(self.dir.join(self.usage)).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.parent.join("cgroup.procs"), std::process::id().to_string());
        let _ = fs::remove_dir(&self.dir);
    }
}
