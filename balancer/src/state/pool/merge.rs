//! Guests whose RAM the kernel merges with that of others: all of them are in one trust domain, and no other process
//! of the host is merged.

use crate::guests::{Guest, GuestSeq, Sampled};
use crate::state::{Balancer, State};
use host::ksm::{Mergeable, Merged};
use protocol::message::Register;
use std::collections::BTreeSet;

/// Processes that are named in a sentence.
const NAMED_MAX: usize = 4;

impl Balancer {
    /// Guests whose RAM is merged: number and process.
    #[must_use]
    pub fn merging(&self) -> Vec<(GuestSeq, i32)> {
        self.view(|state, _| state.merging().map(|guest| (guest.seq, guest.pid)).collect())
    }

    /// Whether a guest that registers may have its RAM merged, with these mergeable processes on the host. `known`
    /// are its own and those of guests that were merged when the scan of processes began: one of these may have ended
    /// since.
    ///
    /// # Errors
    /// The reason, for the `vmm` to show.
    pub fn check_merge(&self, about: &Register, known: &[i32], found: &[Mergeable]) -> Result<(), String> {
        self.view(|state, _| {
            state.check_merge_domain(about)?;
            match state.strangers(found, known) {
                None => Ok(()),
                Some(named) => Err(format!(
                    "merge is refused: KSM merges across all of the host, and processes that are not guests of this \
                     balancer use it: {named}"
                )),
            }
        })
    }

    /// Which other processes are merged on this host now, or why that is not known. A change is an event.
    pub fn watch_merge(&self, known: &[i32], found: Result<Vec<Mergeable>, String>) {
        self.change(|state, _| {
            let reason = match found {
                Ok(found) => state.strangers(&found, known).map(|named| {
                    format!("Guests are merged with processes that are not guests of this balancer: {named}")
                }),
                Err(reason) => Some(reason),
            };
            if reason == state.pool.merge_exposed {
                return;
            }
            let (kind, detail) = match &reason {
                Some(reason) => ("merge_exposed", reason.as_str()),
                None => ("merge_alone", "Guests are merged with no other process any more"),
            };
            state.events.push(kind, None, None, detail);
            state.pool.merge_exposed = reason;
        });
    }

    /// What the kernel merges of guests now.
    pub fn take_merged(&self, readings: &[(GuestSeq, Merged)]) {
        self.change(|state, now| {
            for (seq, merged) in readings {
                if let Some(guest) = state.guests.get_mut(*seq) {
                    guest.merge = Some(Sampled { value: *merged, at: now });
                }
            }
        });
    }
}

impl State {
    fn merging(&self) -> impl Iterator<Item = &Guest> {
        self.guests.iter().filter(|guest| guest.about.merge)
    }

    /// Pages of equal content are one across all guests that are merged, so all of these must be of one domain.
    pub(in crate::state) fn check_merge_domain(&self, about: &Register) -> Result<(), String> {
        let own = self.containers.tree().domain(&about.container);
        let foreign = self.merging().filter(|_| about.merge).find_map(|guest| {
            let domain = self.containers.tree().domain(&guest.about.container);
            (domain != own).then_some((&guest.about.name, domain))
        });
        match foreign {
            None => Ok(()),
            Some((name, domain)) => Err(format!(
                "merge is refused: guest {name:?} of domain {domain} is merged, and this guest is of domain {own}: KSM \
                 merges across all of the host, so only one domain can use it"
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
