//! Units by container.

use super::ContainerId;

/// What each container is charged. Owner ids are given in order, so a vector is small and fast.
#[derive(Debug, Default)]
pub(super) struct Charges(Vec<u64>);

impl Charges {
    pub fn get(&self, container: ContainerId) -> u64 {
        self.0.get(usize::from(container.0)).copied().unwrap_or(0)
    }

    pub fn add(&mut self, container: ContainerId, units: u64) {
        *self.slot(container) += units;
    }

    /// Takes units off a charge, at most all of it. More would mean that the events were not transitions; a charge
    /// that wraps around would do more harm.
    pub fn take(&mut self, container: ContainerId, units: u64) {
        let slot = self.slot(container);
        debug_assert!(*slot >= units, "{container:?} has {slot} units, {units} are taken");
        *slot = slot.saturating_sub(units);
    }

    /// Takes all of a container's charge and returns it.
    pub fn take_all(&mut self, container: ContainerId) -> u64 {
        std::mem::take(self.slot(container))
    }

    pub fn storage_bytes(&self) -> usize {
        self.0.capacity() * size_of::<u64>()
    }

    fn slot(&mut self, container: ContainerId) -> &mut u64 {
        let index = usize::from(container.0);
        if index >= self.0.len() {
            self.0.resize(index + 1, 0);
        }
        &mut self.0[index]
    }
}
