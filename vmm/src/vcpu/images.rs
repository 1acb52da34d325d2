//! What a vCPU does to images other than reading them: exits that are answered here.

use super::End;
use super::stores::{Stores, Verdict};
use crate::memory::Images;
use crate::memory::images::{heal, lost_frames};
use devices::DeviceMemory;
use protocol::frames::FrameTable;
use protocol::sync::MutexExt;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use vm_memory::{Bytes, GuestAddress};

/// The images of a guest, as its vCPUs see them.
#[derive(Debug)]
pub struct ImageExits {
    images: Arc<Images>,
    memory: DeviceMemory,
    table: Arc<FrameTable>,
    stores: Mutex<Stores>,
}

impl ImageExits {
    /// Answers exits of a guest with these images.
    #[must_use]
    pub fn new(images: Arc<Images>, memory: DeviceMemory, table: Arc<FrameTable>) -> Self {
        Self { images, memory, table, stores: Mutex::new(Stores::new(Instant::now())) }
    }

    /// True if an access of the guest is one to an image.
    #[must_use]
    pub fn covers(&self, gpa: u64) -> bool {
        self.images.covers(gpa)
    }

    /// Reads for KVM what it could not read itself, for an instruction that it carries out for the guest.
    pub fn read(&self, gpa: u64, data: &mut [u8]) {
        data.fill(0);
        // What lies behind the image is nothing, and reads as zeros.
        let _ = self.memory.read(data, GuestAddress(gpa));
    }

    /// A store: it is dropped. Waits, in a storm.
    pub fn store(&self) -> Option<End> {
        self.table.note_image_store();
        let (verdict, count) = {
            let mut stores = self.stores.acquire();
            (stores.store(Instant::now()), stores.count())
        };
        // The guest decides how often this happens: the log gets the 1st, 2nd, 4th, 8th, ...
        if count.is_power_of_two() {
            tracing::warn!(image_stores = count, "The guest stores into an image; that changes nothing");
        }
        match verdict {
            Verdict::Drop => None,
            Verdict::Slow(wait) => {
                std::thread::sleep(wait);
                None
            }
            Verdict::End => Some(End::ImageStores(count)),
        }
    }

    /// After KVM could not reach memory: true if that was repaired, here or by another thread since `lost_before`.
    #[must_use]
    pub fn heal(&self, lost_before: u64) -> bool {
        let healed = !self.images.is_empty() && (heal() || lost_frames() != lost_before);
        if healed {
            tracing::debug!(lost_frames = lost_frames(), "KVM could not reach an image; the vCPU goes on");
        }
        healed
    }
}
