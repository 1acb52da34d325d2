//! Taking in a guest, and letting it go.

use super::{Engine, State};
use crate::guests::{Figures, Guest, KernelSample, Sampled};
use protocol::bytes::{BYTES_MAX, Human};
use protocol::frames::FrameReader;
use protocol::message::{Register, ToVmm};
use protocol::path::ContainerPath;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// What a guest is told when it is taken in.
#[derive(Debug, Clone, Copy)]
pub struct Admission {
    /// Tells this session from others of the same name.
    pub session: u64,
    /// Owner id of its container.
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
        about: Register,
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
        state.admit_container(&about)?;
        let owner = state.tree.get(&about.container).expect("made above").owner;
        state.sessions += 1;
        let session = state.sessions;
        let name = about.name.clone();
        let mut figures = Figures::default();
        if let Some(kernel) = KernelSample::take(pid) {
            figures.update(kernel, &frames.totals());
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
            frames: Arc::new(frames),
            balloon: Sampled::now(about.balloon.clone()),
            about,
            statistics: None,
            figures,
            outbox,
            sent_target_bytes: None,
            target_reason: String::new(),
            out_of_memory_at: None,
            reconciled: watch::Sender::new(0),
            reconcile_asked_at: None,
            registered_at: Instant::now(),
        };
        state.guests.insert(name.clone(), guest);
        state.empty_since = None;
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
        state.events.push("guest_gone", Some(name), Some(&guest.about.container), reason);
        if state.guests.is_empty() {
            state.empty_since = Some(Instant::now());
        }
        state.sweep(&guest.about.container);
        // What it held is free for those beside it.
        state.adjust();
    }
}

impl State {
    /// Makes the container of a guest where it is missing, with the limits of the launch.
    fn admit_container(&mut self, about: &Register) -> Result<(), String> {
        let mut next = self.tree.clone();
        let made = next.ensure(&about.container).map_err(|error| error.to_string())?;
        // A guest that comes back after a restart brings the limits of its launch; the journal knows better.
        let comes_back = about.balloon.driver_ready || about.balloon.ballooned_bytes > 0;
        if let Some(limits) = about.limits.as_ref().filter(|_| made || !comes_back) {
            next.patch(&about.container, limits).map_err(|error| error.to_string())?;
        }
        if !comes_back {
            for above in about.container.ancestors() {
                self.check_admission(about, &above, next.get(&above).and_then(|node| node.limits.max_bytes))?;
            }
        }
        self.adopt(next).map_err(|error| error.chain())?;
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
        Err(format!(
            "Guest {:?} needs {own} to live and the guests in {above} need {others}, but max of {above} is {max}: {short} are missing",
            about.name
        ))
    }
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
    if frames.ram_bytes() < about.ram_bytes {
        return Err(format!(
            "The frame table covers {} bytes of {} bytes of RAM",
            frames.ram_bytes(),
            about.ram_bytes
        ));
    }
    Ok(())
}
