//! The shared pool and the guests: which guest maps which image, and which container pays for it.

use crate::guests::{Guest, GuestSeq};
use crate::objects::PoolObject;
use crate::pool::{Backed, Key, Opened, PoolImage};
use crate::state::pool::{COMMON, common};
use crate::state::{Balancer, State, StateError};
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

impl Balancer {
    /// The trust domain of guests in a container.
    #[must_use]
    pub fn domain(&self, container: &ContainerPath) -> Domain {
        self.view(|state, _| state.containers.tree().domain(container))
    }

    /// Images that guests are about to map come into the pool. Returns what holds them there: for an image that is
    /// known already, this is what held it before.
    ///
    /// # Errors
    /// In one sentence, for the `vmm` to show.
    pub fn open_images(&self, images: &[Opened]) -> Result<Vec<Backed>, String> {
        self.change(|state, now| {
            for image in images {
                let backing = Arc::clone(&image.backing);
                let opened = state.pool.images.open(&image.key, &image.origin, backing, now);
                opened.map_err(|error| error.to_string())?;
            }
            state.rebind();
            let known = |image: &Opened| {
                let known = state.pool.images.get(&image.key).map_or(&image.backing, |known| &known.backing);
                (image.key.clone(), Arc::clone(known))
            };
            Ok(images.iter().map(known).collect())
        })
    }

    /// Images of a guest that registers which the pool does not know: those that were mapped under an earlier balancer.
    #[must_use]
    pub fn unknown_images(&self, about: &Register) -> Vec<Key> {
        self.view(|state, _| {
            let domain = state.containers.tree().domain(&about.container);
            let key = |digest| Key { digest, domain: domain.clone() };
            let keys = about.images.iter().take(IMAGES_MAX).map(|image| key(image.digest));
            keys.filter(|key| state.pool.images.get(key).is_none()).collect()
        })
    }

    /// The content of an image is not what it was: this is an event.
    pub fn image_changed(&self, key: Option<&Key>, detail: &str) {
        self.change(|state, now| {
            if let Some(key) = key {
                state.pool.images.accuse(key, detail);
            }
            state.pool.event(&mut state.events, "image_changed", detail, now);
        });
    }

    /// Keeps copies of images for the domains that guests can be in and the pool knows, and has others removed.
    pub async fn keep_domains(&self) {
        let needed = self.view(|state, _| {
            let tree = state.containers.tree();
            let known = state.pool.images.iter().map(|(key, _)| key.domain.clone());
            tree.iter().map(|(path, _)| tree.domain(path)).chain(known).collect()
        });
        let library = self.library();
        let kept = tokio::task::spawn_blocking(move || library.keep_domains(needed)).await;
        if let Ok(Err(error)) = kept {
            tracing::debug!(%error, "copies of images stay");
        }
    }

    /// Scans all files and tables, unless that was done since a moment. A request that waits for the scan of another
    /// one takes its result.
    pub async fn scan_pool_since(&self, since: Instant) {
        if self.oldest_scan().is_some_and(|at| at >= since) {
            return;
        }
        let _scan = self.pool_scan.lock().await;
        if self.oldest_scan().is_none_or(|at| at < since) {
            self.scan_pool(true).await;
        }
    }

    /// Scans files and tables, and takes in what was seen. Returns how long the scan took.
    pub async fn scan_pool(&self, all: bool) -> Duration {
        let due = self.change(|state, now| state.pool.images.due(now, all));
        if due.is_empty() {
            return Duration::ZERO;
        }
        let scanned = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            (due.run(), begun.elapsed())
        });
        // A scan that panicked is a bug that the log shows; figures keep their age.
        let Ok((answers, took)) = scanned.await else { return Duration::ZERO };
        self.change(|state, now| {
            for (key, wrong) in state.pool.images.apply(answers, now) {
                let guests = state.pool.images.get(&key).map(PoolImage::names).unwrap_or_default();
                let mapped = if guests.is_empty() {
                    "no guest maps it".to_owned()
                } else {
                    format!("mapped by {guests}")
                };
                let detail = format!("Image {} of domain {}, {mapped}: {wrong}", key.digest, key.domain);
                state.pool.event(&mut state.events, "image_changed", &detail, now);
            }
            state.keep_pool_limits();
        });
        took
    }

    /// The pool as clients see it.
    #[must_use]
    pub fn pool(&self) -> PoolObject {
        self.view(State::pool_object)
    }

    /// When the oldest scan of an image, or of a table that covers it, began. `None` if one was not scanned yet, or
    /// there is none.
    fn oldest_scan(&self) -> Option<Instant> {
        self.view(|state, _| {
            let scans = state.pool.images.iter().flat_map(|(_, image)| {
                std::iter::once(image.seen_at).chain(image.sharers.values().map(|sharer| sharer.seen_at))
            });
            scans.collect::<Option<Vec<Instant>>>()?.into_iter().min()
        })
    }
}

