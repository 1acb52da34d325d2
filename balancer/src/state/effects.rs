//! Effects: what a change of the state wants done outside the lock.

use super::Balancer;
use super::kernel::Source;

/// Something to be done once the lock is free. Effects are carried out in their order, by the thread that made the
/// change.
#[derive(Debug)]
pub(in crate::state) enum Effect {
    /// Ends a process.
    Kill {
        /// The `vmm` of the guest that the policy ends.
        pid: i32,
    },
    /// Reads a guest that released memory: its old figures would count that as held. Waiters are served with the
    /// result.
    ReadReleased(Source),
    /// Reads a guest that has just compared its frame table, and judges the table.
    ReadCompared(Source),
    /// A guest may have a scan of its frame table due.
    ScanTables,
    /// Granules came or went.
    GranulesChanged,
}

impl Balancer {
    pub(in crate::state) fn carry_out(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Kill { pid } => self.kernel.kill(pid),
                Effect::ReadReleased(source) => {
                    let sample = source.memory(&*self.kernel);
                    self.change(|state, _| state.guests.take(sample));
                    self.freed.notify_one();
                }
                Effect::ReadCompared(source) => {
                    let sample = source.memory(&*self.kernel);
                    self.change(|state, now| state.check_answer(sample, now));
                }
                Effect::ScanTables => self.scan_wanted.notify_one(),
                Effect::GranulesChanged => self.granules_changed.notify_waiters(),
            }
        }
    }
}
