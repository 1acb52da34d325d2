//! Samples of files and tables: which are due, what follows from them, and which pages are evicted with them.

use super::backing::Stamp;
use super::image::{Key, PoolImage};
use super::images::Pool;
use super::numbers::GuestSeq;
use super::sample::{Answer, Question, Sampling};
use accounting::{ContainerId, POOL, Run, System, UNITS_PER_FRAME};
use protocol::bytes::{FRAME_BYTES, Human};
use protocol::time::millis;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An image that no guest maps and of which no page is resident is closed after this.
const IDLE: Duration = Duration::from_secs(60);
/// Reading the part of a guest's table that covers an image, and applying it, may take one part in this many of a CPU
/// for each guest: a guest that makes it expensive is sampled less often, and other guests are not affected.
const GUEST_CPU_PART: u32 = 1000;
/// Upper bound of the cost of a run of pages that a guest began or ceased to map, in both instances of the accounting
/// system.
const RUN_COST: Duration = Duration::from_micros(2);

impl Pool {
    /// The images and tables to be sampled now: all of them, or those that are due.
    pub fn due(&mut self, now: Instant, all: bool) -> Sampling {
        let now_ms = millis(now.duration_since(self.started_at));
        let idle = |image: &PoolImage| {
            let rests = image.ledger.resident().is_empty() && image.seen_at.is_some();
            // Only our descriptor keeps a removed file.
            let idle = image.is_removed || rests && now.duration_since(image.idle_since) >= IDLE;
            image.sharers.is_empty() && idle
        };
        self.images.retain(|_, image| !idle(image));
        let question = |(key, image): (&Key, &mut PoolImage)| {
            image.ledger.advance(now_ms);
            let is_managed = image.is_managed();
            if is_managed {
                // Its granules are known at every moment.
                image.seen_at = Some(now);
                image.sharers.values_mut().for_each(|sharer| sharer.seen_at = Some(now));
            }
            let due = image.sharers.iter().filter(|(_, sharer)| !is_managed && (all || sharer.due_at <= now));
            Question {
                key: key.clone(),
                backing: Arc::clone(&image.backing),
                evict: std::mem::take(&mut image.evict),
                tables: due.map(|(seq, sharer)| (*seq, Arc::clone(&sharer.frames), sharer.first)).collect(),
            }
        };
        Sampling(self.images.iter_mut().map(question).collect())
    }

    /// Applies samples, and returns the defects of images that are new.
    pub fn apply(&mut self, answers: Vec<Answer>, now: Instant) -> Vec<(Key, String)> {
        let mut wrong = Vec::new();
        for mut answer in answers {
            let Some(image) = self.images.get_mut(&answer.key) else { continue };
            // The image was closed and opened again meanwhile: this sample is about the earlier one.
            if !Arc::ptr_eq(&image.backing, &answer.backing) {
                continue;
            }
            image.is_removed = answer.stamp.as_ref().is_ok_and(|stamp| stamp.links == 0);
            if image.is_removed && image.sharers.is_empty() {
                continue;
            }
            let is_managed = image.is_managed();
            let found = match (&answer.stamp, &answer.seen.resident) {
                (Err(error), _) => Some(format!("The state of its file cannot be read: {error}")),
                (_, None) if !is_managed => Some("Its resident pages cannot be read".to_owned()),
                (Ok(stamp), _) => difference(&image.stamp, stamp),
            };
            if let Some(found) = found.filter(|found| image.changed.as_ref() != Some(found)) {
                image.changed = Some(found.clone());
                wrong.push((answer.key.clone(), found));
            }
            if is_managed {
                match image.evict_foreign() {
                    Ok(0) => {}
                    Ok(bytes) => wrong.push((answer.key.clone(), foreign(bytes))),
                    Err(error) => {
                        tracing::warn!(image = %answer.key.digest, %error, "the memory of an image cannot be read")
                    }
                }
                if !image.ledger.resident().is_empty() {
                    image.idle_since = now;
                }
                continue;
            }
            let known = |seq: &GuestSeq| image.sharers.contains_key(seq);
            answer.seen.mapped.retain(|seq, _| known(seq));
            let runs = image.ledger.apply(&answer.seen);
            image.kept.update(&answer.evicted, &image.ledger, now);
            for (seq, took) in answer.took {
                if let Some(sharer) = image.sharers.get_mut(&seq) {
                    let runs = u32::try_from(runs.get(&seq).copied().unwrap_or(0)).unwrap_or(u32::MAX);
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

    /// Marks this number of bytes to be evicted with the next sample, first of images that no guest maps. Bytes that
    /// cannot be marked are mapped, or kept by the kernel.
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

/// A process read pages that it was not given.
fn foreign(bytes: u64) -> String {
    format!(
        "{} of its memory were filled by a process that read it without asking, and were evicted",
        Human(bytes)
    )
}

/// The difference between two stamps of a file, if there is one.
fn difference(before: &Stamp, now: &Stamp) -> Option<String> {
    if before == now {
        return None;
    }
    Some(match now {
        Stamp { links: 0, .. } => "Its file was removed; guests that map it keep it".to_owned(),
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
