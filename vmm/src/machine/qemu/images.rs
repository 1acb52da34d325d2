//! The images of `--root` for a QEMU: the same files, mapped by QEMU itself, shared and read-only, as virtio-pmem.
//!
//! So their pages are pages of the page cache, once for all guests, and the pagemap of QEMU's process shows which are
//! mapped. Some things that the engine `kvm` does are missing: QEMU drops stores of a guest and does not count them,
//! and a file that gets shorter ends the guest. Images that the balancer fills need a process that asks for the pages
//! it touches, and QEMU does not.

use super::qmp::Qmp;
use super::qmp::wire::{HumanCommand, QueryMemoryDevices};
use super::ram::host_address;
use super::{QemuError, RamError};
use crate::machine::root_images;
use crate::memory::images::{ImageError, OpenImage};
use crate::spec::GuestSpec;
use protocol::bytes::{BLOCK_BYTES, FRAME_BYTES};
use protocol::frames::Region;
use protocol::image::{Backing, MappedImage};
use protocol::path::ContainerPath;
use protocol::run_dir::RunDir;
use std::os::fd::{AsRawFd, RawFd};

/// Room for each image in guest memory in addition to its length: QEMU aligns what is plugged in.
const ALIGN_BYTES: u64 = 1 << 30;

/// Images that are open, in the order in which they were named.
#[derive(Debug)]
pub(super) struct SharedImages(Vec<OpenImage>);

impl SharedImages {
    /// Opens all that the spec names.
    pub(super) fn open(
        spec: &GuestSpec,
        container: &ContainerPath,
        run_dir: Option<&RunDir>,
    ) -> Result<Self, QemuError> {
        let images = root_images::open(spec, container, run_dir)?;
        for (index, image) in images.iter().enumerate() {
            if let Some(other) = images[..index].iter().find(|other| other.same_file(image)) {
                let (name, other) = (image.name.clone(), other.name.clone());
                return Err(QemuError::Input(ImageError::Twice { name, other }.into()));
            }
            if image.backing == Backing::Managed {
                let why = "its pages come from a managed pool, and QEMU cannot ask for them; a balancer with --pool \
                           pagecache can serve it";
                return Err(QemuError::Unsupported { what: "--root", why });
            }
        }
        Ok(Self(images))
    }

    /// Descriptors that QEMU inherits.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        self.0.iter().map(|image| image.file.as_raw_fd()).collect()
    }

    /// All of them, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|image| image.bytes).sum()
    }

    /// The option for RAM of this length, with room for the images.
    pub(super) fn memory_option(&self, ram_bytes: u64) -> String {
        let room = self.bytes() + ALIGN_BYTES * self.0.len() as u64;
        match self.0.len() {
            0 => format!("{}M", ram_bytes >> 20),
            slots => {
                format!("{}M,slots={slots},maxmem={}M", ram_bytes >> 20, (ram_bytes + room).div_ceil(1 << 20))
            }
        }
    }

    /// Options of each: its memory and its device.
    pub(super) fn options(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.0.iter().enumerate().map(|(index, image)| {
            let (fd, bytes) = (image.file.as_raw_fd(), image.bytes);
            let path = format!("/proc/self/fd/{fd}");
            (
                format!(
                    "memory-backend-file,id=image{index},mem-path={path},size={bytes},share=on,readonly=on"
                ),
                format!("virtio-pmem-pci,memdev=image{index},id=pmem{index}"),
            )
        })
    }

    /// Where QEMU put them: their regions, each with its address in QEMU.
    pub(super) fn locate(&self, qmp: &mut Qmp) -> Result<Vec<(Region, u64)>, QemuError> {
        if self.0.is_empty() {
            return Ok(vec![]);
        }
        let devices = qmp.call(&QueryMemoryDevices {})?;
        let mut slots = Vec::new();
        for (index, image) in self.0.iter().enumerate() {
            let id = format!("pmem{index}");
            let lost = |why: String| RamError::Image { name: image.name.clone(), why };
            let device = devices.iter().find(|device| device.data.id.as_deref() == Some(&id));
            let at =
                device.and_then(|device| device.data.memaddr).filter(|at| at.is_multiple_of(BLOCK_BYTES));
            let at =
                at.ok_or_else(|| lost("QEMU reports no address for it at a multiple of 2 MiB".into()))?;
            let answer = qmp.call(&HumanCommand { command_line: format!("gpa2hva {at:#x}") })?;
            let host = host_address(&answer).ok_or_else(|| lost(answer.trim().into()))?;
            slots.push((Region::image(at / FRAME_BYTES, image.bytes / FRAME_BYTES), host));
        }
        Ok(slots)
    }

    /// Images of the pool, as the guest registers them.
    pub(super) fn mapped(&self, slots: &[(Region, u64)]) -> Vec<MappedImage> {
        let of_pool =
            self.0.iter().zip(slots).filter_map(|(image, (region, _))| Some((image.digest?, region)));
        of_pool
            .map(|(digest, region)| MappedImage { digest, first: region.first, count: region.count })
            .collect()
    }
}
