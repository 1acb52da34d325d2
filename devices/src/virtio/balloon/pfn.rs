//! Frame numbers to runs of frames: sorted, without repetitions, as long as possible.
//!
//! Giving back one run costs about as much as giving back one frame, so this is where inflation is made cheap: Linux
//! sends frame numbers one by one, in the order of its allocator, which is mostly but not always falling.

use super::FrameRun;

/// Merges frame numbers into runs. `pfns` is left sorted. Returns the runs and how many numbers were repetitions.
pub fn merge(pfns: &mut [u32]) -> (Vec<FrameRun>, u64) {
    pfns.sort_unstable();
    let mut runs: Vec<FrameRun> = Vec::new();
    let mut repeated = 0;
    for &pfn in &*pfns {
        let pfn = u64::from(pfn);
        match runs.last_mut() {
            Some(run) if pfn < run.first + run.count => repeated += 1,
            Some(run) if pfn == run.first + run.count => run.count += 1,
            _ => runs.push(FrameRun { first: pfn, count: 1 }),
        }
    }
    (runs, repeated)
}

/// The parts of `runs` that are RAM, and how many frames are not.
///
/// A run that is partly RAM is halved until its parts are clear, so one bad frame number costs a few
/// questions and takes nothing else with it.
pub(super) fn inside_ram(runs: Vec<FrameRun>, is_ram: impl Fn(FrameRun) -> bool) -> (Vec<FrameRun>, u64) {
    let mut inside = Vec::with_capacity(runs.len());
    let mut refused = 0;
    for run in runs {
        let mut open = vec![run];
        while let Some(part) = open.pop() {
            if is_ram(part) {
                inside.push(part);
            } else if part.count == 1 {
                refused += 1;
            } else {
                let half = part.count / 2;
                // The lower half is on top of the stack, so the result stays sorted.
                open.push(FrameRun { first: part.first + half, count: part.count - half });
                open.push(FrameRun { first: part.first, count: half });
            }
        }
    }
    (inside, refused)
}

#[cfg(test)]
#[path = "pfn_test.rs"]
mod tests;
