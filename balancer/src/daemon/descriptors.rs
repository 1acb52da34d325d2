//! File descriptors: as many as the system gives, divided between guests and other connections.

use host::process::DescriptorLimit;

/// For the journal, the sockets, reading `/proc`.
const OWN: usize = 64;
/// Never fewer guests than this, whatever the system gives.
const GUESTS_MIN: usize = 64;
/// Never more: what one thread can serve.
const GUESTS_MAX: usize = 16 << 10;

/// Raises this process's limit of descriptors as far as it may, and returns how many guests may be connected in
/// addition to `others` connections.
pub(super) fn left_for_guests(others: usize) -> usize {
    let limit = DescriptorLimit::get();
    let raised = DescriptorLimit { soft: limit.hard, ..limit };
    // A limit that cannot be raised stays as it is.
    let now = if raised.set().is_ok() { raised } else { limit };
    let total = usize::try_from(now.soft).unwrap_or(usize::MAX);
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
