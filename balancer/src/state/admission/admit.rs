//! A guest registers, or leaves.

use crate::guests::{Guest, GuestSeq, objects};
use crate::state::charges::charge::command;
use crate::state::effects::Effect;
use crate::state::error::Reasons;
use crate::state::kernel::CandidateSample;
use crate::state::limits::change::describe;
use crate::state::{Balancer, State};
use host::meminfo::HostSample;
use protocol::bytes::{BYTES_MAX, Human};
use protocol::frames::FrameReader;
use protocol::message::{MAY_CHARGE_MAX, OWNERS_MAX, Register, ToVmm};
use protocol::objects::ObjectCounts;
use protocol::path::ContainerPath;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// What is kept of the reason why the frames of a guest cannot be scanned, characters.
const UNSEEN_TEXT_MAX: usize = 400;

/// The answer to a guest that is admitted.
#[derive(Debug, Clone, Copy)]
pub struct Admission {
    /// Its registration number.
    pub seq: GuestSeq,
    /// Owner id of the container that it charges.
    pub owner: u16,
    /// First target, bytes.
    pub target_bytes: u64,
}

/// A guest that wants to be admitted.
#[derive(Debug)]
pub struct Candidate {
    /// What it says about itself.
    pub about: Register,
    /// Process of its `vmm`.
    pub pid: i32,
    /// Its frame table.
    pub frames: Arc<FrameReader>,
    /// Messages to its `vmm`.
    pub outbox: mpsc::Sender<ToVmm>,
}

/// Why a guest is not admitted, for the `vmm` to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// One sentence.
    Never(String),
    /// Memory is missing, which may be waited for.
    NoRoom {
        /// The outermost container that has no room; the root for the host.
        at: ContainerPath,
        /// What is missing and which containers and guests hold it, one sentence.
        reason: String,
    },
}

impl Refusal {
    /// Why, one sentence.
    #[must_use]
    pub fn reason(self) -> String {
        match self {
            Self::Never(reason) | Self::NoRoom { reason, .. } => reason,
        }
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Never(reason)
    }
}

impl Balancer {
    /// Admits a guest, or says why not. A waiter shows its ticket.
    ///
    /// # Errors
    /// The reason.
    pub fn register(&self, candidate: &Candidate, ticket: Option<u64>) -> Result<Admission, Refusal> {
        check(&candidate.about, &candidate.frames)?;
        let Candidate { about, pid, frames, .. } = candidate;
        let sample = CandidateSample::take(&*self.kernel, about, *pid, frames);
        self.change(|state, now| state.register(candidate, sample, ticket, now))
    }

    /// A guest is gone.
    pub fn hang_up(&self, guest: GuestSeq, reason: &str) {
        let host = self.kernel.host();
        self.change(|state, now| state.hang_up(guest, reason, host, now));
    }
}

impl State {
    fn register(
        &mut self,
        candidate: &Candidate,
        sample: CandidateSample,
        ticket: Option<u64>,
        now: Instant,
    ) -> Result<Admission, Refusal> {
        let (mut about, pid) = (candidate.about.clone(), candidate.pid);
        about.ram_unseen = about.ram_unseen.map(|why| why.chars().take(UNSEEN_TEXT_MAX).collect());
        self.check_register(candidate, &sample, ticket)?;
        // What a waiting process holds already is not missing for it.
        let held = sample.memory.as_ref().filter(|_| ticket.is_some());
        let held = held.map_or(0, |memory| memory.kernel.resident_bytes);
        let admitted = self.admit_container(&about, objects(&about, sample.objects), held, now);
        let owner = admitted.inspect_err(|refusal| self.waiters.keep_waiting(ticket, refusal))?;
        let charged = about.charge_to.take();
        let mut owners: BTreeSet<u16> = [owner].into();
        if about.comes_back {
            owners.extend(std::mem::take(&mut about.owners));
            about.charge_to = charged.clone().filter(|path| self.containers.tree().get(path).is_some());
        }
        let charged_container_is_gone = charged != about.charge_to;
        let (name, detail) = (Some(about.name.as_str()), describe_guest(&about, pid));
        self.events.push("guest_registered", name, Some(&about.container), &detail);
        self.waits_no_more(ticket, "admitted", now);
        let seq = self.guests.next_seq();
        let outbox = candidate.outbox.clone();
        let mut guest =
            Guest::new(seq, about, pid, (owner, owners), Arc::clone(&candidate.frames), outbox, now);
        guest.process = sample.objects;
        if let Some(memory) = sample.memory {
            guest.figures.update(memory);
        }
        if charged_container_is_gone {
            command(&mut guest, &self.containers, None, false);
        }
        let owner = self.containers.charging(&guest);
        self.guests.insert(guest);
        self.join_pool(seq, now);
        self.take_host(sample.host);
        // The first target goes with the answer to the registration; the outbox repeats it with the reason.
        self.adjust(now);
        let target_bytes = self.guests.get(seq).and_then(|guest| guest.sent_target_bytes);
        let target_bytes = target_bytes.unwrap_or(candidate.about.balloon.target_bytes);
        Ok(Admission { seq, owner, target_bytes })
    }

