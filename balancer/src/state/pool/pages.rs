//! The shared pool and the guests: who maps which image, and who pays for it.

use crate::guests::Guest;
use crate::pool::{Backed, GuestSeq, Key, Opened, PoolImage, PoolObject, Sampling};
use crate::state::{Balancer, State};
use crate::tree::{Tree, TreeError};
use accounting::{ContainerId, POOL, System};
use protocol::bytes::FRAME_BYTES;
use protocol::domain::Domain;
use protocol::frames::{FrameReader, RegionKind};
use protocol::image::IMAGES_MAX;
use protocol::limits::{Limits, LimitsError};
use protocol::message::Register;
use protocol::path::ContainerPath;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The pool's own container.
pub const COMMON: &str = "/common";

impl Balancer {
    /// The trust domain of guests in a container.
    #[must_use]
    pub fn domain(&self, container: &ContainerPath) -> Domain {
        self.state().tree.domain(container)
    }

    /// Images that guests are about to map come into the pool. Returns what holds them there: of one that is known already, what did
    /// before.
    ///
    /// # Errors
    /// In one sentence, for the `vmm` to show.
    pub fn open_images(&self, images: &[Opened]) -> Result<Vec<Backed>, String> {
        let state = &mut *self.state();
        for image in images {
            let backing = Arc::clone(&image.backing);
            let opened = state.pool.open(&image.key, &image.origin, backing, Instant::now());
            opened.map_err(|error| error.to_string())?;
        }
        state.rebind();
        let known = |image: &Opened| {
            let known = state.pool.get(&image.key).map_or(&image.backing, |known| &known.backing);
            (image.key.clone(), Arc::clone(known))
        };
        Ok(images.iter().map(known).collect())
    }

    /// Images of a guest that registers which the pool does not know: those that were mapped under an earlier balancer.
    #[must_use]
    pub fn unknown_images(&self, about: &Register) -> Vec<Key> {
        let state = self.state();
        let domain = state.tree.domain(&about.container);
        let key = |digest| Key { digest, domain: domain.clone() };
        let keys = about.images.iter().take(IMAGES_MAX).map(|image| key(image.digest));
        keys.filter(|key| state.pool.get(key).is_none()).collect()
    }

    /// An image is not what it was: whoever runs the host hears of it.
    pub fn image_changed(&self, key: Option<&Key>, detail: &str) {
        let state = &mut *self.state();
        if let Some(key) = key {
            state.pool.accuse(key, detail);
        }
        state.pool_event("image_changed", None, detail);
    }

    /// What is to be looked at; all of it, if it is wanted now.
    #[must_use]
    pub fn plan_look(&self, all: bool) -> Sampling {
        self.state().pool.due(Instant::now(), all)
    }

    /// Looks at all files and tables, unless that was done since a moment. Who waits for another one's look takes what that saw.
    pub async fn look_at_pool_since(&self, since: Instant) {
        if self.oldest_look().is_some_and(|at| at >= since) {
            return;
        }
        let _turn = self.looking.lock().await;
        if self.oldest_look().is_none_or(|at| at < since) {
            self.look_at_pool(true).await;
        }
    }

    /// Looks at files and tables, and takes in what was seen. Returns how long the look took.
    pub async fn look_at_pool(&self, all: bool) -> Duration {
        let plan = self.plan_look(all);
        if plan.is_empty() {
            return Duration::ZERO;
        }
        let looked = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            (plan.run(), begun.elapsed())
        });
        // A look that panicked is a bug that the log tells of; figures keep their age.
        let Ok((answers, took)) = looked.await else { return Duration::ZERO };
        let state = &mut *self.state();
        for (key, wrong) in state.pool.apply(answers, Instant::now()) {
            let guests = state.pool.get(&key).map(PoolImage::names).unwrap_or_default();
            let whose =
                if guests.is_empty() { "no guest maps it".to_owned() } else { format!("mapped by {guests}") };
            let detail = format!("Image {} of domain {}, {whose}: {wrong}", key.digest, key.domain);
            state.pool_event("image_changed", None, &detail);
        }
        state.keep_pool_limits();
        took
    }

    /// The pool as clients see it.
    #[must_use]
    pub fn pool(&self) -> PoolObject {
        self.state().pool_object()
    }

    /// When the oldest look at an image, or at a table that covers it, began. `None` if one was not looked at yet, or there is
    /// none.
    fn oldest_look(&self) -> Option<Instant> {
        let state = self.state();
        let looks = state.pool.iter().flat_map(|(_, image)| {
            std::iter::once(image.seen_at).chain(image.sharers.values().map(|sharer| sharer.seen_at))
        });
        looks.collect::<Option<Vec<Instant>>>()?.into_iter().min()
    }
}
impl State {
    /// The pool's own container is there from the start.
    pub(in crate::state) fn make_common(&mut self) {
        let common = common();
        if self.tree.get(&common).is_some() {
            return;
        }
        let mut next = self.tree.clone();
        let made = next.put(&common, Limits::default()).map_err(crate::state::StateError::from);
        if let Err(error) = made.and_then(|_| self.adopt(next)) {
            tracing::error!(error = %error.chain(), "{COMMON} cannot be made: what nobody maps is the host's");
        }
    }

    /// Who really pays for what is charged to a container in the pool's books.
    pub(in crate::state) fn payer(&self, payer: ContainerId) -> u16 {
        let known = |owner: u16| self.tree.iter().any(|(_, node)| node.owner == owner);
        if payer != POOL && known(payer.0) {
            return payer.0;
        }
        self.tree.get(&common()).map_or(crate::tree::OWNER_ROOT, |node| node.owner)
    }

