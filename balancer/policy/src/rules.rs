//! Rules that were learnt from incidents of other projects. Each has a name, so that a test can remove it and see
//! what breaks. Outside of tests every rule holds, and none can be turned off.

/// A rule of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A guest that needs more gets all of it at once, as far as there is room.
    GrowFully,
    /// A guest whose statistics stopped is not shrunk.
    FreshStatistics,
    /// A guest is not asked to go below what it uses and some headroom.
    Headroom,
    /// A guest that stalls for memory is given more, whatever its other figures are.
    GuestPressure,
    /// Stalls without scanned pages come from a limit inside the guest: they do not count.
    OwnLimits,
    /// A guest that deflates because it ran out of memory keeps that memory.
    OutOfMemory,
    /// One step takes at most half of what the guest has available.
    StepByAvailable,
    /// A guest that does not release what it was asked for counts with what it holds, and no longer disturbs the
    /// others.
    Exclude,
    /// A guest that uses memory in its balloon is found at once, by the frame table.
    Refaults,
    /// An excluded guest is asked again, less and less often.
    Retry,
    /// Some memory is reserved for the host.
    Reserve,
    /// Memory goes to another guest once it is free, not before.
    FreeFirst,
    /// Memory that is on its way to a guest is not given to another.
    Reservation,
    /// A guest is not asked for memory that is not needed elsewhere.
    NoPressureNoReclaim,
    /// Memory that a guest holds without using it costs more of its share than memory that it uses.
    IdleTax,
    /// Small changes are ignored.
    Hysteresis,
    /// The protection of a container counts at most as much as the protection of its parent.
    BoundedProtection,
    /// Page cache counts as demand, but less than what a guest needs.
    CacheIsDemand,
}

/// The rules that hold: all, or all but one.
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
    pub(crate) fn has(self, rule: Rule) -> bool {
        self.off != Some(rule)
    }
}
