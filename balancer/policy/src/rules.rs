//! Rules that were learnt from other people's incidents, by name, so that a test can take one out and see what breaks.
//! Outside of tests every rule holds, and there is no way to turn one off.

/// A rule of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Who needs more gets all of it at once, as far as there is room.
    GrowFully,
    /// A guest whose statistics stopped is not shrunk.
    FreshStatistics,
    /// No guest is asked to go below what it uses and some headroom.
    Headroom,
    /// A guest that stalls for memory is given more, whatever its figures say.
    GuestPressure,
    /// Stalls that scan nothing come from a limit inside the guest, and are its own business.
    OwnLimits,
    /// A guest that takes memory back in need keeps it.
    OutOfMemory,
    /// One step takes no more than half of what the guest has available.
    StepByAvailable,
    /// Who does not give what it was asked for counts with what it holds, and no longer disturbs the others.
    Exclude,
    /// Who uses what it gave is found by the frame table, at once.
    Refaults,
    /// Who is excluded is asked again, less and less often.
    Retry,
    /// Memory is kept for the host.
    Reserve,
    /// What is freed is given on once it is free, not before.
    FreeFirst,
    /// What is on its way to a guest is given to nobody else.
    Reservation,
    /// Nobody is asked for memory that nobody needs.
    NoPressureNoReclaim,
    /// What a guest holds and does not use is dearer to it than what it uses.
    IdleTax,
    /// Small changes are no changes.
    Hysteresis,
    /// A container's protection is worth no more than that of the container around it.
    BoundedProtection,
    /// Page cache is worth having, and less than what a guest needs.
    CacheIsDemand,
}

/// The rules that hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    off: Option<Rule>,
}

impl Rules {
    /// All but one.
    #[must_use]
    pub fn without(rule: Rule) -> Self {
        Self { off: Some(rule) }
    }

    /// True if the rule holds.
    #[inline]
    #[must_use]
    pub(super) fn has(self, rule: Rule) -> bool {
        self.off != Some(rule)
    }
}
