//! Taking in a guest, and letting it go.

use crate::guests::{
    Budget, CrossCheck, DiskCache, Figures, Guest, KernelSample, ProcessObjects, Sampled, objects,
    pool_totals,
};
use crate::state::error::Reasons;
use crate::state::limits::change::describe;
use crate::state::{Balancer, State};
use crate::tree::Tree;
use policy::GuestMemory;
use protocol::bytes::{BYTES_MAX, Human};
use protocol::engine::Engine;
use protocol::frames::FrameReader;
use protocol::message::{MAY_CHARGE_MAX, OWNERS_MAX, Register, ToVmm};
use protocol::objects::ObjectCounts;
use protocol::path::ContainerPath;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// What is kept of why the frames of a guest cannot be looked at, characters.
const UNSEEN_TEXT_MAX: usize = 400;

/// What a guest is told when it is taken in.
#[derive(Debug, Clone, Copy)]
pub struct Admission {
    /// Tells this session from others of the same name.
    pub session: u64,
    /// Owner id of whom it charges.
    pub owner: u16,
    /// First target, bytes.
    pub target_bytes: u64,
}

/// A guest that wants to be taken in.
#[derive(Debug)]
pub struct Candidate {
    /// What it says of itself.
    pub about: Register,
    /// Process of its `vmm`.
    pub pid: i32,
    /// Its frame table.
    pub frames: Arc<FrameReader>,
    /// Messages to its `vmm`.
    pub outbox: mpsc::Sender<ToVmm>,
}

/// Why a guest is not taken in, for the `vmm` to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// One sentence.
    Never(String),
    /// Memory is missing, which may be waited for.
    NoRoom {
        /// The outermost container that has no room; the root for the host.
        at: ContainerPath,
        /// What is missing and who holds it, one sentence.
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
    /// Takes in a guest, or says why not. One that waits shows its ticket.
    ///
    /// # Errors
    /// The reason.
    pub fn register(&self, candidate: &Candidate, ticket: Option<u64>) -> Result<Admission, Refusal> {
        let state = &mut *self.state();
        let (mut about, pid, frames) = (candidate.about.clone(), candidate.pid, &candidate.frames);
        check(&about, frames)?;
        if let Some(other) = state.guests.get(&about.name) {
            return Err(Refusal::Never(format!(
                "There is a guest {:?} already: its vmm is process {}",
                about.name, other.pid
            )));
        }
        state.check_machine(&about, pid)?;
        about.ram_unseen = about.ram_unseen.map(|why| why.chars().take(UNSEEN_TEXT_MAX).collect());
        state.check_waiting(&about, ticket)?;
        let process = ProcessObjects::of_guest(pid, about.machine);
        state.check_images(&about, frames)?;
        state.check_merge_domain(&about)?;
        // What a process that waits holds already is not missing for it.
        let held = ticket
            .and_then(|_| KernelSample::of_guest(pid, about.machine))
            .map_or(0, |kernel| kernel.resident_bytes);
        if let Err(refusal) = state.admit_container(&about, objects(&about, process), held) {
            state.keep_waiting(ticket, &refusal);
            return Err(refusal);
        }
        let owner = state.tree.get(&about.container).expect("made above").owner;
        let charged = about.charge_to.take();
        let mut owners: BTreeSet<u16> = [owner].into();
        if about.comes_back {
            owners.extend(std::mem::take(&mut about.owners));
            about.charge_to = charged.clone().filter(|path| state.tree.get(path).is_some());
        }
        let is_over = charged != about.charge_to;
        state.sessions += 1;
        let session = state.sessions;
        let name = about.name.clone();
        let mut figures = Figures::of_engine(about.engine);
        if let Some(kernel) = KernelSample::of_guest(pid, about.machine) {
            figures.update(kernel, &pool_totals(frames, &about.images));
        }
        let unseen = about.ram_unseen.as_ref();
        let detail = format!(
            "{} of RAM, {} vCPUs, engine {}, process {pid}{}",
            Human(about.ram_bytes),
            about.cpus,
            about.engine,
            unseen.map_or_else(String::new, |why| format!(
                "; which frames of it the host holds is unknown: {why}"
            ))
        );
        state.events.push("guest_registered", Some(&name), Some(&about.container), &detail);
        state.waits_no_more(ticket, "admitted");
        let takes_over = about.comes_back || about.machine.is_some_and(|machine| machine.attached);
        let guest = Guest {
            session,
            pid,
            owner,
            owners,
            orders: 0,
            carried_out: watch::Sender::new(0),
            look: None,
            look_wanted: false,
            is_looked_at: false,
            unseen: vec![],
            frames: Arc::clone(frames),
            balloon: Sampled::now(about.balloon.clone()),
            statistics: None,
            disk_cache: DiskCache::default(),
            figures,
            cross_check: CrossCheck::of_engine(about.engine),
            stuck: None,
            process,
            merge: None,
            working_set: None,
            outbox: candidate.outbox.clone(),
            sent_target_bytes: None,
            target_reason: String::new(),
            paused: false,
            // One that runs already has what it was left with: it goes to its share from there.
            memory: GuestMemory {
                target_bytes: takes_over.then_some(about.balloon.target_bytes),
                ..GuestMemory::default()
            },
            out_of_memory_at: None,
            reconciled: watch::Sender::new(0),
            sent_cpu_ppm: None,
            sent_fds_max: None,
            registered_at: Instant::now(),
            budget: Budget::new(Instant::now()),
            answered_need_at: None,
            pool_outbox: None,
            about,
        };
        state.guests.insert(name.clone(), guest);
        state.empty_since = None;
        if is_over {
            // The container that it charged is gone.
            state.order(&name, None, false);
        }
        state.join_pool(&name);
        let owner = state.charging(&state.guests[&name]);
        // Its own first target goes with the answer to its registration; the outbox repeats it with the reason.
        state.adjust();
        let target_bytes =
            state.guests[&name].sent_target_bytes.expect("a fresh outbox takes the first target");
        Ok(Admission { session, owner, target_bytes })
    }

    /// A guest is gone.
    pub fn hang_up(&self, name: &str, session: u64, reason: &str) {
        let state = &mut *self.state();
        if state.guests.get(name).is_none_or(|guest| guest.session != session) {
            return;
        }
        let guest = state.guests.remove(name).expect("looked up above");
        state.pool.leave(crate::pool::GuestSeq(session), Instant::now());
        self.granules_changed.notify_waiters();
        state.events.push("guest_gone", Some(name), Some(&guest.about.container), reason);
        if state.guests.is_empty() {
            state.empty_since = Some(Instant::now());
        }
        state.sweep(&guest.about.container);
        state.sweep_owners(&guest.owners.iter().copied().collect::<Vec<_>>());
        // What it held is free for those beside it.
        state.adjust();
    }
}

