//! Granules of managed images: guests ask for them, are told when they are there, and are asked to let go of them.

use crate::guests::Guest;
use crate::pool::{Asked, Backed, Eviction, GranuleIndex, GuestSeq, Key, PoolBacking, UNMAP_DEADLINE};
use crate::state::{Balancer, State};
use accounting::{ContainerId, POOL};
use protocol::bytes::Human;
use protocol::image::GRANULE_BYTES;
use protocol::message::{FromVmm, GranuleOutcome, PROTOCOL_VERSION, ServePool, ToVmm};
use protocol::path::ContainerPath;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Time between two tellings that nothing can go for a guest.
const FULL_EVENT_EVERY: Duration = Duration::from_secs(10);

/// A guest that is served granules.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its name.
    pub name: String,
    /// Tells it from others of the same name.
    pub session: u64,
}

impl Balancer {
    /// A guest's second connection: it maps nothing of its managed images now, and is told here to let go. Returns its images in
    /// their order.
    ///
    /// # Errors
    /// In one sentence, for the `vmm` to show.
    pub fn serve_pool(
        &self,
        asked: &ServePool,
        pid: i32,
        outbox: mpsc::Sender<ToVmm>,
    ) -> Result<(Served, Vec<Backed>), String> {
        let state = &mut *self.state();
        let name: String = asked.guest.chars().take(64).collect();
        if asked.protocol_version != PROTOCOL_VERSION {
            return Err(format!(
                "You speak version {} of the protocol, this balancer speaks version {PROTOCOL_VERSION}",
                asked.protocol_version
            ));
        }
        let found = state.guests.get(&name).filter(|guest| guest.pid == pid);
        let Some(guest) = found else {
            return Err(format!("Process {pid} has registered no guest {name:?}"));
        };
        let session = guest.session;
        let backed = |index| {
            let key = state.image_of(guest, index)?;
            let backing = Arc::clone(&state.pool.get(&key)?.backing);
            Some((key, backing))
        };
        let images: Option<Vec<Backed>> = (0..guest.about.images.len()).map(backed).collect();
        let images = images.ok_or_else(|| format!("An image of {name:?} is gone"))?;
        state.pool.release(GuestSeq(session));
        if let Some(guest) = state.guests.get_mut(&name) {
            guest.pool_outbox = Some(outbox);
        }
        self.granules_changed.notify_waiters();
        Ok((Served { name, session }, images))
    }

    /// A guest asks for a granule.
    ///
    /// # Errors
    /// When it asks for what it cannot have: it is cut off.
    pub fn ask_granule(&self, guest: &Served, image: u16, granule: u64) -> Result<(Asked, Key), String> {
        let state = &mut *self.state();
        let key = state.served(guest).and_then(|guest| state.image_of(guest, image.into()));
        let Some(key) = key else { return Err(format!("It asked for image {image}, which it has not")) };
        let payer = state.pool.get(&key).and_then(|image| image.bound).unwrap_or(POOL);
        let budget = state.budget_of(payer);
        let (seq, number) = (GuestSeq(guest.session), GranuleIndex(granule));
        let (asked, evictions) = state.pool.ask(seq, &key, number, budget, Instant::now());
        state.send_evictions(evictions);
        match asked {
            Asked::Unknown => {
                return Err(format!(
                    "It asked for granule {granule} of image {image}, which is not there or not managed"
                ));
            }
            Asked::Full => state.granules_full(&guest.name, budget),
            Asked::There => state.answer(guest, image, granule, GranuleOutcome::There)?,
            _ => {}
        }
        Ok((asked, key))
    }

    /// A granule was filled, or could not be; the guest is told.
    ///
    /// # Errors
    /// When it takes no messages: it is cut off.
    pub fn granule_filled(
        &self,
        (guest, image): (&Served, u16),
        (key, granule): (&Key, u64),
        backing: &Arc<dyn PoolBacking>,
        done: std::io::Result<()>,
    ) -> Result<(), String> {
        let state = &mut *self.state();
        state.pool.filled(GuestSeq(guest.session), key, GranuleIndex(granule), backing, done.is_ok());
        let outcome = match &done {
            Ok(()) => GranuleOutcome::There,
            Err(error) => GranuleOutcome::Failed { reason: error.to_string() },
        };
        if let Err(error) = done {
            let detail = format!(
                "Image {} of domain {}: granule {granule} cannot be filled: {error}",
                key.digest, key.domain
            );
            state.pool.accuse(key, &detail);
            state.pool_event("image_changed", None, &detail);
        }
        self.granules_changed.notify_waiters();
        state.answer(guest, image, granule, outcome)
    }

