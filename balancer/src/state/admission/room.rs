//! What a limit leaves for a guest that comes from elsewhere: it is moved into a container, or charges it.

use crate::guests::{Guest, GuestSeq};
use crate::state::{State, StateError};
use crate::tree::TreeError;
use accounting::{GuestReading, Usage};
use policy::{Ceiling, Charged, ceiling};
use protocol::bytes::FRAME_BYTES;
use protocol::limits::LimitsError;
use protocol::path::ContainerPath;
use std::collections::{BTreeMap, BTreeSet};

impl State {
    /// Limits that a guest would break if it moved to this container: by what its frames and its `vmm` take, or by
    /// what it needs to live. Limits above both containers hold it already.
    pub(in crate::state) fn room_for_move(
        &self,
        guest: &Guest,
        to: &ContainerPath,
        owner: u16,
        with_charges: bool,
    ) -> Vec<StateError> {
        let usage = self.usage_with(|other| {
            let mut reading = self.reading_of(other);
            if std::ptr::eq(guest, other) {
                move_reading(&mut reading, owner, with_charges);
            }
            reading
        });
        let memory = self.foreign_limits(guest, to).into_iter().filter_map(|above| {
            let floors = self.guests.floors_inside(&above.path).saturating_add(guest.about.floor_bytes);
            let charged = self.usage_inside(&usage, &above.path).bytes;
            above.check("container", to, floors.max(charged)).err()
        });
        memory.chain(self.objects_for_move(guest, to)).collect()
    }

    /// The same for limits on objects of the kernel: they hold for a guest that moves in as for one that is launched
    /// there.
    fn objects_for_move(&self, guest: &Guest, to: &ContainerPath) -> Vec<StateError> {
        let mut missing = Vec::new();
        for above in to.ancestors().filter(|above| !guest.about.container.is_inside(above)) {
            let Some(node) = self.containers.tree().get(&above) else { continue };
            let mut sum = self.guests.objects_inside(&above);
            sum += guest.objects();
            for (kind, max) in sum.beyond(&node.limits) {
                let bound = format!(
                    "must be at least {} for guest {:?} to move to {to}",
                    sum.of(kind),
                    guest.about.name
                );
                let broken =
                    LimitsError { field: kind.field(), value: max.to_string(), bound, by_itself: false };
                missing.push(TreeError::Limits { path: above.clone(), broken }.into());
            }
        }
        missing
    }

    /// Limits that leave no room for one frame more in a container that is to be charged, or above it.
    pub(in crate::state) fn room_for_charge(&self, guest: &Guest, to: &ContainerPath) -> Vec<StateError> {
        let usage = self.memory_usage();
        let check = |above: Limit| {
            let charged = self.usage_inside(&usage, &above.path).bytes;
            above.check("charge_to", to, charged.saturating_add(FRAME_BYTES)).err()
        };
        self.foreign_limits(guest, to).into_iter().filter_map(check).collect()
    }

    /// Limits on the way from a container to the root, up to the first that the guest's own container is inside of.
    fn foreign_limits(&self, guest: &Guest, to: &ContainerPath) -> Vec<Limit> {
        to.ancestors()
            .filter(|above| !guest.about.container.is_inside(above))
            .filter_map(|path| {
                let max_bytes = self.containers.tree().get(&path)?.limits.max_bytes?;
                Some(Limit { path, max_bytes })
            })
            .collect()
    }

    /// Ceilings of guests that charge other containers in addition to their own.
    pub(in crate::state) fn ceilings(&self) -> BTreeMap<GuestSeq, Ceiling> {
        let charging: Vec<(&Guest, Usage)> = self
            .guests
            .iter()
            .filter(|guest| guest.owners.len() > 1)
            .map(|guest| (guest, self.accounting.usage(&self.reading_of(guest))))
            .collect();
        if charging.is_empty() {
            return BTreeMap::new();
        }
        let usage = self.memory_usage();
        let paths: BTreeMap<u16, &ContainerPath> =
            self.containers.tree().iter().map(|(path, node)| (node.owner, path)).collect();
        let inside = |usage: &Usage, above: &ContainerPath| {
            let inside = |owner| paths.get(owner).is_some_and(|path: &&ContainerPath| path.is_inside(above));
            let costs = usage.iter().filter(|(owner, _)| inside(*owner));
            costs.fold(0u64, |sum, (_, cost)| sum.saturating_add(cost.bytes))
        };
        let of = |(guest, own): &(&Guest, Usage)| {
            let scan = guest.scan.as_ref()?;
            let held = scan.private_bytes.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
            let limits: BTreeSet<Limit> = guest
                .owners
                .iter()
                .filter_map(|owner| paths.get(owner))
                .flat_map(|path| self.foreign_limits(guest, path))
                .collect();
            let charged = limits.into_iter().map(|limit| Charged {
                usage_bytes: inside(&usage, &limit.path),
                foreign_bytes: charging
                    .iter()
                    .filter(|(other, _)| !other.about.container.is_inside(&limit.path))
                    .fold(0u64, |sum, (_, usage)| sum.saturating_add(inside(usage, &limit.path))),
                own_bytes: inside(own, &limit.path),
                now: guest.about.charge_to.as_ref().is_some_and(|to| to.is_inside(&limit.path)),
                max_bytes: limit.max_bytes,
                container: limit.path,
            });
            Some((guest.seq, ceiling(held, charged)?))
        };
        charging.iter().filter_map(of).collect()
    }
}

/// A container's `max`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Limit {
    path: ContainerPath,
    max_bytes: u64,
}

impl Limit {
    fn check(&self, field: &'static str, to: &ContainerPath, needed_bytes: u64) -> Result<(), StateError> {
        if needed_bytes <= self.max_bytes {
            return Ok(());
        }
        Err(StateError::NoRoom {
            field,
            path: to.clone(),
            above: self.path.clone(),
            max_bytes: self.max_bytes,
            needed_bytes,
        })
    }
}

/// Changes what is known of a guest to what it will be when it has moved.
fn move_reading(reading: &mut GuestReading, to: u16, with_charges: bool) {
    if with_charges {
        reading.table_elsewhere_bytes.clear();
    } else {
        let elsewhere = reading.table_elsewhere_bytes.values().fold(0u64, |sum, b| sum.saturating_add(*b));
        let own = reading.table_bytes.saturating_sub(elsewhere);
        *reading.table_elsewhere_bytes.entry(reading.owner).or_default() += own;
        reading.table_elsewhere_bytes.remove(&to);
    }
    reading.owner = to;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_moves_with_all_its_charges_or_with_none() {
        let reading = GuestReading {
            owner: 5,
            table_bytes: 100,
            table_elsewhere_bytes: [(6, 30), (7, 20)].into(),
            ..Default::default()
        };
        for (to, with_charges, elsewhere) in [
            (6, true, vec![]),
            (6, false, vec![(5, 50), (7, 20)]),
            (8, false, vec![(5, 50), (6, 30), (7, 20)]),
            (5, true, vec![]),
            (5, false, vec![(6, 30), (7, 20)]),
        ] {
            let mut moved = reading.clone();
            move_reading(&mut moved, to, with_charges);
            assert_eq!(moved.owner, to);
            assert_eq!(moved.table_elsewhere_bytes, elsewhere.into_iter().collect(), "{to} {with_charges}");
        }
    }
}
