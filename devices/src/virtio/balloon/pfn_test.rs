use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn frames(runs: &[FrameRun]) -> Vec<u64> {
    runs.iter().flat_map(|run| run.first..run.first + run.count).collect()
}

/// Numbers that are near each other, so that runs and repetitions come about, and a few anywhere.
fn pfns() -> impl Strategy<Value = Vec<u32>> {
    let near = prop_oneof![8 => 0..64u32, 1 => any::<u32>(), 1 => Just(u32::MAX)];
    prop::collection::vec(near, 0..300)
}

proptest! {
    #[test]
    fn runs_hold_exactly_the_frames_given(mut list in pfns()) {
        let given: BTreeSet<u64> = list.iter().map(|&pfn| pfn.into()).collect();
        let (runs, repeated) = merge(&mut list);
        prop_assert_eq!(frames(&runs), Vec::from_iter(given.clone()));
        prop_assert_eq!(repeated as usize, list.len() - given.len());
        // Disjoint, sorted and not mergeable any further.
        for pair in runs.windows(2) {
            prop_assert!(pair[0].first + pair[0].count < pair[1].first);
        }
    }

    #[test]
    fn frames_that_are_not_ram_are_left_out_and_counted(mut list in pfns(), start in 0..64u64, len in 0..64u64) {
        let ram = start..start + len;
        let (runs, _) = merge(&mut list);
        let all = frames(&runs);
        let (inside, refused) = inside_ram(runs, |run| {
            ram.contains(&run.first) && run.first + run.count <= ram.end
        });
        let expected: Vec<u64> = all.iter().copied().filter(|frame| ram.contains(frame)).collect();
        prop_assert_eq!(refused as usize, all.len() - expected.len());
        prop_assert_eq!(frames(&inside), expected);
        for pair in inside.windows(2) {
            prop_assert!(pair[0].first + pair[0].count <= pair[1].first);
        }
    }
}

#[test]
fn a_falling_list_becomes_one_run() {
    let mut list: Vec<u32> = (1000..1256).rev().collect();
    assert_eq!(merge(&mut list), (vec![FrameRun { first: 1000, count: 256 }], 0));
}