    /// What a guest says on its second connection beside questions.
    ///
    /// # Errors
    /// When it is nothing that belongs there.
    pub fn hear_of_pool(&self, guest: &Served, message: &FromVmm) -> Result<(), String> {
        let FromVmm::Unmapped { image, first, count } = *message else {
            return Err("it said something else than what concerns the pool".into());
        };
        let state = &mut *self.state();
        let key = state.served(guest).and_then(|guest| state.image_of(guest, image.into()));
        let Some(key) = key else { return Err(format!("it unmapped of image {image}, which it has not")) };
        // More than was ever there ends at the end.
        let all = state.pool.get(&key).map_or(0, |image| image.backing.bytes() / GRANULE_BYTES);
        for granule in first..first.saturating_add(count).min(all) {
            state.pool.unmapped(GuestSeq(guest.session), &key, GranuleIndex(granule));
        }
        self.granules_changed.notify_waiters();
        Ok(())
    }

    /// A second connection ended. What the guest holds, it holds.
    pub fn serve_pool_ended(&self, guest: &Served, reason: &str) {
        let state = &mut *self.state();
        if let Some(known) = state.guests.get_mut(&guest.name).filter(|known| known.session == guest.session)
        {
            tracing::debug!(guest = guest.name, reason, "a guest is served granules no more");
            // Another connection may have come in its place already.
            if known.pool_outbox.as_ref().is_some_and(mpsc::Sender::is_closed) {
                known.pool_outbox = None;
            }
        }
    }

    /// Keeps the budgets of managed images, and cuts off who does not let go.
    pub fn keep_granules(&self) {
        let overdue = {
            let state = &mut *self.state();
            for payer in state.pool.payers_of_managed() {
                if let Some(budget) = state.budget_of(payer) {
                    let evictions = state.pool.shrink(payer, budget, Instant::now());
                    state.send_evictions(evictions);
                }
            }
            let late = state.pool.overdue(Instant::now());
            let named = state.guests.values().filter(|guest| late.contains(&GuestSeq(guest.session)));
            named.map(|guest| (guest.about.name.clone(), guest.session)).collect::<Vec<_>>()
        };
        for (name, session) in overdue {
            let seconds = UNMAP_DEADLINE.as_secs();
            let reason = format!("It did not let go of pages of the pool within {seconds} s, and is cut off");
            self.state().guest_event("pool_unmap_ignored", &name, &reason);
            self.hang_up(&name, session, &reason);
        }
        self.granules_changed.notify_waiters();
    }
}

impl State {
    /// What the container that pays for images may hold, bytes.
    fn budget_of(&self, payer: ContainerId) -> Option<u64> {
        let common = crate::state::pool::pages::common();
        let of = |path: &ContainerPath| self.tree.get(path).and_then(|node| node.limits.max_bytes);
        if payer == POOL {
            return of(&common);
        }
        self.tree.iter().find(|(_, node)| node.owner == payer.0).map_or(of(&common), |(path, _)| of(path))
    }

    fn served(&self, served: &Served) -> Option<&Guest> {
        self.guests.get(&served.name).filter(|guest| guest.session == served.session)
    }

    /// An image of a guest, by its place among them.
    fn image_of(&self, guest: &Guest, index: usize) -> Option<Key> {
        let digest = guest.about.images.get(index)?.digest;
        let key = Key { digest, domain: self.tree.domain(&guest.about.container) };
        self.pool.get(&key).map(|_| key)
    }

    /// Answers a question. In one queue with orders to let go, so that none of them comes before the answer that it undoes.
    fn answer(&self, guest: &Served, image: u16, first: u64, outcome: GranuleOutcome) -> Result<(), String> {
        let outbox =
            self.served(guest).and_then(|guest| guest.pool_outbox.as_ref()).ok_or("the guest is gone")?;
        let answer = ToVmm::Granules { image, first, count: 1, outcome };
        outbox.try_send(answer).map_err(|_| "its vmm takes no messages".to_owned())
    }

    /// Tells guests to unmap. A guest that does not listen is found by the deadline.
    fn send_evictions(&self, evictions: Vec<Eviction>) {
        for Eviction { guest: GuestSeq(session), key, granule } in evictions {
            let Some(guest) = self.guests.values().find(|guest| guest.session == session) else { continue };
            let image = guest.about.images.iter().position(|image| image.digest == key.digest);
            let (Some(image), Some(outbox)) = (image, &guest.pool_outbox) else { continue };
            let image = u16::try_from(image).expect("at most 16 images");
            let _ = outbox.try_send(ToVmm::Unmap { image, first: granule.0, count: 1 });
        }
    }

    fn granules_full(&mut self, name: &str, budget: Option<u64>) {
        let due = self.granules_full_at.is_none_or(|at| at.elapsed() >= FULL_EVENT_EVERY);
        if due {
            self.granules_full_at = Some(Instant::now());
            let budget = Human(budget.unwrap_or(0));
            let detail =
                format!("Guest {name} waits for a page of an image, and nothing can go for it in {budget}");
            self.pool_event("pool_full", None, &detail);
        }
    }
}
