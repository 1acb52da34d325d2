//! How exact the kernel's own figures are.

use std::sync::OnceLock;

/// What a QEMU is assumed to take beside guest RAM before that was measured, bytes: under TCG, with Debian's kernel, which it maps.
pub const QEMU_BYTES_ASSUMED: u64 = 128 << 20;

/// By how many frames `/proc/PID/statm` may be off. Until Linux 6.16 it left out what each CPU had counted for itself: a
/// batch of max(32, 2 n) pages on each of n CPUs (lib/percpu_counter.c; "mm: fix the inaccurate memory statistics issue for
/// users").
#[must_use]
pub fn statm_error_frames() -> u64 {
    static FRAMES: OnceLock<u64> = OnceLock::new();
    *FRAMES.get_or_init(|| if release() >= (6, 16) { 0 } else { batches(cpus()) })
}

fn batches(cpus: u64) -> u64 {
    cpus * (2 * cpus).max(32)
}

/// Version of the running kernel; 0.0 if it is not told.
fn release() -> (u64, u64) {
    // SAFETY: zeroed is a valid utsname, and the call fills it.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: a valid pointer to it.
    unsafe { libc::uname(&raw mut name) };
    let release: String =
        name.release.iter().take_while(|c| **c != 0).map(|c| char::from(c.cast_unsigned())).collect();
    version(&release)
}

fn version(release: &str) -> (u64, u64) {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u64>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn cpus() -> u64 {
    // SAFETY: a plain call without pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) }).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_batches() {
        assert_eq!(
            (version("6.12.48+deb13-cloud-amd64"), version("7.0-rc1"), version("")),
            ((6, 12), (7, 0), (0, 0))
        );
        assert!(release() > (3, 0) && cpus() > 0);
        assert_eq!((batches(1), batches(16), batches(64)), (32, 512, 64 * 128));
    }
}
