//! How exact the kernel's own figures are, and its clocks.

use std::sync::OnceLock;
use std::time::Duration;

/// By how many frames `/proc/PID/statm` may be wrong. Until Linux 6.16 it left out the pages that each CPU had counted
/// for itself: a batch of max(32, 2 n) pages on each of n CPUs (lib/percpu_counter.c; "mm: fix the inaccurate memory
/// statistics issue for users").
#[must_use]
pub fn statm_error_frames() -> u64 {
    static FRAMES: OnceLock<u64> = OnceLock::new();
    *FRAMES.get_or_init(|| if release() >= (6, 16) { 0 } else { batches(cpus()) })
}

fn batches(cpus: u64) -> u64 {
    cpus * (2 * cpus).max(32)
}

/// Version of the running kernel; 0.0 if its name does not begin with one.
fn release() -> (u64, u64) {
    version(&rustix::system::uname().release().to_string_lossy())
}

fn version(release: &str) -> (u64, u64) {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u64>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// CPUs that this host may ever have: `/sys/devices/system/cpu/possible`, as `0-7` or `0,2-3`. It counts CPUs that are
/// off now, for each of them has its own counters.
fn cpus() -> u64 {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let possible = count_cpus(&read("/sys/devices/system/cpu/possible"));
    possible.unwrap_or_else(|| online_cpus(&read("/proc/stat")).max(1))
}

/// Lines of `/proc/stat` that are about one CPU: what is known where `/sys` is not mounted.
fn online_cpus(stat: &str) -> u64 {
    let is_cpu = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    stat.lines().filter(is_cpu).count() as u64
}

fn count_cpus(list: &str) -> Option<u64> {
    list.trim().split(',').try_fold(0, |sum: u64, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// True if the host has swap space.
#[must_use]
pub fn has_swap() -> bool {
    rustix::system::sysinfo().totalswap != 0
}

/// CPU time that this thread used so far.
#[must_use]
pub fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_batches_are_computed_from_text() {
        assert_eq!(
            (version("6.12.48+deb13-cloud-amd64"), version("7.0-rc1"), version("")),
            ((6, 12), (7, 0), (0, 0))
        );
        assert_eq!((batches(1), batches(16), batches(64)), (32, 512, 64 * 128));
    }

    #[test]
    fn a_list_of_cpus_is_counted() {
        assert_eq!((count_cpus("0-7\n"), count_cpus("0"), count_cpus("0,2-3")), (Some(8), Some(1), Some(3)));
        assert_eq!((count_cpus(""), count_cpus("3-1"), count_cpus("all")), (None, None, None));
        assert_eq!(online_cpus("cpu  1 2\ncpu0 1 2\ncpu1 1 2\nintr 7\n"), 2);
    }
}