impl State {
    /// Makes the pool's own container where it is missing.
    pub(in crate::state) fn make_common(&mut self) {
        let (common, tree) = (common(), self.containers.tree());
        if tree.get(&common).is_some() {
            return;
        }
        let mut next = tree.clone();
        let made = next.place(&common, Limits::default()).map_err(StateError::from);
        if let Err(error) = made.and_then(|_| self.adopt(next)) {
            let error = error.chain();
            tracing::error!(
                error,
                "{COMMON} cannot be made: pages that no guest maps are charged to the host"
            );
        }
    }

    /// The owner id of the container that really pays for what is charged to a container in the pool's accounts.
    pub(in crate::state) fn payer(&self, payer: ContainerId) -> u16 {
        let tree = self.containers.tree();
        if payer != POOL && self.containers.path_of(payer.0).is_some() {
            return payer.0;
        }
        tree.get(&common()).map_or(crate::tree::OWNER_ROOT, |node| node.owner)
    }

    /// Looks up again in the bindings which container pays for each image.
    pub(in crate::state) fn rebind(&mut self) {
        let (bindings, tree) = (self.containers.bindings(), self.containers.tree());
        self.pool.images.rebind(|digest, origin| {
            let container = bindings.of(digest, origin)?;
            tree.get(container).map(|node| ContainerId(node.owner))
        });
    }

    /// What a guest reports of its images must be what its table says, and what the pool has. An image that it does
    /// not report is a file of its own: no guest that the pool knows shares it, and the guest pays for what it maps
    /// of it.
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
        let domain = self.containers.tree().domain(&about.container);
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
            let Some(known) = self.pool.images.get(&key) else {
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

    /// A guest that was admitted maps its images.
    pub(in crate::state) fn join_pool(&mut self, seq: GuestSeq, now: Instant) {
        let Some(guest) = self.guests.get(seq) else { return };
        let domain = self.containers.tree().domain(&guest.about.container);
        let container = ContainerId(self.pool_payer(guest));
        for image in &guest.about.images {
            let key = Key { digest: image.digest, domain: domain.clone() };
            let table = (Arc::clone(&guest.frames), image.first);
            self.pool.images.join(&key, seq, &guest.about.name, container, table, now);
        }
    }

    /// Owner id of the container that pays for pages of the pool that a guest maps from now on.
    fn pool_payer(&self, guest: &Guest) -> u16 {
        // The resident set knows guests only as a whole.
        if self.accounting == System::Rss { guest.owner } else { self.containers.charging(guest) }
    }

    /// Another container pays for pages of the pool that a guest maps from now on, and with `all` for those that it
    /// maps already.
    pub(in crate::state) fn charge_pool(&mut self, seq: GuestSeq, all: bool) {
        let Some(guest) = self.guests.get(seq) else { return };
        let container = ContainerId(self.pool_payer(guest));
        self.pool.images.charge(seq, container, all);
    }

    /// Guests that share pages inside a container, that would have another trust domain in the next tree.
    pub(in crate::state) fn check_domains(
        &self,
        path: &ContainerPath,
        next: &Tree,
    ) -> Result<(), StateError> {
        let torn = |guest: &&Guest| {
            self.shares_pages(guest)
                && self.containers.tree().domain(&guest.about.container)
                    != next.domain(&guest.about.container)
        };
        let names: Vec<&str> =
            self.guests.inside(path).filter(torn).map(|guest| guest.about.name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let value = next.get(path).and_then(|node| node.limits.domain.clone());
        let value = value.map_or_else(|| "null".to_owned(), String::from);
        let bound = format!(
            "must stay as it is while guests in it share pages of their domain: {}",
            names.join(", ")
        );
        let broken = LimitsError { field: "domain", value, bound, by_itself: false };
        Err(TreeError::Limits { path: path.clone(), broken }.into())
    }

    /// A guest keeps its trust domain while it shares pages of it.
    pub(in crate::state) fn check_domain_of_move(
        &self,
        guest: &Guest,
        path: &ContainerPath,
    ) -> Result<(), StateError> {
        let (from, to) =
            (self.containers.tree().domain(&guest.about.container), self.containers.tree().domain(path));
        if from == to || !self.shares_pages(guest) {
            return Ok(());
        }
        let name = guest.about.name.clone();
        Err(StateError::OtherDomain { name, path: path.clone(), from, to })
    }

    /// True for a guest that maps images, or whose RAM is merged.
    fn shares_pages(&self, guest: &Guest) -> bool {
        guest.about.merge || self.pool.images.has_guest(guest.seq)
    }

    /// The pool's own container stays, and so does one that images are bound to.
    pub(in crate::state) fn check_unbound(&self, path: &ContainerPath) -> Result<(), StateError> {
        let bound = self.containers.bindings().iter().find(|(_, payer)| *payer == path);
        let inside = match bound {
            _ if path.as_str() == COMMON => "what no guest maps of the shared pool".to_owned(),
            Some((subject, _)) => format!("a binding of {subject}"),
            None => return Ok(()),
        };
        Err(TreeError::Busy { path: path.clone(), inside }.into())
    }
}
