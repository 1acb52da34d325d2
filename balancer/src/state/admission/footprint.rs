//! Whether there is memory for one guest more: below each `max` on its way to the root, and on the host.
//!
//! A guest needs its floor to start, and what its `vmm` takes in addition, with QEMU if it has one; for a QEMU that
//! was started by someone else this is not known, and it runs already. A guest that runs needs what it uses by its
//! own statistics, no more than the host counts, or its floor if that is more; a guest that releases nothing needs
//! what it holds. A container needs what is in it, or its `min` if that is more. What is beyond that can be reclaimed
//! from its guests.

use crate::guests::{Figures, Guest};
use crate::state::State;
use crate::state::admission::admit::Refusal;
use crate::tree::Tree;
use protocol::bytes::Human;
use protocol::message::Register;
use protocol::path::ContainerPath;
use std::collections::BTreeMap;
use std::time::Instant;

/// Holders that a refusal names.
const HOLDERS_MAX: usize = 3;

impl State {
    /// Checks that there is memory for a guest. `held` is what its process holds already of what the host has, bytes.
    ///
    /// # Errors
    /// What is missing, and which guests and containers hold it.
    pub(in crate::state) fn check_memory(
        &self,
        about: &Register,
        next: &Tree,
        held: u64,
        now: Instant,
    ) -> Result<(), Refusal> {
        let (mut missing, mut outermost) = (Vec::new(), None);
        let beside = match about.machine {
            Some(machine) if machine.attached => 0,
            _ => Figures::of_engine(about.engine).reserved_bytes(),
        };
        let own = about.floor_bytes.saturating_add(beside);
        let (before, after) = (self.needs(next, None, now), self.needs(next, Some((about, own)), now));
        let mut guest = format!("Guest {:?} needs {} to start", about.name, Human(about.floor_bytes));
        if beside > 0 {
            guest += &format!(" and {} beside its RAM", Human(beside));
        }
        for above in about.container.ancestors() {
            let max = next.get(&above).and_then(|node| node.limits.max_bytes);
            let needed = after.of(&above);
            let Some(max) = max.filter(|max| needed > *max) else { continue };
            missing.push(format!(
                "{guest}, what is in {above} needs {}{}, but max of {above} is {}: {} are missing",
                Human(before.of(&above)),
                before.holders(&above),
                Human(max),
                Human(needed - max)
            ));
            outermost = Some(above);
        }
        if let Some(budget) = self.decisions.budget {
            // The budget is of the last plan: what the process took since then is in both. It makes room for the
            // guest itself alone.
            let (root, room) = (ContainerPath::root(), budget.bytes.saturating_add(held.min(own)));
            let needed = after.of(&root);
            if needed > room {
                missing.push(format!(
                    "{guest}, others need {}{}, but the host has {} for guests beside a reserve of {}: {} are missing",
                    Human(before.of(&root)),
                    before.holders(&root),
                    Human(room),
                    Human(budget.reserve_bytes),
                    Human(needed - room)
                ));
                outermost = Some(root);
            }
        }
        match outermost {
            Some(at) => Err(Refusal::NoRoom { at, reason: missing.join("; ") }),
            None => Ok(()),
        }
    }

    /// What all containers need, with one guest more if it is given.
    fn needs(&self, tree: &Tree, more: Option<(&Register, u64)>, now: Instant) -> Needs {
        let mut needs = Needs::default();
        for guest in self.guests.iter() {
            needs.add(&guest.about.container, least(guest, now), guest.about.name.clone());
        }
        if let Some((about, bytes)) = more {
            needs.add(&about.container, bytes, about.name.clone());
        }
        // Paths in reverse order: a container comes after all that are inside it.
        for (path, node) in tree.iter().rev() {
            let inside = needs.of(path);
            let promised = node.limits.min_bytes.saturating_sub(inside);
            if let Some(parent) = path.parent() {
                let sum = needs.inside.entry(parent).or_default();
                *sum = sum.saturating_add(inside).saturating_add(promised);
            }
            if promised > 0 {
                needs.holders.push((promised, path.clone(), format!("min of {path}")));
            }
        }
        needs
    }
}

/// What a guest cannot be asked to go below without harm, and what it takes in addition to its RAM. Bytes.
fn least(guest: &Guest, now: Instant) -> u64 {
    let held = guest.figures.ram_bytes(&guest.frames.totals());
    let least = match guest.memory.health.is_excluded() {
        true => held,
        false => guest.used_bytes(now).unwrap_or(0).min(held),
    };
    let least = least.max(guest.about.floor_bytes).min(guest.about.ram_bytes);
    least.saturating_add(guest.figures.reserved_bytes())
}

/// What is needed in each container, and for what.
#[derive(Debug, Default)]
struct Needs {
    inside: BTreeMap<ContainerPath, u64>,
    holders: Vec<(u64, ContainerPath, String)>,
}

impl Needs {
    fn add(&mut self, container: &ContainerPath, bytes: u64, name: String) {
        let inside = self.inside.entry(container.clone()).or_default();
        *inside = inside.saturating_add(bytes);
        self.holders.push((bytes, container.clone(), name));
    }

    fn of(&self, path: &ContainerPath) -> u64 {
        self.inside.get(path).copied().unwrap_or(0)
    }

    /// The guests and containers inside a container that need most, in brackets; empty if nothing is needed.
    fn holders(&self, path: &ContainerPath) -> String {
        let own_min = format!("min of {path}");
        let mut all: Vec<(u64, &str)> = self
            .holders
            .iter()
            .filter(|(bytes, at, name)| *bytes > 0 && at.is_inside(path) && *name != own_min)
            .map(|(bytes, _, name)| (*bytes, name.as_str()))
            .collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        let names: Vec<String> =
            all.iter().take(HOLDERS_MAX).map(|(bytes, name)| format!("{name} {}", Human(*bytes))).collect();
        match (names.is_empty(), all.len().saturating_sub(HOLDERS_MAX)) {
            (true, _) => String::new(),
            (false, 0) => format!(" ({})", names.join(", ")),
            (false, more) => format!(" ({} and {more} more)", names.join(", ")),
        }
    }
}

#[cfg(test)]
#[path = "footprint_test.rs"]
mod tests;
