//! Granules of managed images: guests ask for them, get an answer when they are there, and are asked to unmap them.

use crate::guests::{Guest, GuestSeq};
use crate::pool::{Asked, Backed, Eviction, GranuleIndex, Key, PoolBacking, UNMAP_DEADLINE};
use crate::state::effects::Effect;
use crate::state::pool::common;
use crate::state::{Balancer, State};
use accounting::{ContainerId, POOL};
use protocol::image::GRANULE_BYTES;
use protocol::message::{FromVmm, GranuleOutcome, PROTOCOL_VERSION, ServePool, ToVmm};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// A name that is too long to be a guest's is cut to this many characters.
const NAME_CHARS_MAX: usize = 64;

impl Balancer {
    /// A guest's second connection: the guest maps nothing of its managed images now, and is asked here to unmap.
    /// Returns its images in their order.
    ///
    /// # Errors
    /// In one sentence, for the `vmm` to show.
    pub fn serve_pool(
        &self,
        asked: &ServePool,
        pid: i32,
        outbox: mpsc::Sender<ToVmm>,
    ) -> Result<(GuestSeq, Vec<Backed>), String> {
        if asked.protocol_version != PROTOCOL_VERSION {
            return Err(format!(
                "You speak version {} of the protocol, this balancer speaks version {PROTOCOL_VERSION}",
                asked.protocol_version
            ));
        }
        self.change(|state, _| {
            let name: String = asked.guest.chars().take(NAME_CHARS_MAX).collect();
            let Some(guest) = state.guests.named(&name).filter(|guest| guest.pid == pid) else {
                return Err(format!("Process {pid} has registered no guest {name:?}"));
            };
            let seq = guest.seq;
            let backed = |index| {
                let key = state.image_of(guest, index)?;
                let backing = Arc::clone(&state.pool.images.get(&key)?.backing);
                Some((key, backing))
            };
            let images: Option<Vec<Backed>> = (0..guest.about.images.len()).map(backed).collect();
            let images = images.ok_or_else(|| format!("An image of {name:?} is gone"))?;
            state.pool.images.release(seq);
            if let Some(guest) = state.guests.get_mut(seq) {
                guest.pool_outbox = Some(outbox);
            }
            state.effects.push(Effect::GranulesChanged);
            Ok((seq, images))
        })
    }

    /// A guest asks for a granule.
    ///
    /// # Errors
    /// When it asks for what it cannot have: it is cut off.
    pub fn ask_granule(&self, guest: GuestSeq, image: u16, granule: u64) -> Result<(Asked, Key), String> {
        self.change(|state, now| state.ask_granule(guest, image, granule, now))
    }

    /// A granule was filled, or could not be; the guest gets the answer.
    ///
    /// # Errors
    /// When it takes no messages: it is cut off.
    pub fn granule_filled(
        &self,
        (guest, image): (GuestSeq, u16),
        (key, granule): (&Key, u64),
        backing: &Arc<dyn PoolBacking>,
        done: std::io::Result<()>,
    ) -> Result<(), String> {
        self.change(|state, now| {
            state.pool.images.filled(guest, key, GranuleIndex(granule), backing, done.is_ok());
            let outcome = match &done {
                Ok(()) => GranuleOutcome::There,
                Err(error) => GranuleOutcome::Failed { reason: error.to_string() },
            };
            if let Err(error) = done {
                let detail = format!(
                    "Image {} of domain {}: granule {granule} cannot be filled: {error}",
                    key.digest, key.domain
                );
                state.pool.images.accuse(key, &detail);
                state.pool.event(&mut state.events, "image_changed", &detail, now);
            }
            state.effects.push(Effect::GranulesChanged);
            state.answer(guest, image, granule, outcome)
        })
    }

    /// What a guest reports on its second connection, apart from questions.
    ///
    /// # Errors
    /// When it does not belong there.
    pub fn receive_of_pool(&self, guest: GuestSeq, message: &FromVmm) -> Result<(), String> {
        let FromVmm::Unmapped { image, first, count } = *message else {
            return Err("it sent a message that does not concern the pool".into());
        };
        self.change(|state, _| {
            let key = state.guests.get(guest).and_then(|guest| state.image_of(guest, image.into()));
            let Some(key) = key else {
                return Err(format!("it unmapped pages of image {image}, which it does not have"));
            };
            // A range beyond the end of the image is cut there.
            let all = state.pool.images.get(&key).map_or(0, |image| image.backing.bytes() / GRANULE_BYTES);
            for granule in first..first.saturating_add(count).min(all) {
                state.pool.images.unmapped(guest, &key, GranuleIndex(granule));
            }
            state.effects.push(Effect::GranulesChanged);
            Ok(())
        })
    }

