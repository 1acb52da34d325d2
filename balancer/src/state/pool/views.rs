//! The shared pool as clients see it: its images, and what each guest and each container has of them.

use crate::guests::{Guest, age_ms};
use crate::objects::{PoolGuestObject, PoolImageObject, PoolObject, PoolPayerObject, SharerObject};
use crate::pool::{GuestSeq, Key, PoolImage};
use crate::state::State;
use crate::state::pool::{COMMON, common};
use protocol::bytes::FRAME_BYTES;
use protocol::path::ContainerPath;
use std::collections::BTreeMap;
use std::time::Instant;

impl State {
    pub(in crate::state) fn pool_object(&self, now: Instant) -> PoolObject {
        let (pool, common) = (&self.pool.images, common());
        let images: Vec<PoolImageObject> =
            pool.iter().map(|(key, image)| self.pool_image_object(key, image, now)).collect();
        let sum = |of: fn(&PoolImageObject) -> u64| images.iter().map(of).fold(0u64, u64::saturating_add);
        let guests: Vec<PoolGuestObject> =
            self.guests.iter().filter_map(|guest| self.pool_guest_object(guest)).collect();
        PoolObject {
            max_bytes: self.containers.tree().get(&common).and_then(|node| node.limits.max_bytes),
            container: common,
            resident_bytes: sum(|image| image.resident_bytes),
            mapped_bytes: sum(|image| image.mapped_bytes),
            alone_bytes: sum(|image| image.alone_bytes),
            charged_bytes: pool.charges().values().sum(),
            saved_bytes: sum(|image| image.saved_bytes),
            would_have_saved_bytes: pool.would_have_saved_bytes(),
            error_bytes: pool.error_bytes(),
            age_ms: images.iter().map(|image| image.age_ms).max().flatten(),
            uncharged_frames: pool.uncharged_frames(),
            containers: self.pool_payer_objects(&guests),
            images,
            guests,
            shortfalls: self.pool.shortfalls.clone(),
        }
    }

    fn pool_image_object(&self, key: &Key, image: &PoolImage, now: Instant) -> PoolImageObject {
        let mapped: BTreeMap<GuestSeq, u64> = image.ledger.sharers().collect();
        let alone_bytes = mapped.values().sum::<u64>() * FRAME_BYTES;
        let sharers = image.sharers.iter().map(|(seq, sharer)| SharerObject {
            guest: sharer.name.clone(),
            mapped_bytes: mapped.get(seq).map_or(0, |pages| pages * FRAME_BYTES),
            age_ms: sharer.seen_at.map(|at| age_ms(at, now)),
        });
        PoolImageObject {
            digest: key.digest,
            domain: key.domain.to_string(),
            origin: image.origin.clone(),
            bytes: image.backing.bytes(),
            backing: image.backing.kind(),
            resident_bytes: image.resident_bytes(),
            mapped_bytes: image.mapped_bytes(),
            alone_bytes,
            saved_bytes: alone_bytes.saturating_sub(image.mapped_bytes()),
            error_bytes: image.error_bytes(),
            age_ms: image.seen_at.map(|at| age_ms(at, now)),
            bound_to: image.bound.and_then(|bound| self.containers.path_of(bound.0)).cloned(),
            changed: image.changed.clone(),
            books_bytes: image.ledger.storage_bytes() as u64,
            sharers: sharers.collect(),
        }
    }

    /// A guest and the pool; `None` for one that maps no image.
    pub(in crate::state) fn pool_guest_object(&self, guest: &Guest) -> Option<PoolGuestObject> {
        let (images, seq) = (&self.pool.images, guest.seq);
        if !images.has_guest(seq) {
            return None;
        }
        let (alone_bytes, charged_bytes) = (images.mapped_by(seq), images.charged_to_guest(seq));
        let guest = guest.about.name.clone();
        Some(PoolGuestObject {
            guest,
            alone_bytes,
            charged_bytes,
            saved_bytes: alone_bytes.saturating_sub(charged_bytes),
        })
    }

    fn pool_payer_objects(&self, guests: &[PoolGuestObject]) -> Vec<PoolPayerObject> {
        let mut charged: BTreeMap<u16, u64> = BTreeMap::new();
        for (payer, bytes) in self.pool.images.charges() {
            *charged.entry(self.payer(*payer)).or_default() += bytes;
        }
        let of = |(path, node): (&ContainerPath, &crate::tree::Node)| {
            let inside = guests.iter().filter(|guest| {
                self.guests.named(&guest.guest).is_some_and(|guest| guest.about.container == *path)
            });
            let alone_bytes = inside.clone().map(|guest| guest.alone_bytes).sum::<u64>();
            let charged_bytes = charged.get(&node.owner).copied().unwrap_or(0);
            let shown = charged_bytes > 0 || inside.count() > 0 || path.as_str() == COMMON;
            shown.then(|| PoolPayerObject {
                container: path.clone(),
                alone_bytes,
                charged_bytes,
                saved_bytes: alone_bytes.saturating_sub(charged_bytes),
            })
        };
        self.containers.tree().iter().filter_map(of).collect()
    }
}
