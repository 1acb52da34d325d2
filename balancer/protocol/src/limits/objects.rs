//! Objects of the host's kernel that guests take, in units that a user understands: numbers of them, never bytes of
//! structs.

use super::Limits;

pub use super::table::{ObjectKind, PerObjectKind};

/// When the number of objects of a guest changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// Only when it starts and ends. A running guest cannot be made to give such objects back, so a limit cannot be set
    /// below what is used.
    AtLaunch,
    /// While it runs. A limit that is exceeded is reported.
    AtAnyTime,
}

impl ObjectKind {
    /// True for objects that a running guest cannot be made to give back.
    #[must_use]
    pub fn is_fixed_at_launch(self) -> bool {
        self.changes() == Changes::AtLaunch
    }
}

/// How many there are of each kind.
pub type ObjectCounts = PerObjectKind<u64>;

impl ObjectCounts {
    /// How many of a kind.
    #[must_use]
    pub fn of(&self, kind: ObjectKind) -> u64 {
        *self.get(kind)
    }

    /// The kinds of which there are more than these limits allow, each with its limit.
    pub fn beyond(&self, limits: &Limits) -> impl Iterator<Item = (ObjectKind, u64)> {
        let bound = move |kind| Some((kind, u64::from(limits.max_of(kind)?)));
        ObjectKind::ALL.into_iter().filter_map(bound).filter(|(kind, max)| self.of(*kind) > *max)
    }
}

impl std::ops::AddAssign for ObjectCounts {
    fn add_assign(&mut self, other: Self) {
        *self = Self::from_fn(|kind| self.of(kind).saturating_add(other.of(kind)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_beyond_their_limit_are_named() {
        let limits =
            Limits { max_vcpus: Some(3), max_fds: Some(0), max_guests: Some(1), ..Default::default() };
        let mut counts = ObjectCounts { vcpus: 3, guests: 1, devices: 99, fds: 0, threads: 9 };
        assert_eq!(counts.beyond(&limits).next(), None);
        counts += ObjectCounts { vcpus: 1, fds: 1, ..Default::default() };
        let beyond: Vec<_> = counts.beyond(&limits).collect();
        assert_eq!(beyond, [(ObjectKind::Vcpus, 3), (ObjectKind::Fds, 0)]);
    }

    #[test]
    fn a_field_and_a_key_are_one_name_in_two_spellings() {
        for kind in ObjectKind::ALL {
            assert_eq!(kind.field(), kind.key().replace('-', "_"));
            assert_eq!(kind.field(), format!("max_{}", kind.name()));
        }
    }
}