    /// Asks the bindings anew who pays for each image.
    pub(in crate::state) fn rebind(&mut self) {
        let (bindings, tree) = (&self.bindings, &self.tree);
        self.pool.rebind(|digest, origin| {
            let container = bindings.of(digest, origin)?;
            tree.get(container).map(|node| ContainerId(node.owner))
        });
    }

    /// What a guest says of its images must be what its table says, and what the pool has. An image that it does not tell
    /// of is a file of its own: it shares that with nobody whom the pool knows, and pays for what it maps of it.
    pub(in crate::state) fn check_images(
        &self,
        about: &Register,
        frames: &FrameReader,
    ) -> Result<(), String> {
        let images = &about.images;
        if images.len() > IMAGES_MAX {
            return Err(format!("images has {} entries, but must have at most {IMAGES_MAX}", images.len()));
        }
        let mut regions: Vec<(u64, u64)> = frames
            .regions()
            .iter()
            .filter(|region| region.kind == RegionKind::Image)
            .map(|region| (region.first, region.count))
            .collect();
        let domain = self.tree.domain(&about.container);
        for (index, image) in images.iter().enumerate() {
            let digest = image.digest;
            if images[..index].iter().any(|other| other.digest == digest) {
                return Err(format!("images has {digest} twice, but a guest maps each image once"));
            }
            let Some(at) = regions.iter().position(|region| *region == (image.first, image.count)) else {
                return Err(format!(
                    "Image {digest} is said to be at frame {} with {} frames, but the frame table has no such region",
                    image.first, image.count
                ));
            };
            regions.swap_remove(at);
            let key = Key { digest, domain: domain.clone() };
            let Some(known) = self.pool.get(&key) else {
                return Err(format!("Image {digest} is not open for domain {domain}"));
            };
            let frames = known.backing.bytes() / FRAME_BYTES;
            if frames != image.count {
                return Err(format!(
                    "Image {digest} is mapped with {} frames, but it has {frames}",
                    image.count
                ));
            }
        }
        Ok(())
    }

    /// A guest that was taken in maps its images.
    pub(in crate::state) fn join_pool(&mut self, name: &str) {
        let guest = &self.guests[name];
        let domain = self.tree.domain(&guest.about.container);
        let container = ContainerId(self.pool_payer(guest));
        for image in guest.about.images.clone() {
            let guest = &self.guests[name];
            let key = Key { digest: image.digest, domain: domain.clone() };
            let table = (Arc::clone(&guest.frames), image.first);
            self.pool.join(&key, GuestSeq(guest.session), name, container, table, Instant::now());
        }
    }

    /// Who pays for pages of the pool that a guest maps from now on.
    pub(in crate::state) fn pool_payer(&self, guest: &Guest) -> u16 {
        // The resident set knows guests only as a whole.
        if self.accounting == System::Rss { guest.owner } else { self.charging(guest) }
    }

    /// Who pays for a guest's pages of the pool is another container from now on, and with `all` for those that it has.
    pub(in crate::state) fn charge_pool(&mut self, name: &str, all: bool) {
        let guest = &self.guests[name];
        let (session, container) = (guest.session, ContainerId(self.pool_payer(guest)));
        self.pool.charge(GuestSeq(session), container, all);
    }

    /// Guests that share pages inside a container, with another trust domain in the tree that is to be.
    pub(in crate::state) fn check_domains(
        &self,
        path: &ContainerPath,
        next: &Tree,
    ) -> Result<(), crate::state::StateError> {
        let torn = |guest: &&Guest| {
            self.shares_pages(guest)
                && self.tree.domain(&guest.about.container) != next.domain(&guest.about.container)
        };
        let names: Vec<&str> =
            self.guests_inside(path).filter(torn).map(|guest| guest.about.name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let value = next.get(path).and_then(|node| node.limits.domain.clone());
        let value = value.map_or_else(|| "null".to_owned(), String::from);
        let bound = format!(
            "must stay as it is while guests in it share pages of their domain: {}",
            names.join(", ")
        );
        Err(TreeError::Limits { path: path.clone(), broken: LimitsError { field: "domain", value, bound } }
            .into())
    }

    /// A guest keeps its trust domain while it shares pages of it.
    pub(in crate::state) fn check_domain_of_move(
        &self,
        guest: &Guest,
        path: &ContainerPath,
    ) -> Result<(), crate::state::StateError> {
        let (from, to) = (self.tree.domain(&guest.about.container), self.tree.domain(path));
        if from == to || !self.shares_pages(guest) {
            return Ok(());
        }
        let name = guest.about.name.clone();
        Err(crate::state::StateError::OtherDomain { name, path: path.clone(), from, to })
    }

    /// True for a guest that maps images, or whose RAM is merged.
    fn shares_pages(&self, guest: &Guest) -> bool {
        guest.about.merge || self.pool.has_guest(GuestSeq(guest.session))
    }

    /// The pool's own container stays, and so does one that something is bound to.
    pub(in crate::state) fn check_unbound(
        &self,
        path: &ContainerPath,
    ) -> Result<(), crate::state::StateError> {
        let bound = self.bindings.iter().find(|(_, payer)| *payer == path);
        let inside = match bound {
            _ if path.as_str() == COMMON => "what no guest maps of the shared pool".to_owned(),
            Some((subject, _)) => format!("a binding of {subject}"),
            None => return Ok(()),
        };
        Err(TreeError::Busy { path: path.clone(), inside }.into())
    }

    /// An event about the pool, within its budget.
    pub(in crate::state) fn pool_event(
        &mut self,
        kind: &str,
        container: Option<&ContainerPath>,
        detail: &str,
    ) {
        if self.pool_budget.take(Instant::now()).is_some() {
            self.events.push(kind, None, container, detail);
        }
    }
}

/// Its path.
pub(in crate::state) fn common() -> ContainerPath {
    COMMON.parse().expect("a path with one plain name")
}
