//! Numbers of the pool that must not be mixed.

use std::fmt;

/// Number of a guest's registration: guests that registered later have higher ones, and none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestSeq(pub u64);

/// Number of a granule in its image, from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GranuleIndex(pub u64);

/// A moment in the life of the granules: a granule with a lower one was filled, or got its last new holder, earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Touch(pub u64);

impl fmt::Display for GuestSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for GranuleIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
