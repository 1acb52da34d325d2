//! The registered guests: each has a number, by which the balancer refers to it, and a name, by which clients do.

use super::StateError;
use super::kernel::{Sample, Source};
use crate::guests::{Guest, GuestSeq, Reading};
use protocol::engine::Engine;
use protocol::message::Register;
use protocol::objects::ObjectCounts;
use protocol::path::ContainerPath;
use std::collections::BTreeMap;
use std::time::Instant;

/// All guests.
#[derive(Debug, Default)]
pub(in crate::state) struct Registry {
    guests: BTreeMap<GuestSeq, Guest>,
    names: BTreeMap<String, GuestSeq>,
    last: u64,
    /// When the last guest left; `None` while there is one, or when there never was.
    empty_since: Option<Instant>,
}

impl Registry {
    /// The number for the next guest.
    pub(in crate::state) fn next_seq(&mut self) -> GuestSeq {
        self.last += 1;
        GuestSeq(self.last)
    }

    /// Adds a guest. Its name must be free.
    pub(in crate::state) fn insert(&mut self, guest: Guest) {
        self.names.insert(guest.about.name.clone(), guest.seq);
        self.guests.insert(guest.seq, guest);
        self.empty_since = None;
    }

    /// Removes a guest.
    pub(in crate::state) fn remove(&mut self, seq: GuestSeq, now: Instant) -> Option<Guest> {
        let guest = self.guests.remove(&seq)?;
        self.names.remove(&guest.about.name);
        if self.guests.is_empty() {
            self.empty_since = Some(now);
        }
        Some(guest)
    }

    pub(in crate::state) fn get(&self, seq: GuestSeq) -> Option<&Guest> {
        self.guests.get(&seq)
    }

    pub(in crate::state) fn get_mut(&mut self, seq: GuestSeq) -> Option<&mut Guest> {
        self.guests.get_mut(&seq)
    }

    /// The guest of this name.
    pub(in crate::state) fn named(&self, name: &str) -> Option<&Guest> {
        self.guests.get(self.names.get(name)?)
    }

    /// The guest that a request names.
    ///
    /// # Errors
    /// When there is no guest of this name.
    pub(in crate::state) fn existing(&self, name: &str) -> Result<&Guest, StateError> {
        self.named(name).ok_or_else(|| StateError::NoGuest(name.to_owned()))
    }

    /// The same, to be changed.
    ///
    /// # Errors
    /// When there is no guest of this name.
    pub(in crate::state) fn existing_mut(&mut self, name: &str) -> Result<&mut Guest, StateError> {
        let seq = self.names.get(name).copied();
        seq.and_then(|seq| self.guests.get_mut(&seq)).ok_or_else(|| StateError::NoGuest(name.to_owned()))
    }

    pub(in crate::state) fn len(&self) -> usize {
        self.guests.len()
    }

    pub(in crate::state) fn is_empty(&self) -> bool {
        self.guests.is_empty()
    }

    /// All guests in the order of their names.
    pub(in crate::state) fn iter(&self) -> impl Iterator<Item = &Guest> {
        self.names.values().filter_map(|seq| self.guests.get(seq))
    }

    /// All guests in the order in which they registered.
    pub(in crate::state) fn by_seq(&self) -> impl Iterator<Item = &Guest> {
        self.guests.values()
    }

    /// All guests in the order in which they registered, to be changed.
    pub(in crate::state) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Guest> {
        self.guests.values_mut()
    }

    /// Guests in a container and in all containers inside it.
    pub(in crate::state) fn inside<'a>(&'a self, path: &'a ContainerPath) -> impl Iterator<Item = &'a Guest> {
        self.iter().filter(move |guest| guest.about.container.is_inside(path))
    }

    /// What the guests in a container and in all containers inside it need to live, bytes.
    pub(in crate::state) fn floors_inside(&self, path: &ContainerPath) -> u64 {
        self.inside(path).fold(0u64, |sum, guest| sum.saturating_add(guest.about.floor_bytes))
    }

    /// Objects of the kernel that the guests in a container and in all containers inside it have.
    pub(in crate::state) fn objects_inside(&self, path: &ContainerPath) -> ObjectCounts {
        let mut sum = ObjectCounts::default();
        self.inside(path).for_each(|guest| sum += guest.objects());
        sum
    }

    /// When the last guest left; `None` while there is one, or when there never was.
    pub(in crate::state) fn empty_since(&self) -> Option<Instant> {
        self.empty_since
    }

    /// The last waiter gave up, and there is no guest.
    pub(in crate::state) fn still_empty(&mut self, now: Instant) {
        if self.guests.is_empty() {
            self.empty_since = Some(now);
        }
    }

    /// Where each guest is read.
    pub(in crate::state) fn sources(&self) -> Vec<Source> {
        self.guests.values().map(Source::of).collect()
    }

    /// Takes a sample into account, unless the guest left or a newer sample is there already.
    pub(in crate::state) fn take(&mut self, sample: Sample) {
        let Some(guest) = self.guests.get_mut(&sample.seq) else { return };
        let is_newer = |memory: &Reading| guest.figures.reading().is_none_or(|last| last.at <= memory.at);
        if let Some(memory) = sample.memory.filter(is_newer) {
            guest.figures.update(memory);
        }
        if let Some(objects) = sample.objects {
            guest.process = Some(objects);
        }
    }

    /// The RAM of a guest is where the guest says: in the process of its `vmm`, in a child of that, or in a process
    /// that was started by someone else, which only an attached guest may name. No other guest has its RAM there.
    pub(in crate::state) fn check_machine(
        &self,
        about: &Register,
        pid: i32,
        parent: Option<i32>,
    ) -> Result<(), String> {
        let Some(machine) = about.machine else { return Ok(()) };
        if about.engine != Engine::Qemu {
            return Err(format!("machine is given, which the engine {} does not have", about.engine));
        }
        match parent {
            None => return Err(format!("machine is process {}, but there is no such process", machine.pid)),
            Some(parent) if parent != pid && !machine.attached => {
                return Err(format!(
                    "machine is process {}, but that is not a child of process {pid}",
                    machine.pid
                ));
            }
            Some(_) => {}
        }
        let has_it = |guest: &&Guest| guest.about.machine.is_some_and(|other| other.pid == machine.pid);
        match self.iter().find(has_it) {
            Some(other) => Err(format!(
                "machine is process {}, which is guest {:?} already",
                machine.pid, other.about.name
            )),
            None => Ok(()),
        }
    }
}
