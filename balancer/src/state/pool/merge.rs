//! Guests whose RAM the kernel merges with that of others: all of them in one trust domain, and nobody else on the host.

use crate::guests::{Guest, Sampled};
use crate::state::{Balancer, State};
use host::ksm::{Mergeable, Merged};
use protocol::message::Register;
use std::collections::BTreeSet;

/// Processes that are named in a sentence.
const NAMED_MAX: usize = 4;

impl Balancer {
    /// Guests whose RAM is merged: session and process.
    #[must_use]
    pub fn merging(&self) -> Vec<(u64, i32)> {
        self.state().merging().map(|guest| (guest.session, guest.pid)).collect()
    }

    /// Whether a guest that registers may have its RAM merged, with these mergeable processes on the host. `known` are its own and
    /// those of guests that were merged when the look at them began: one of these may have ended since.
    ///
    /// # Errors
    /// The reason, for the `vmm` to show.
    pub fn check_merge(&self, about: &Register, known: &[i32], found: &[Mergeable]) -> Result<(), String> {
        let state = self.state();
        state.check_merge_domain(about)?;
        match state.strangers(found, known) {
            None => Ok(()),
            Some(named) => Err(format!(
                "merge is refused: KSM merges across all of the host, and processes that are no guests of this balancer use it: {named}"
            )),
        }
    }

    /// Who else is merged on this host now, or why that cannot be told. Whoever runs it hears of what is new.
    pub fn watch_merge(&self, known: &[i32], found: Result<Vec<Mergeable>, String>) {
        let state = &mut *self.state();
        let reason = match found {
            Ok(found) => state.strangers(&found, known).map(|named| {
                format!("Guests are merged with processes that are no guests of this balancer: {named}")
            }),
            Err(reason) => Some(reason),
        };
        if reason != state.merge_exposed {
            match &reason {
                Some(reason) => state.events.push("merge_exposed", None, None, reason),
                None => state.events.push(
                    "merge_alone",
                    None,
                    None,
                    "Guests are merged with nobody else any more",
                ),
            }
            state.merge_exposed = reason;
        }
    }

    /// What the kernel merges of guests now, by session.
    pub fn take_merged(&self, readings: &[(u64, Merged)]) {
        let state = &mut *self.state();
        for (session, merged) in readings {
            if let Some(guest) = state.guests.values_mut().find(|guest| guest.session == *session) {
                guest.merge = Some(Sampled::now(*merged));
            }
        }
    }
}

impl State {
    fn merging(&self) -> impl Iterator<Item = &Guest> {
        self.guests.values().filter(|guest| guest.about.merge)
    }

    /// Pages of equal content are one across all guests that are merged, so all of these must be of one domain.
    pub(in crate::state) fn check_merge_domain(&self, about: &Register) -> Result<(), String> {
        let own = self.tree.domain(&about.container);
        let foreign = self.merging().filter(|_| about.merge).find_map(|guest| {
            let domain = self.tree.domain(&guest.about.container);
            (domain != own).then_some((&guest.about.name, domain))
        });
        match foreign {
            None => Ok(()),
            Some((name, domain)) => Err(format!(
                "merge is refused: guest {name:?} of domain {domain} is merged, and this guest is of domain {own}: KSM merges across all of \
                 the host, so one domain alone can use it"
            )),
        }
    }

    /// Mergeable processes that are neither guests of this balancer nor known otherwise.
    fn strangers(&self, found: &[Mergeable], known: &[i32]) -> Option<String> {
        let own: BTreeSet<i32> = self.merging().map(|guest| guest.pid).chain(known.iter().copied()).collect();
        let strangers: Vec<String> =
            found.iter().filter(|process| !own.contains(&process.pid)).map(ToString::to_string).collect();
        let more = match strangers.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = strangers.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
        (!strangers.is_empty()).then(|| named + &more)
    }
}
