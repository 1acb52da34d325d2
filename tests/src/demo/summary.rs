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

/// Two guests on one root, amounts in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared {
    /// What both map of the images, once; what they would hold alone; what that saves.
    pub held: u64,
    pub alone: u64,
    pub saved: u64,
    /// What went from the guests' container to the one that an image was bound to.
    pub bound: u64,
    pub writes: Writes,
}

/// What one of them wrote over a file of an image, what it is charged more for that, and what the other one is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writes {
    pub written: u64,
    pub writer: u64,
    pub other: u64,
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
    /// Next to guest RAM, the smallest of the three.
    pub vmm_overhead_bytes: u64,
    /// Resident memory of the balancer.
    pub balancer_bytes: u64,
    /// The second part.
    pub shared: Shared,
}

impl Summary {
    /// The text.
    pub(crate) fn text(&self, seen: Seen) -> String {
        let mib = |bytes: u64| bytes / MIB;
        let Writes { written, writer, other } = self.shared.writes;
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
  Overhead      {:.1}M for a vmm next to guest RAM, {:.1}M for the balancer
  One root      two guests with nginx, redis and python hold {}M of images once; alone {}M: {}M saved
  Binding       {}M of the image that was bound went from the guests to /common
  Own writes    {}M over a file of the image: {}M more for the writer, {}M for the other guest, whose file is the same
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
            mib(self.shared.held),
            mib(self.shared.alone),
            mib(self.shared.saved),
            mib(self.shared.bound),
            mib(written),
            mib(writer),
            mib(other),
        )
    }
}
