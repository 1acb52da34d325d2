//! What the demo showed, in figures.

use super::screen::Seen;
use super::{MEMBERS, MIB, together_bytes};
use std::time::Duration;

/// Memory that moved, and how long it took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved {
    pub bytes: u64,
    pub took: Duration,
}

/// Everything that the summary says; amounts in bytes.
#[derive(Debug)]
pub(crate) struct Summary {
    /// User space after exec, in the order of the guests.
    pub boots: Vec<Duration>,
    /// What the host held for db before and after its load grew.
    pub grown: [u64; 2],
    /// Targets of web and batch together before and after.
    pub lent: [u64; 2],
    /// Came back by itself after db freed it.
    pub freed: Moved,
    /// A lowered limit: 90 % of the effect.
    pub lowered: Moved,
    /// A raised limit: what web could fill after it.
    pub raised: Moved,
    /// Bytes that were compared with what was written, and were all there.
    pub verified_bytes: u64,
    /// Beside guest RAM, the smallest of the three.
    pub vmm_overhead_bytes: u64,
    /// Resident memory of the balancer.
    pub balancer_bytes: u64,
}

impl Summary {
    /// The text.
    pub(crate) fn text(&self, seen: Seen) -> String {
        let mib = |bytes: u64| bytes / MIB;
        let limits: u64 = MEMBERS.iter().map(|member| member.limit_bytes()).sum();
        let boots: Vec<String> =
            self.boots.iter().map(|boot| format!("{:.1} s", boot.as_secs_f64())).collect();
        format!(
            "
Summary
  Boot          three guests reached user space {} after their start
  Overcommit    limits of {}M in a container of {}M; at the most {}M were held at once
  Load          db grew from {}M to {}M; web and batch, idle, were asked for {}M
  Free          {}M came back to the host {:.1} s after db freed them, without being asked
  Limit lowered PATCH to 90 % of the effect: {:.2} s for {}M
  Limit raised  PATCH to the balloon's answer: {:.2} s; then web filled {}M that it could not hold before
  Contents      {}M compared with what was written: every byte is there
  Frames        every frame of every guest in exactly one state, at each of {} looks
  Overhead      {:.1}M for a vmm beside guest RAM, {:.1}M for the balancer
",
            boots.join(", "),
            mib(limits),
            mib(together_bytes()),
            mib(seen.peak_bytes),
            mib(self.grown[0]),
            mib(self.grown[1]),
            mib(self.lent[0].saturating_sub(self.lent[1])),
            mib(self.freed.bytes),
            self.freed.took.as_secs_f64(),
            self.lowered.took.as_secs_f64(),
            mib(self.lowered.bytes),
            self.raised.took.as_secs_f64(),
            mib(self.raised.bytes),
            mib(self.verified_bytes),
            seen.samples,
            self.vmm_overhead_bytes as f64 / MIB as f64,
            self.balancer_bytes as f64 / MIB as f64,
        )
    }
}
