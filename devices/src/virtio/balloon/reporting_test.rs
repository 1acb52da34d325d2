use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn block(gpa: u64, len: u32) -> Option<(u64, u64)> {
    whole_frames(Extent { gpa, len, writable: true }).map(|run| (run.first, run.count))
}

#[test]
fn only_whole_frames_of_a_block_count() {
    assert_eq!(block(0x1000, 0x2000), Some((1, 2)));
    assert_eq!(block(0x1001, 0x2000), Some((2, 1)));
    assert_eq!(block(0x1fff, 0x1000), None);
    assert_eq!(block(0x1000, 0xfff), None);
    assert_eq!(block(0x1000, 0), None);
    assert_eq!(block(u64::MAX, 1), None);
    assert_eq!(block(u64::MAX - 0xfff, 0x1000), None);
    assert_eq!(block(u64::MAX, u32::MAX), None);
}

proptest! {
    #[test]
    fn joined_runs_hold_each_frame_once(list in prop::collection::vec((0..100u64, 1..20u64), 0..30)) {
        let runs: Vec<FrameRun> = list.iter().map(|&(first, count)| FrameRun { first, count }).collect();
        let all: Vec<u64> = runs.iter().flat_map(|run| run.first..run.first + run.count).collect();
        let once: BTreeSet<u64> = all.iter().copied().collect();
        let (joined, repeated) = join(runs);
        let frames: Vec<u64> = joined.iter().flat_map(|run| run.first..run.first + run.count).collect();
        prop_assert_eq!(repeated as usize, all.len() - once.len());
        prop_assert_eq!(frames, Vec::from_iter(once));
        for pair in joined.windows(2) {
            prop_assert!(pair[0].first + pair[0].count < pair[1].first);
        }
    }
}
