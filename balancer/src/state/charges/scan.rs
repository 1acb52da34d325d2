//! Scans of the frame tables of guests, each on a thread of its own.

use crate::guests::{ChargeDone, DueScan, Guest, TableScan};
use crate::state::effects::Effect;
use crate::state::{Balancer, State};
use protocol::bytes::{FRAME_BYTES, Human};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

impl Balancer {
    /// Makes the scans that are due, for ever. A guest whose scan takes long delays no other guest.
    pub async fn scan_tables(self: Arc<Self>) {
        loop {
            for due in self.change(State::scans_due) {
                let balancer = Arc::clone(&self);
                tokio::task::spawn_blocking(move || {
                    // What a hostile table makes of it must not leave its guest without scans for ever.
                    let scan = catch_unwind(AssertUnwindSafe(|| TableScan::take(&due.frames))).ok();
                    balancer.change(|state, now| match scan {
                        Some(scan) => state.scanned(due, scan, now),
                        None => state.scan_failed(due),
                    });
                });
            }
            self.scan_wanted.notified().await;
        }
    }
}

impl State {
    fn scans_due(&mut self, now: Instant) -> Vec<DueScan> {
        let (accounting, guests) = (self.accounting, self.guests.len());
        self.guests.iter_mut().filter_map(|guest| guest.scan_due(accounting, guests, now)).collect()
    }

    /// A scan failed: it is made again when one is due, and sees what this one would have seen.
    fn scan_failed(&mut self, due: DueScan) {
        let Some(guest) = self.guests.get_mut(due.guest) else { return };
        tracing::error!(guest = guest.about.name, "a scan of its frame table panicked");
        guest.is_scanned = false;
        guest.scan_wanted = true;
        guest.charges_unseen.splice(0..0, due.charges_done);
    }

    fn scanned(&mut self, due: DueScan, scan: TableScan, now: Instant) {
        let Some(guest) = self.guests.get_mut(due.guest) else { return };
        guest.scan = Some(scan);
        guest.is_scanned = false;
        if guest.scan_wanted {
            self.effects.push(Effect::ScanTables);
        }
        for done in &due.charges_done {
            // The bytes that changed hands were seen: the request may be answered.
            if let Some(guest) = self.guests.get_mut(due.guest) {
                guest.charge_done.send_replace(done.id);
                if let Some(detail) = moved_charges(guest, done) {
                    guest.event(&mut self.events, "charges_moved", &detail, now);
                }
            }
            self.forget_owners(due.guest);
            self.adjust(now);
        }
    }
}

/// The event about charges that were moved from other containers.
fn moved_charges(guest: &Guest, done: &ChargeDone) -> Option<String> {
    let bytes = done.moved_frames.saturating_mul(FRAME_BYTES).min(guest.about.ram_bytes);
    (bytes > 0).then(|| format!("{} were charged to others before", Human(bytes)))
}
