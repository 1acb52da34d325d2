//! Objects of the host's kernel that guests take, in units that a user grasps: counts, never bytes of structs.

use crate::limits::Limits;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// Virtual CPUs.
    Vcpus,
    /// Guests.
    Guests,
    /// Virtio devices.
    Devices,
    /// Open file descriptors of the `vmm`s.
    Fds,
    /// Threads of the `vmm`s.
    Threads,
}

impl ObjectKind {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 5] = [Self::Vcpus, Self::Guests, Self::Devices, Self::Fds, Self::Threads];

    /// The limit as JSON names it.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Vcpus => "max_vcpus",
            Self::Guests => "max_guests",
            Self::Devices => "max_devices",
            Self::Fds => "max_fds",
            Self::Threads => "max_threads",
        }
    }

    /// The limit as an option string names it.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Vcpus => "max-vcpus",
            Self::Guests => "max-guests",
            Self::Devices => "max-devices",
            Self::Fds => "max-fds",
            Self::Threads => "max-threads",
        }
    }

    /// True for what nobody can take from a guest that runs: such a limit cannot be set below what is used. The others
    /// move while guests run, and a limit that is exceeded is told of.
    #[must_use]
    pub fn is_fixed_at_launch(self) -> bool {
        matches!(self, Self::Vcpus | Self::Guests | Self::Devices)
    }
}

/// How many there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectCounts {
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Guests.
    pub guests: u64,
    /// Virtio devices.
    pub devices: u64,
    /// File descriptors.
    pub fds: u64,
    /// Threads.
    pub threads: u64,
}

impl ObjectCounts {
    /// How many of a kind.
    #[must_use]
    pub fn of(&self, kind: ObjectKind) -> u64 {
        match kind {
            ObjectKind::Vcpus => self.vcpus,
            ObjectKind::Guests => self.guests,
            ObjectKind::Devices => self.devices,
            ObjectKind::Fds => self.fds,
            ObjectKind::Threads => self.threads,
        }
    }

    /// The kinds of which there are more than these limits allow, each with its limit.
    pub fn beyond(&self, limits: &Limits) -> impl Iterator<Item = (ObjectKind, u64)> {
        let bound = move |kind| Some((kind, u64::from(limits.max_of(kind)?)));
        ObjectKind::ALL.into_iter().filter_map(bound).filter(|(kind, max)| self.of(*kind) > *max)
    }
}

impl std::ops::AddAssign for ObjectCounts {
    fn add_assign(&mut self, other: Self) {
        self.vcpus = self.vcpus.saturating_add(other.vcpus);
        self.guests = self.guests.saturating_add(other.guests);
        self.devices = self.devices.saturating_add(other.devices);
        self.fds = self.fds.saturating_add(other.fds);
        self.threads = self.threads.saturating_add(other.threads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_a_limit_is_named() {
        let limits =
            Limits { max_vcpus: Some(3), max_fds: Some(0), max_guests: Some(1), ..Default::default() };
        let mut counts = ObjectCounts { vcpus: 3, guests: 1, devices: 99, fds: 0, threads: 9 };
        assert_eq!(counts.beyond(&limits).next(), None);
        counts += ObjectCounts { vcpus: 1, fds: 1, ..Default::default() };
        let beyond: Vec<_> = counts.beyond(&limits).collect();
        assert_eq!(beyond, [(ObjectKind::Vcpus, 3), (ObjectKind::Fds, 0)]);
    }

    #[test]
    fn names_are_one_word_in_two_spellings() {
        for kind in ObjectKind::ALL {
            assert_eq!(kind.field(), kind.key().replace('-', "_"));
        }
    }
}
