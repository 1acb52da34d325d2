//! How much of the host's page cache of disks may stay.
//!
//! It is the cheapest memory to reclaim, so it is dropped before a guest is asked for memory: targets do not include
//! it, and it may use only what the guests under a limit leave of that limit.
//!
//! A file is dropped only if **all containers that are charged for it** are over a limit: the single payer under
//! static, all that divide it under partial. Otherwise a guest with a small limit could keep a disk cold that others
//! read and are charged for. The price: a container may stay over its limit by its part of a cache that others keep
//! warm.

use protocol::path::ContainerPath;

/// A file of which pages are in the page cache and can be dropped.
#[derive(Debug, Clone)]
pub struct CachedView {
    /// What is cached of it, bytes.
    pub bytes: u64,
    /// Containers that are charged for it, and how much, bytes.
    pub payers: Vec<(ContainerPath, u64)>,
}

/// A container above its limit.
#[derive(Debug, Clone)]
pub struct Excess {
    /// The container.
    pub container: ContainerPath,
    /// By how much it is above, bytes.
    pub bytes: u64,
}

/// What may stay of each file, bytes: all of it, unless a container is over a limit. The most expensive files go
/// first.
#[must_use]
pub fn keep(files: &[CachedView], excesses: &[Excess]) -> Vec<u64> {
    let mut keep: Vec<u64> = files.iter().map(|file| file.bytes).collect();
    let is_over = |payer: &ContainerPath| excesses.iter().any(|excess| payer.is_inside(&excess.container));
    let may_go = |file: &CachedView| file.payers.iter().all(|(payer, _)| is_over(payer));
    let mut deepest_first: Vec<&Excess> = excesses.iter().collect();
    deepest_first.sort_by_key(|excess| std::cmp::Reverse(excess.container.ancestors().count()));
    for excess in deepest_first {
        let charge = |file: &CachedView| {
            let inside = file.payers.iter().filter(|(payer, _)| payer.is_inside(&excess.container));
            inside.fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes))
        };
        let relieved =
            files.iter().zip(&keep).map(|(file, kept)| scaled(charge(file), file.bytes - kept, file.bytes));
        let mut needed = excess.bytes.saturating_sub(relieved.fold(0, u64::saturating_add));
        let mut candidates: Vec<usize> =
            (0..files.len()).filter(|index| may_go(&files[*index]) && charge(&files[*index]) > 0).collect();
        candidates.sort_by_key(|index| std::cmp::Reverse(charge(&files[*index])));
        for index in candidates {
            if needed == 0 {
                break;
            }
            let (file, charge) = (&files[index], charge(&files[index]));
            let there = scaled(charge, keep[index], file.bytes);
            // Always rounded up: to drop a byte too much is better than a byte too few.
            if there < needed {
                keep[index] = 0;
                needed -= there;
            } else {
                let dropped = scaled_up(file.bytes, needed, charge);
                keep[index] = keep[index].saturating_sub(dropped);
                needed = 0;
            }
        }
    }
    keep
}

/// `bytes * numerator / denominator`, without overflow.
fn scaled(bytes: u64, numerator: u64, denominator: u64) -> u64 {
    let scaled = u128::from(bytes) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// `bytes * numerator / denominator`, rounded up.
fn scaled_up(bytes: u64, numerator: u64, denominator: u64) -> u64 {
    let scaled = (u128::from(bytes) * u128::from(numerator)).div_ceil(u128::from(denominator.max(1)));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(bytes: u64, payers: &[(&str, u64)]) -> CachedView {
        CachedView {
            bytes,
            payers: payers.iter().map(|(path, bytes)| (path.parse().unwrap(), *bytes)).collect(),
        }
    }

    fn over(container: &str, bytes: u64) -> Excess {
        Excess { container: container.parse().unwrap(), bytes }
    }

    #[test]
    fn nothing_is_dropped_without_a_limit_that_needs_it() {
        let files = [file(100, &[("/a", 100)])];
        assert_eq!(keep(&files, &[]), [100]);
        assert_eq!(keep(&files, &[over("/b", 50)]), [100]);
    }

    #[test]
    fn the_excess_is_dropped_from_the_most_expensive_file_on() {
        let files = [file(100, &[("/a", 100)]), file(1000, &[("/a", 1000)]), file(500, &[("/b", 500)])];
        assert_eq!(keep(&files, &[over("/a", 300)]), [100, 700, 500]);
        assert_eq!(keep(&files, &[over("/a", 1050)]), [50, 0, 500]);
        assert_eq!(keep(&files, &[over("/", 1200)]), [100, 0, 300], "/a and /b are inside");
        assert_eq!(keep(&files, &[over("/", 300), over("/a", 300)]), [100, 700, 500], "not twice");
    }

    #[test]
    fn a_shared_file_is_dropped_when_all_its_payers_are_over_a_limit() {
        let files = [file(100, &[("/a", 50), ("/b", 50)])];
        assert_eq!(keep(&files, &[over("/a", 10)]), [100]);
        assert_eq!(keep(&files, &[over("/a", 10), over("/b", 1)]), [80]);
        assert_eq!(keep(&files, &[over("/", 10)]), [90]);
    }

    proptest! {
        /// Every excess is dropped, or nothing is left that may be dropped for it; and a file is not dropped if a
        /// payer is within all its limits.
        #[test]
        fn limits_hold_as_far_as_dropping_cache_can_make_them(
            of in prop::collection::vec((prop::collection::vec((0usize..5, 1u64..1 << 40), 1..4), 0u64..1 << 40), 0..8),
            excesses in prop::collection::vec((0usize..7, 1u64..1 << 42), 0..4),
        ) {
            let paths = ["/a", "/a/b", "/a/c", "/d", "/d/e", "/", "/f"];
            let files: Vec<CachedView> = of
                .iter()
                .map(|(payers, more)| {
                    let payers: Vec<(&str, u64)> = payers.iter().map(|(path, bytes)| (paths[*path], *bytes)).collect();
                    file(payers.iter().map(|(_, bytes)| bytes).sum::<u64>() + more, &payers)
                })
                .collect();
            let excesses: Vec<Excess> = excesses.iter().map(|(path, bytes)| over(paths[*path], *bytes)).collect();
            let kept = keep(&files, &excesses);
            let may_go = |file: &CachedView| {
                file.payers.iter().all(|(payer, _)| excesses.iter().any(|over| payer.is_inside(&over.container)))
            };
            for (file, kept) in files.iter().zip(&kept) {
                prop_assert!(*kept <= file.bytes && (may_go(file) || *kept == file.bytes));
            }
            for excess in &excesses {
                let (mut relief, mut left) = (0u64, 0u64);
                for (file, kept) in files.iter().zip(&kept) {
                    let inside = file.payers.iter().filter(|(payer, _)| payer.is_inside(&excess.container));
                    let charge: u64 = inside.map(|(_, bytes)| bytes).sum();
                    relief += scaled(charge, file.bytes - kept, file.bytes);
                    left += if may_go(file) && charge > 0 { *kept } else { 0 };
                }
                prop_assert!(left == 0 || relief >= excess.bytes, "{relief} of {excess:?}");
            }
        }
    }
}
