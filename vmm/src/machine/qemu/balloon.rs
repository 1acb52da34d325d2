//! The balloon of a machine in QEMU's object tree, and the guest's statistics that QEMU keeps there.

use super::qmp::wire::{GetProperty, GuestStats, ListObject, SetProperty};
use super::qmp::{Qmp, QmpError};
use protocol::message::Statistics;
use protocol::time::millis;
use std::time::{SystemTime, UNIX_EPOCH};

/// Types of the balloon, the one that is visible on its bus.
const TYPES: [&str; 4] = [
    "child<virtio-balloon-pci>",
    "child<virtio-balloon-pci-non-transitional>",
    "child<virtio-balloon-pci-transitional>",
    "child<virtio-balloon-device>",
];
/// Where devices are: those with an id, and the others.
const FOLDERS: [&str; 2] = ["/machine/peripheral", "/machine/peripheral-anon"];
/// The property for how often QEMU polls the guest, seconds; 0 for never.
const INTERVAL: &str = "guest-stats-polling-interval";
/// Its value under a balancer, which samples once a second.
const INTERVAL_S: i64 = 1;

/// The balloon of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalloonObject {
    path: String,
    original_interval_s: i64,
    deflates_on_oom: bool,
}

impl BalloonObject {
    /// Finds the balloon, and changes nothing. `None` for a machine without one.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn find(qmp: &mut Qmp) -> Result<Option<Self>, QmpError> {
        for folder in FOLDERS {
            let children = qmp.call(&ListObject { path: folder.into() })?;
            let balloon = children.iter().find(|child| TYPES.contains(&child.kind.as_str()));
            if let Some(balloon) = balloon {
                let path = format!("{folder}/{}", balloon.name);
                let found = qmp.call(&GetProperty { path: path.clone(), property: INTERVAL })?;
                let on_oom = qmp.call(&GetProperty { path: path.clone(), property: "deflate-on-oom" })?;
                return Ok(Some(Self {
                    path,
                    original_interval_s: found.as_i64().unwrap_or(0),
                    deflates_on_oom: on_oom.as_bool().unwrap_or(false),
                }));
            }
        }
        Ok(None)
    }

    /// True if the guest deflates the balloon by itself when it is out of memory.
    #[must_use]
    pub fn deflates_on_oom(&self) -> bool {
        self.deflates_on_oom
    }

    /// How often QEMU polled the guest for statistics before the first change, seconds; 0 for never.
    #[must_use]
    pub fn original_interval_s(&self) -> i64 {
        self.original_interval_s
    }

    /// Makes QEMU poll the guest for statistics as often as the balancer samples them.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn poll_often(&self, qmp: &mut Qmp) -> Result<(), QmpError> {
        self.set_interval(qmp, INTERVAL_S)
    }

    /// Makes QEMU poll the guest at this interval, seconds; 0 for never.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn set_interval(&self, qmp: &mut Qmp, seconds: i64) -> Result<(), QmpError> {
        let path = self.path.clone();
        qmp.call(&SetProperty { path, property: INTERVAL, value: seconds.into() })?;
        Ok(())
    }

    /// The guest's statistics; `None` before its first sample.
    ///
    /// # Errors
    /// When QEMU does not answer, or its answer is malformed.
    pub fn statistics(&self, qmp: &mut Qmp) -> Result<Option<Statistics>, QmpError> {
        let value = qmp.call(&GetProperty { path: self.path.clone(), property: "guest-stats" })?;
        let stats: GuestStats = serde_json::from_value(value)
            .map_err(|error| QmpError::Malformed { command: "qom-get", problem: error.to_string() })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(statistics(&stats, millis(now)))
    }
}

/// Converts QEMU's names (`balloon_stat_names` in hw/virtio/virtio-balloon.c) to the protocol's. `sequence` is the
/// second in which QEMU got the sample: it counts up, and equal numbers are one sample.
fn statistics(found: &GuestStats, now_ms: u64) -> Option<Statistics> {
    if found.last_update == 0 {
        return None;
    }
    // -1 is a figure that the guest does not report.
    let of = |name: &str| found.stats.get(name).copied().filter(|value| *value != u64::MAX);
    Some(Statistics {
        swap_in_bytes: of("stat-swap-in"),
        swap_out_bytes: of("stat-swap-out"),
        major_faults: of("stat-major-faults"),
        minor_faults: of("stat-minor-faults"),
        free_memory_bytes: of("stat-free-memory"),
        total_memory_bytes: of("stat-total-memory"),
        available_memory_bytes: of("stat-available-memory"),
        disk_caches_bytes: of("stat-disk-caches"),
        hugetlb_allocations: of("stat-htlb-pgalloc"),
        hugetlb_failures: of("stat-htlb-pgfail"),
        oom_kills: of("stat-oom-kills"),
        alloc_stalls: of("stat-alloc-stalls"),
        async_scans: of("stat-async-scans"),
        direct_scans: of("stat-direct-scans"),
        async_reclaims: of("stat-async-reclaims"),
        direct_reclaims: of("stat-direct-reclaims"),
        ballooned_used_bytes: 0,
        sequence: found.last_update,
        age_ms: now_ms.saturating_sub(found.last_update.saturating_mul(1000)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_the_guest_does_not_report_is_none_and_the_age_comes_from_qemu() {
        let text = r#"{"stats": {"stat-swap-out": 18446744073709551615, "stat-available-memory": 4096,
            "stat-oom-kills": 2, "stat-of-tomorrow": 1}, "last-update": 100}"#;
        let found: GuestStats = serde_json::from_str(text).unwrap();
        let sample = statistics(&found, 102_500).unwrap();
        assert_eq!(
            (sample.swap_out_bytes, sample.available_memory_bytes, sample.oom_kills),
            (None, Some(4096), Some(2))
        );
        assert_eq!((sample.sequence, sample.age_ms), (100, 2500));
        assert_eq!(statistics(&found, 0).unwrap().age_ms, 0, "a clock that was set back");
        assert_eq!(statistics(&GuestStats { last_update: 0, ..found }, 5), None);
    }
}
