//! Taking in a guest, and letting it go.

use super::change::describe;
use super::{Engine, State};
use crate::guests::{
    Budget, CrossCheck, DiskCache, Figures, Guest, KernelSample, ProcessObjects, Sampled, objects,
    pool_totals,
};
use crate::tree::Tree;
use protocol::bytes::{BYTES_MAX, Human};
use protocol::frames::FrameReader;
use protocol::message::{MAY_CHARGE_MAX, OWNERS_MAX, Register, ToVmm};
use protocol::objects::ObjectCounts;
use protocol::path::ContainerPath;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// What can run a guest.
const ENGINES: [&str; 2] = ["kvm", "qemu"];

/// Holders that a refusal names.
const HOLDERS_MAX: usize = 3;

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

impl Engine {
    /// Takes in a guest, or says in one sentence why not.
    ///
    /// # Errors
    /// The reason, for the `vmm` to show.
    pub fn register(
        &self,
        mut about: Register,
        pid: i32,
        frames: FrameReader,
        outbox: mpsc::Sender<ToVmm>,
    ) -> Result<Admission, String> {
        let state = &mut *self.state();
        check(&about, &frames)?;
        if let Some(other) = state.guests.get(&about.name) {
            return Err(format!(
                "There is a guest {:?} already: its vmm is process {}",
                about.name, other.pid
            ));
        }
        check_machine(&about, pid)?;
        let process = ProcessObjects::of_guest(pid, about.machine);
        state.check_images(&about, &frames)?;
        state.check_merge_domain(&about)?;
        state.admit_container(&about, objects(&about, process))?;
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
        let mut figures = Figures::of_engine(&about.engine);
        if let Some(kernel) = KernelSample::of_guest(pid, about.machine) {
            figures.update(kernel, &pool_totals(&frames, &about.images));
        }
        let detail = format!(
            "{} of RAM, {} vCPUs, engine {}, process {pid}",
            Human(about.ram_bytes),
            about.cpus,
            about.engine
        );
        state.events.push("guest_registered", Some(&name), Some(&about.container), &detail);
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
            frames: Arc::new(frames),
            balloon: Sampled::now(about.balloon.clone()),
            statistics: None,
            disk_cache: DiskCache::default(),
            figures,
            cross_check: CrossCheck::of_engine(&about.engine),
            stuck: None,
            process,
            merge: None,
            outbox,
            sent_target_bytes: None,
            target_reason: String::new(),
            memory: Default::default(),
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
        state.pool.leave(session, Instant::now());
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
    /// Makes the container of a guest where it is missing, with the limits of the launch.
    fn admit_container(&mut self, about: &Register, own: ObjectCounts) -> Result<(), String> {
        let mut next = self.tree.clone();
        let made = next.ensure(&about.container).map_err(|error| error.to_string())?;
        // A guest that comes back after a restart brings the limits of its launch; the journal knows better.
        if let Some(limits) = about.limits.as_ref().filter(|_| made || !about.comes_back) {
            next.patch(&about.container, limits).map_err(|error| error.to_string())?;
        }
        if !about.comes_back {
            for above in about.container.ancestors() {
                let limits = next.get(&above).map(|node| &node.limits).expect("ensured above");
                self.check_admission(about, &above, limits.max_bytes)?;
                self.check_objects(about, own, &above, limits)?;
            }
            self.check_host(about, &next)?;
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

    /// A guest that could not live beside those that are there is refused, and told what is missing.
    fn check_admission(
        &self,
        about: &Register,
        above: &ContainerPath,
        max: Option<u64>,
    ) -> Result<(), String> {
        let Some(max) = max else { return Ok(()) };
        let others =
            self.guests_inside(above).fold(0u64, |sum, guest| sum.saturating_add(guest.about.floor_bytes));
        let needed = others.saturating_add(about.floor_bytes);
        if needed <= max {
            return Ok(());
        }
        let (own, others, max, short) =
            (Human(about.floor_bytes), Human(others), Human(max), Human(needed - max));
        let holders =
            holders(self.guests_inside(above).map(|guest| (guest.about.floor_bytes, &*guest.about.name)));
        Err(format!(
            "Guest {:?} needs {own} to live and the guests in {above} need {others}{holders}, but max of {above} is {max}: {short} are missing",
            about.name
        ))
    }

    /// Nor is there room for a guest if the host cannot keep what was promised: `min` of containers, and what guests need to live.
    fn check_host(&self, about: &Register, next: &Tree) -> Result<(), String> {
        let Some(budget) = self.budget else { return Ok(()) };
        let others = self.guests.values().fold(0u64, |sum, guest| {
            sum.saturating_add(guest.about.floor_bytes).saturating_add(guest.figures.reserved_bytes())
        });
        let own = about.floor_bytes.saturating_add(Figures::default().reserved_bytes());
        let root = ContainerPath::root();
        let promised = next.promised_inside(&root);
        let needed = others.saturating_add(own).max(promised);
        if needed <= budget.bytes {
            return Ok(());
        }
        let living = holders(self.guests.values().map(|guest| (guest.about.floor_bytes, &*guest.about.name)));
        let kept = next.children(&root).map(|(path, node)| (node.limits.min_bytes, path.as_str()));
        let kept = holders(kept);
        Err(format!(
            "Guest {:?} needs {} to start, others need {}{living}, and min promises {}{kept}, but the host has {} for guests beside a reserve of {}: {} are missing",
            about.name,
            Human(own),
            Human(others),
            Human(promised),
            Human(budget.bytes),
            Human(budget.reserve_bytes),
            Human(needed - budget.bytes)
        ))
    }
}

/// Those who hold most, in brackets; nothing if nobody holds anything.
fn holders<'a>(all: impl Iterator<Item = (u64, &'a str)>) -> String {
    let mut all: Vec<(u64, &str)> = all.filter(|(bytes, _)| *bytes > 0).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    let names: Vec<String> =
        all.iter().take(HOLDERS_MAX).map(|(bytes, name)| format!("{name} {}", Human(*bytes))).collect();
    let more = all.len().saturating_sub(HOLDERS_MAX);
    match (names.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!(" ({})", names.join(", ")),
        (false, more) => format!(" ({} and {more} more)", names.join(", ")),
    }
}

/// A guest's RAM is where it says: in the process of its `vmm`, in a child of that, or in one that somebody else started, which
/// only a guest that was attached may name.
fn check_machine(about: &Register, pid: i32) -> Result<(), String> {
    let Some(machine) = about.machine else { return Ok(()) };
    if about.engine != "qemu" {
        return Err(format!("machine is given, which the engine {:?} does not have", about.engine));
    }
    match parent(machine.pid) {
        None => Err(format!("machine is process {}, but there is none", machine.pid)),
        Some(of) if of != pid && !machine.attached => {
            Err(format!("machine is process {}, but that is no child of process {pid}", machine.pid))
        }
        Some(_) => Ok(()),
    }
}

/// The process that started this one (proc_pid_stat(5), field 4).
fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn check(about: &Register, frames: &FrameReader) -> Result<(), String> {
    let name = &about.name;
    if format!("/{name}").parse::<ContainerPath>().is_err() || name.is_empty() || name.contains('/') {
        let name: String = name.chars().take(64).collect();
        return Err(format!("{name:?} is not a guest's name: letters, digits and -_.:@+ make one"));
    }
    if !ENGINES.contains(&about.engine.as_str()) {
        let engine: String = about.engine.chars().take(64).collect();
        return Err(format!("engine is {engine:?}, but must be one of {ENGINES:?}"));
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