impl State {
    /// A guest's RAM is where it says: in the process of its `vmm`, in a child of that, or in one that somebody else started, which
    /// only a guest that was attached may name; and in nobody else's.
    fn check_machine(&self, about: &Register, pid: i32) -> Result<(), String> {
        let Some(machine) = about.machine else { return Ok(()) };
        if about.engine != Engine::Qemu {
            return Err(format!("machine is given, which the engine {} does not have", about.engine));
        }
        match parent(machine.pid) {
            None => return Err(format!("machine is process {}, but there is none", machine.pid)),
            Some(of) if of != pid && !machine.attached => {
                return Err(format!(
                    "machine is process {}, but that is no child of process {pid}",
                    machine.pid
                ));
            }
            Some(_) => {}
        }
        let has_it = |guest: &&Guest| guest.about.machine.is_some_and(|other| other.pid == machine.pid);
        match self.guests.values().find(has_it) {
            Some(other) => Err(format!(
                "machine is process {}, which is guest {:?} already",
                machine.pid, other.about.name
            )),
            None => Ok(()),
        }
    }

    /// Makes the container of a guest where it is missing, with the limits of the launch. `held` is what its process holds
    /// already of what the host has, bytes.
    fn admit_container(&mut self, about: &Register, own: ObjectCounts, held: u64) -> Result<(), Refusal> {
        let mut next = self.tree.clone();
        let made = next.ensure(&about.container).map_err(|error| error.to_string())?;
        // A guest that comes back after a restart brings the limits of its launch; the journal knows better.
        if let Some(limits) = about.limits.as_ref().filter(|_| made || !about.comes_back) {
            next.alter(&about.container, limits).map_err(|error| error.to_string())?;
            Reasons::default()
                .note_all(next.broken(&about.container))
                .checked()
                .map_err(|error| error.chain())?;
        }
        if !about.comes_back {
            let mut beyond = Vec::new();
            for above in about.container.ancestors() {
                let limits = next.get(&above).map(|node| &node.limits).expect("ensured above");
                beyond.extend(self.objects_missing(about, own, &above, limits));
            }
            if !beyond.is_empty() {
                return Err(Refusal::Never(beyond.join("; ")));
            }
            self.check_memory(about, &next, held)?;
        }
        let limits = |tree: &Tree| tree.get(&about.container).map(|node| node.limits.clone());
        let (before, after) = (limits(&self.tree), limits(&next));
        self.adopt(next).map_err(|error| error.chain())?;
        if let Some(after) = after.filter(|after| !made && before.as_ref() != Some(after)) {
            let text = format!("{}, by the launch of guest {}", describe(&after), about.name);
            self.events.push("limits_changed", None, Some(&about.container), &text);
        }
        if made {
            self.events.push(
                "container_created",
                None,
                Some(&about.container),
                &format!("For guest {}", about.name),
            );
        }
        Ok(())
    }
}

/// The process that started this one.
fn parent(pid: i32) -> Option<i32> {
    Some(host::proc::Folder::of(pid).read::<host::proc::Stat>().ok()?.parent)
}

fn check(about: &Register, frames: &FrameReader) -> Result<(), String> {
    let name = &about.name;
    if format!("/{name}").parse::<ContainerPath>().is_err() || name.is_empty() || name.contains('/') {
        let name: String = name.chars().take(64).collect();
        return Err(format!("{name:?} is not a guest's name: letters, digits and -_.:@+ make one"));
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
