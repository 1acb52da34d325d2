use super::*;
use proptest::prelude::*;

fn encode(entries: &[(u16, u64)]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()[..]].concat())
        .collect()
}

#[test]
fn statistics_of_linux_6_12_are_decoded() {
    let entries: Vec<(u16, u64)> = (0..16).map(|tag| (tag, 1000 + u64::from(tag))).collect();
    let (stats, unknown) = BalloonStats::decode(&encode(&entries));
    assert_eq!(unknown, 0);
    let expected = BalloonStats {
        swap_in_bytes: Some(1000),
        swap_out_bytes: Some(1001),
        major_faults: Some(1002),
        minor_faults: Some(1003),
        free_memory_bytes: Some(1004),
        total_memory_bytes: Some(1005),
        available_memory_bytes: Some(1006),
        disk_caches_bytes: Some(1007),
        hugetlb_allocations: Some(1008),
        hugetlb_failures: Some(1009),
        oom_kill: Some(1010),
        alloc_stall: Some(1011),
        async_scan: Some(1012),
        direct_scan: Some(1013),
        async_reclaim: Some(1014),
        direct_reclaim: Some(1015),
    };
    assert_eq!(stats, expected);
}

#[test]
fn an_older_kernel_leaves_fields_absent_and_the_last_value_of_a_tag_counts() {
    let (stats, unknown) = BalloonStats::decode(&encode(&[(4, 1), (5, 2), (4, 3), (99, 4)]));
    assert_eq!((stats.free_memory_bytes, stats.total_memory_bytes, stats.oom_kill), (Some(3), Some(2), None));
    assert_eq!(unknown, 1);
}

proptest! {
    #[test]
    fn any_bytes_decode_to_what_they_say(
        entries in prop::collection::vec((0..20u16, any::<u64>()), 0..100),
        cut in 0..10usize,
    ) {
        let mut bytes = encode(&entries);
        bytes.truncate(bytes.len().saturating_sub(cut));
        let whole = &entries[..(bytes.len() / STAT_BYTES).min(STATS_MAX)];
        let (mut stats, unknown) = BalloonStats::decode(&bytes);
        prop_assert_eq!(unknown as usize, whole.iter().filter(|(tag, _)| *tag > 15).count());
        for tag in 0..16 {
            let last = whole.iter().rev().find(|(other, _)| *other == tag).map(|(_, value)| *value);
            prop_assert_eq!(*stats.field(tag).unwrap(), last);
        }
    }

    #[test]
    fn noise_is_harmless(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        BalloonStats::decode(&bytes);
    }
}