    /// A second connection ended. The guest holds what it held.
    pub fn serve_pool_ended(&self, guest: GuestSeq, reason: &str) {
        self.change(|state, _| {
            let Some(guest) = state.guests.get_mut(guest) else { return };
            tracing::debug!(guest = guest.about.name, reason, "a guest is served granules no more");
            // Another connection may have come in its place already.
            if guest.pool_outbox.as_ref().is_some_and(mpsc::Sender::is_closed) {
                guest.pool_outbox = None;
            }
        });
    }

    /// Keeps the budgets of managed images, and cuts off guests that do not unmap in time.
    pub fn keep_granules(&self) {
        let overdue = self.change(|state, now| {
            for payer in state.pool.images.payers_of_managed() {
                if let Some(budget) = state.budget_of(payer) {
                    let evictions = state.pool.images.shrink(payer, budget, now);
                    state.send_evictions(evictions);
                }
            }
            state.effects.push(Effect::GranulesChanged);
            state.pool.images.overdue(now)
        });
        for seq in overdue {
            let seconds = UNMAP_DEADLINE.as_secs();
            let reason = format!("It did not unmap pages of the pool within {seconds} s, and is cut off");
            self.change(|state, now| {
                if let Some(guest) = state.guests.get_mut(seq) {
                    guest.event(&mut state.events, "pool_unmap_ignored", &reason, now);
                }
            });
            self.hang_up(seq, &reason);
        }
    }
}

impl State {
    fn ask_granule(
        &mut self,
        seq: GuestSeq,
        image: u16,
        granule: u64,
        now: Instant,
    ) -> Result<(Asked, Key), String> {
        let guest = self.guests.get(seq);
        let key = guest.and_then(|guest| Some((&guest.about.name, self.image_of(guest, image.into())?)));
        let Some((name, key)) = key else {
            return Err(format!("It asked for image {image}, which it does not have"));
        };
        let name = name.clone();
        let payer = self.pool.images.get(&key).and_then(|image| image.bound).unwrap_or(POOL);
        let budget = self.budget_of(payer);
        let (asked, evictions) = self.pool.images.ask(seq, &key, GranuleIndex(granule), budget, now);
        self.send_evictions(evictions);
        match asked {
            Asked::Unknown => {
                return Err(format!(
                    "It asked for granule {granule} of image {image}, which is not there or not managed"
                ));
            }
            Asked::Full => self.pool.full(&mut self.events, &name, budget, now),
            Asked::There => self.answer(seq, image, granule, GranuleOutcome::There)?,
            _ => {}
        }
        Ok((asked, key))
    }

    /// What the container that pays for images may hold, bytes.
    fn budget_of(&self, payer: ContainerId) -> Option<u64> {
        let tree = self.containers.tree();
        let own = tree.iter().find(|(_, node)| payer != POOL && node.owner == payer.0).map(|(_, node)| node);
        own.or_else(|| tree.get(&common()))?.limits.max_bytes
    }

    /// An image of a guest, by its place among them.
    fn image_of(&self, guest: &Guest, index: usize) -> Option<Key> {
        let digest = guest.about.images.get(index)?.digest;
        let key = Key { digest, domain: self.containers.tree().domain(&guest.about.container) };
        self.pool.images.get(&key).map(|_| key)
    }

    /// Answers a question. Answers and requests to unmap are in one queue, so that a request never comes before the
    /// answer that it undoes.
    fn answer(&self, guest: GuestSeq, image: u16, first: u64, outcome: GranuleOutcome) -> Result<(), String> {
        let guest = self.guests.get(guest);
        let outbox = guest.and_then(|guest| guest.pool_outbox.as_ref()).ok_or("the guest is gone")?;
        let answer = ToVmm::Granules { image, first, count: 1, outcome };
        outbox.try_send(answer).map_err(|_| "its vmm takes no messages".to_owned())
    }

    /// Asks guests to unmap granules. A guest that does not receive this is found by the deadline.
    fn send_evictions(&self, evictions: Vec<Eviction>) {
        for Eviction { guest, key, granule } in evictions {
            let Some(guest) = self.guests.get(guest) else { continue };
            let image = guest.about.images.iter().position(|image| image.digest == key.digest);
            let image = image.and_then(|image| u16::try_from(image).ok());
            let (Some(image), Some(outbox)) = (image, &guest.pool_outbox) else { continue };
            let _ = outbox.try_send(ToVmm::Unmap { image, first: granule.0, count: 1 });
        }
    }
}
