//! File descriptors: as many as the system gives, and who may use them.

/// For the journal, the sockets, reading `/proc`.
const OWN: usize = 64;
/// Never fewer guests than this, whatever the system gives.
const GUESTS_MIN: usize = 64;
/// Never more: what one thread can serve.
const GUESTS_MAX: usize = 16 << 10;

/// Raises this process's limit of descriptors as far as it may, and returns how many guests may be connected when `others` connections
/// are to be possible beside them.
pub(super) fn left_for_guests(others: usize) -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: valid pointers to a plain struct; a limit that cannot be read or raised stays as it is.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
                limit = raised;
            }
        }
    }
    let total = usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX);
    total.saturating_sub(OWN + others).clamp(GUESTS_MIN, GUESTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_guests_whatever_others_take() {
        assert_eq!(left_for_guests(usize::MAX / 2), GUESTS_MIN);
        let few = left_for_guests(0);
        assert!((GUESTS_MIN..=GUESTS_MAX).contains(&few), "{few}");
    }
}