    /// All that speaks against a guest, apart from the containers that it would be in.
    fn check_register(
        &self,
        candidate: &Candidate,
        sample: &CandidateSample,
        ticket: Option<u64>,
    ) -> Result<(), Refusal> {
        let about = &candidate.about;
        if let Some(other) = self.guests.named(&about.name) {
            return Err(Refusal::Never(format!(
                "There is a guest {:?} already: its vmm is process {}",
                about.name, other.pid
            )));
        }
        self.guests.check_machine(about, candidate.pid, sample.machine_parent)?;
        self.waiters.check(about, ticket)?;
        self.check_images(about, &candidate.frames)?;
        self.check_merge_domain(about)?;
        Ok(())
    }

    fn hang_up(&mut self, seq: GuestSeq, reason: &str, host: HostSample, now: Instant) {
        let Some(guest) = self.guests.remove(seq, now) else { return };
        self.pool.images.leave(seq, now);
        self.effects.push(Effect::GranulesChanged);
        let (name, container) = (&guest.about.name, &guest.about.container);
        self.events.push("guest_gone", Some(name), Some(container), reason);
        self.sweep(container);
        self.sweep_owners(&guest.owners.iter().copied().collect::<Vec<_>>());
        // What it held is free for the other guests.
        self.take_host(host);
        self.adjust(now);
    }

    /// Makes the container of a guest where it is missing, with the limits of the launch, and returns its owner id.
    /// `held` is what the guest's process holds already of what the host has, bytes.
    fn admit_container(
        &mut self,
        about: &Register,
        own: ObjectCounts,
        held: u64,
        now: Instant,
    ) -> Result<u16, Refusal> {
        let (path, before) = (&about.container, self.containers.tree());
        let mut next = before.clone();
        let made = next.ensure(path).map_err(|error| error.to_string())?;
        // A guest that comes back after a restart brings the limits of its launch; the journal knows better.
        if let Some(limits) = about.limits.as_ref().filter(|_| made || !about.comes_back) {
            next.alter(path, limits).map_err(|error| error.to_string())?;
            let broken = Reasons::default().note_all(next.broken(path)).checked();
            broken.map_err(|error| error.chain())?;
        }
        if !about.comes_back {
            let beyond: Vec<String> =
                path.ancestors().flat_map(|above| self.objects_missing(about, own, &above, &next)).collect();
            if !beyond.is_empty() {
                return Err(Refusal::Never(beyond.join("; ")));
            }
            self.check_memory(about, &next, held, now)?;
        }
        let missing = || format!("There is no container {path}");
        let (owner, after) =
            next.get(path).map(|node| (node.owner, node.limits.clone())).ok_or_else(missing)?;
        let is_changed = !made && before.get(path).is_none_or(|node| node.limits != after);
        self.adopt(next).map_err(|error| error.chain())?;
        if is_changed {
            let text = format!("{}, by the launch of guest {}", describe(&after), about.name);
            self.events.push("limits_changed", None, Some(path), &text);
        }
        if made {
            let text = format!("For guest {}", about.name);
            self.events.push("container_created", None, Some(path), &text);
        }
        Ok(owner)
    }
}

/// A guest that registers, in one line.
fn describe_guest(about: &Register, pid: i32) -> String {
    let unseen = about.ram_unseen.as_ref();
    let unseen = unseen.map(|why| format!("; which frames of it the host holds is unknown: {why}"));
    format!(
        "{} of RAM, {} vCPUs, engine {}, process {pid}{}",
        Human(about.ram_bytes),
        about.cpus,
        about.engine,
        unseen.unwrap_or_default()
    )
}

fn check(about: &Register, frames: &FrameReader) -> Result<(), String> {
    let name = &about.name;
    if format!("/{name}").parse::<ContainerPath>().is_err() || name.is_empty() || name.contains('/') {
        let name: String = name.chars().take(64).collect();
        return Err(format!("{name:?} is not a guest's name: it must consist of letters, digits and -_.:@+"));
    }
    if about.ram_bytes == 0 || about.ram_bytes > BYTES_MAX {
        return Err(format!("ram_bytes is {}, but must be between 1 and {BYTES_MAX}", about.ram_bytes));
    }
    if about.floor_bytes > about.ram_bytes {
        return Err(format!(
            "floor_bytes is {}, but must be at most ram_bytes, {}",
            about.floor_bytes, about.ram_bytes
        ));
    }
    for (field, count, most) in
        [("may_charge", about.may_charge.len(), MAY_CHARGE_MAX), ("owners", about.owners.len(), OWNERS_MAX)]
    {
        if count > most {
            return Err(format!("{field} has {count} entries, but must have at most {most}"));
        }
    }
    if frames.ram_bytes() < about.ram_bytes {
        return Err(format!(
            "The frame table covers {} bytes of {} bytes of RAM",
            frames.ram_bytes(),
            about.ram_bytes
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "admit_test.rs"]
pub(in crate::state) mod tests;
