//! Scans of files and tables: which are due, what follows from their results, and which images are closed on the way.

use super::backing::Stamp;
use super::image::{Key, PoolImage};
use super::images::Pool;
use super::sample::{Answer, Plan, Question};
use accounting::{ContainerId, POOL, Run, System, UNITS_PER_FRAME};
use protocol::bytes::{FRAME_BYTES, Human};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An image that no guest maps and that has no resident page is closed after this time.
const IDLE: Duration = Duration::from_secs(60);
/// Scans of the part of a guest's table that covers an image, and what follows from them, may take one part in this
/// many of a CPU for each guest: a guest that makes them expensive is scanned less often, and other guests are not.
const GUEST_CPU_PART: u32 = 1000;
/// Most that it costs to enter into both ledgers a run of pages that a guest began or ceased to map.
const RUN_COST: Duration = Duration::from_micros(2);

impl Pool {
    /// What is to be looked at now; all of it, or what is due.
    pub fn plan(&mut self, now: Instant, all: bool) -> Plan {
        let now_ms = u64::try_from(now.duration_since(self.started_at).as_millis()).unwrap_or(u64::MAX);
        let idle = |image: &PoolImage| {
            let rests = image.ledger.resident().is_empty() && image.seen_at.is_some();
            // A removed file is held by nothing but our descriptor.
            let idle = image.is_removed || rests && now.duration_since(image.idle_since) >= IDLE;
            image.sharers.is_empty() && idle
        };
        self.images.retain(|_, image| !idle(image));
        let question = |(key, image): (&Key, &mut PoolImage)| {
            image.ledger.advance(now_ms);
            let is_managed = image.is_managed();
            if is_managed {
                // Its books are kept as it happens, and need no look.
                image.seen_at = Some(now);
                image.sharers.values_mut().for_each(|sharer| sharer.seen_at = Some(now));
            }
            let due = image.sharers.iter().filter(|(_, sharer)| !is_managed && (all || sharer.due_at <= now));
            Question {
                key: key.clone(),
                backing: Arc::clone(&image.backing),
                evict: std::mem::take(&mut image.evict),
                tables: due
                    .map(|(order, sharer)| (*order, Arc::clone(&sharer.frames), sharer.first))
                    .collect(),
            }
        };
        Plan(self.images.iter_mut().map(question).collect())
    }

    /// Takes in what was seen, and returns what is wrong with which image, if that is new.
    pub fn apply(&mut self, answers: Vec<Answer>, now: Instant) -> Vec<(Key, String)> {
        let mut wrong = Vec::new();
        for mut answer in answers {
            let Some(image) = self.images.get_mut(&answer.key) else { continue };
            // One that was opened again meanwhile was not scanned.
            if !Arc::ptr_eq(&image.backing, &answer.backing) {
                continue;
            }
            image.is_removed = answer.stamp.as_ref().is_ok_and(|stamp| stamp.links == 0);
            if image.is_removed && image.sharers.is_empty() {
                continue;
            }
            let is_managed = image.is_managed();
            let found = match (&answer.stamp, &answer.seen.resident) {
                (Err(error), _) => Some(format!("The system does not say what became of its file: {error}")),
                (_, None) if !is_managed => Some("The kernel does not say what it holds of it".to_owned()),
                (Ok(stamp), _) => difference(&image.stamp, stamp),
            };
            if let Some(found) = found.filter(|found| image.changed.as_ref() != Some(found)) {
                image.changed = Some(found.clone());
                wrong.push((answer.key.clone(), found));
            }
            if is_managed {
                match image.throw_out() {
                    Ok(0) => {}
                    Ok(bytes) => wrong.push((answer.key.clone(), foreign(bytes))),
                    Err(error) => {
                        tracing::warn!(image = %answer.key.digest, %error, "what it holds is not known")
                    }
                }
                if !image.ledger.resident().is_empty() {
                    image.idle_since = now;
                }
                continue;
            }
            let known = |order: &u64| image.sharers.contains_key(order);
            answer.seen.mapped.retain(|order, _| known(order));
            let runs = image.ledger.apply(&answer.seen);
            image.kept.update(&answer.evicted, &image.ledger, now);
            for (order, took) in answer.took {
                if let Some(sharer) = image.sharers.get_mut(&order) {
                    let runs = u32::try_from(runs.get(&order).copied().unwrap_or(0)).unwrap_or(u32::MAX);
                    let cost = took.saturating_add(RUN_COST.saturating_mul(runs));
                    sharer.seen_at = Some(answer.at);
                    sharer.due_at = now + cost.saturating_mul(GUEST_CPU_PART);
                }
            }
            if answer.seen.resident.is_some() {
                image.seen_at = Some(answer.at);
            }
            if self.system != System::Rss {
                self.uncharged_frames += image.ledger.unbalanced().div_ceil(UNITS_PER_FRAME);
            }
            if !image.ledger.resident().is_empty() {
                image.idle_since = now;
            }
        }
        self.recount();
        wrong
    }

    /// Marks that many bytes for eviction with the next scan, of images that no guest maps first. Pages that cannot be
    /// marked are mapped, or kept by the kernel.
    pub fn evict(&mut self, payer: ContainerId, bytes: u64) {
        let mut left = self.evict_managed(payer, bytes).div_ceil(FRAME_BYTES);
        let mut images: Vec<&mut PoolImage> = self
            .images
            .values_mut()
            .filter(|image| !image.is_managed() && image.bound.unwrap_or(POOL) == payer)
            .collect();
        images.sort_by_key(|image| image.sharers.len());
        for image in images {
            image.evict.clear();
            let unmapped = image.ledger.resident().minus(image.ledger.mapped());
            for run in image.kept.without(&unmapped).runs() {
                if left == 0 {
                    break;
                }
                let count = run.count.min(left);
                left -= count;
                image.evict.push(Run { count, ..run });
            }
        }
    }
}

/// A guest read pages that it was not given.
fn foreign(bytes: u64) -> String {
    format!("{} of its memory came from reading it without asking, and were thrown out", Human(bytes))
}

/// What became of a file, if it is not what it was.
fn difference(before: &Stamp, now: &Stamp) -> Option<String> {
    if before == now {
        return None;
    }
    Some(match now {
        Stamp { links: 0, .. } => "Its file was removed; who maps it keeps it".to_owned(),
        _ if before.bytes != now.bytes => {
            format!(
                "Its file has {} now and had {} when it was verified",
                Human(now.bytes),
                Human(before.bytes)
            )
        }
        _ => "Its file was changed after it was verified, in content or attributes".to_owned(),
    })
}
