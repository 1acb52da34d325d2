//! Memory of the host: `/proc/meminfo` and, where there is one, `/proc/pressure/memory`.

use serde::{Deserialize, Serialize};
use std::time::Instant;
use utoipa::ToSchema;

/// Memory of the host as the kernel reports it (`Documentation/filesystems/proc.rst`, meminfo).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostMemory {
    /// `MemTotal`, bytes.
    pub total_bytes: u64,
    /// `MemFree`, bytes.
    pub free_bytes: u64,
    /// `MemAvailable`: memory that could be used without swapping, bytes.
    pub available_bytes: u64,
    /// `Cached`, bytes.
    pub cached_bytes: u64,
    /// `Buffers`: page cache of block devices, bytes.
    pub buffers_bytes: u64,
    /// `SwapTotal`, bytes.
    pub swap_total_bytes: u64,
    /// `SwapFree`, bytes.
    pub swap_free_bytes: u64,
    /// Pressure stall information; `null` where the kernel has none.
    pub pressure: Option<Pressure>,
}

impl HostMemory {
    /// All page cache of the host, bytes; `u64::MAX` if the kernel does not report it.
    #[must_use]
    pub fn page_cache_bytes(&self) -> u64 {
        match self.cached_bytes.saturating_add(self.buffers_bytes) {
            0 => u64::MAX,
            bytes => bytes,
        }
    }
}

/// Part of the last 10 seconds in which tasks stalled for memory (`Documentation/accounting/psi.rst`). Percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pressure {
    /// Some task stalled.
    pub some_avg10: f64,
    /// All tasks stalled.
    pub full_avg10: f64,
}

/// A reading and when it was taken.
#[derive(Debug, Clone)]
pub struct HostSample {
    /// The reading.
    pub memory: HostMemory,
    /// When.
    pub at: Instant,
}

impl HostSample {
    /// Reads the host's figures now. A figure that is missing is 0.
    #[must_use]
    pub fn take() -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let pressure = std::fs::read_to_string("/proc/pressure/memory").ok();
        Self { memory: parse(&meminfo, pressure.as_deref()), at: Instant::now() }
    }
}

fn parse(meminfo: &str, pressure: Option<&str>) -> HostMemory {
    let field = |name: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.map_or(0, |kib| kib.saturating_mul(1024))
    };
    HostMemory {
        total_bytes: field("MemTotal"),
        free_bytes: field("MemFree"),
        available_bytes: field("MemAvailable"),
        cached_bytes: field("Cached"),
        buffers_bytes: field("Buffers"),
        swap_total_bytes: field("SwapTotal"),
        swap_free_bytes: field("SwapFree"),
        pressure: pressure.and_then(parse_pressure),
    }
}

fn parse_pressure(text: &str) -> Option<Pressure> {
    let avg10 = |kind: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
    };
    Some(Pressure { some_avg10: avg10("some")?, full_avg10: avg10("full")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_pressure_are_parsed() {
        let meminfo = "MemTotal:       2048 kB\nMemFree:         512 kB\nMemAvailable:   1024 kB\n\
                       SwapCached: 7 kB\nBuffers: 2 kB\nCached: 3 kB\n";
        let pressure = "some avg10=1.50 avg60=0.00 avg300=0.00 total=1\n\
                        full avg10=0.25 avg60=0.00 avg300=0.00 total=1\n";
        let host = parse(meminfo, Some(pressure));
        assert_eq!((host.total_bytes, host.available_bytes, host.cached_bytes), (2 << 20, 1 << 20, 3 << 10));
        assert_eq!((host.page_cache_bytes(), parse("", None).page_cache_bytes()), (5 << 10, u64::MAX));
        assert_eq!(host.pressure, Some(Pressure { some_avg10: 1.5, full_avg10: 0.25 }));
        assert_eq!(parse("", None), HostMemory::default());
    }

    #[test]
    fn the_total_is_what_sysinfo_reports() {
        let info = rustix::system::sysinfo();
        let total_bytes = info.totalram as u64 * u64::from(info.mem_unit);
        assert_eq!(HostSample::take().memory.total_bytes, total_bytes);
    }
}
