//! A store with images, and guests that map them: real descriptors, a real table, and the word of a test for what is
//! mapped.

use super::{MIB, Vmm, about, answered};
use protocol::frames::{FrameTable, Region, State};
use protocol::image::{Digest, ImageHandle, MappedImage};
use protocol::message::{self, FromVmm, OpenImages, PROTOCOL_VERSION, Register, ToVmm};
use protocol::run_dir::RunDir;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::OwnedAncillaryMessage;

/// First frame of the first image in every guest.
pub const FIRST: u64 = 1 << 18;

/// A folder with trees and a store.
pub struct Folder {
    pub dir: tempfile::TempDir,
    store: String,
}

impl Folder {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store").to_str().unwrap().to_owned();
        Self { dir, store }
    }

    pub fn store(&self) -> &str {
        &self.store
    }

    /// Builds an image from a tree of this name with a file of so many MiB.
    pub fn build(&self, name: &str, mib: u64) -> Digest {
        let tree = self.tree(name, mib);
        let command = |arguments: &[&str]| {
            Command::new(env!("CARGO_BIN_EXE_balancer")).args(arguments).output().unwrap()
        };
        let built = command(&["image", "build", tree.to_str().unwrap(), "--store", &self.store]);
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        String::from_utf8(built.stdout).unwrap().trim().parse().unwrap()
    }

    fn tree(&self, name: &str, mib: u64) -> PathBuf {
        let tree = self.dir.path().join(name);
        fs::create_dir_all(&tree).unwrap();
        let content: Vec<u8> = (0..mib * MIB).map(|at| (at / 7) as u8 ^ name.len() as u8).collect();
        fs::write(tree.join("file"), content).unwrap();
        tree.canonicalize().unwrap()
    }

    /// Puts any content into the store under its right name, as no program should.
    pub fn adopt(&self, content: &[u8]) -> String {
        let file = self.dir.path().join("content");
        fs::write(&file, content).unwrap();
        self.adopt_file(&file)
    }

    fn adopt_file(&self, file: &Path) -> String {
        let digest = image::digest(&File::open(file).unwrap()).unwrap();
        let bytes = fs::metadata(file).unwrap().len();
        let images = Path::new(&self.store).join("images");
        image::Store::open(Path::new(&self.store)).unwrap();
        fs::copy(file, images.join(format!("{}.erofs", digest.hex()))).unwrap();
        let manifest = serde_json::json!({
            "digest": digest, "bytes": bytes, "origin": "/nowhere", "files": 0, "folders": 1,
            "others": 0, "content_bytes": 0,
        });
        fs::write(images.join(format!("{}.json", digest.hex())), manifest.to_string()).unwrap();
        digest.to_string()
    }

    /// An image with compressed files; `None` where nothing can make one.
    pub fn compressed(&self) -> Option<String> {
        let tree = self.dir.path().join("text");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("file"), vec![b'a'; 1 << 20]).unwrap();
        let image = self.dir.path().join("compressed");
        let made = Command::new("mkfs.erofs").arg("-zlz4").arg(&image).arg(&tree).output().ok()?;
        if !made.status.success() {
            return None;
        }
        let file = File::options().write(true).open(&image).unwrap();
        file.set_len(fs::metadata(&image).unwrap().len().next_multiple_of(2 * MIB)).unwrap();
        Some(self.adopt_file(&image))
    }

    /// The file of an image that guests of a domain map.
    pub fn copy(&self, image: &Digest, domain: &str) -> PathBuf {
        Path::new(&self.store).join("domains").join(domain).join(format!("{}.erofs", image.hex()))
    }
}

/// Asks for images as a `vmm` does.
pub async fn open(
    run_dir: &RunDir,
    container: &str,
    names: &[String],
) -> Result<Vec<(ImageHandle, File)>, String> {
    let socket = UnixSeqpacket::connect(run_dir.guest_socket()).await.unwrap();
    let (container, images) = (container.parse().unwrap(), names.to_vec());
    let asked = OpenImages { protocol_version: PROTOCOL_VERSION, container, images };
    socket.send(&message::encode(&FromVmm::OpenImages(asked)).unwrap()).await.unwrap();
    let (mut packet, mut ancillary) = (vec![0; message::MESSAGE_BYTES_MAX], [0; 256]);
    let heard = socket.recv_with_ancillary(&mut packet, &mut ancillary);
    let (info, reader) = answered(&socket, heard).await.unwrap();
    let mut files = vec![];
    for message in reader.into_messages() {
        if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
            files.extend(fds.map(File::from));
        }
    }
    match message::decode(&packet[..info.bytes_read()]).unwrap() {
        ToVmm::Images { images } => {
            // Behind them are those whose locks say that managed images are in use: for as long as this process lives.
            for mark in files.split_off(images.len()) {
                let _ = mark.into_raw_fd();
            }
            Ok(images.into_iter().zip(files).collect())
        }
        ToVmm::Refused { reason } => Err(reason),
        other => panic!("asked for images, got {other:?}"),
    }
}

/// A guest with images.
pub struct Mapped {
    pub vmm: Vmm,
    images: Vec<(ImageHandle, File)>,
    about: Register,
}

/// Opens images for a guest, and registers it.
pub async fn guest(run_dir: &RunDir, name: &str, container: &str, images: &[&Digest]) -> Mapped {
    let names: Vec<String> = images.iter().map(|image| image.to_string()).collect();
    let images = open(run_dir, container, &names).await.unwrap();
    let mut about = about(name, container, None);
    let mut regions = vec![Region::ram(0, about.ram_bytes / 4096)];
    let mut first = FIRST;
    for (image, _) in &images {
        let count = image.bytes / 4096;
        about.images.push(MappedImage { digest: image.digest, first, count });
        regions.push(Region::image(first, count));
        first += count;
    }
    let vmm = Vmm::connect_with(run_dir, about.clone(), FrameTable::new(&regions).unwrap()).await;
    taken_in(&vmm).await;
    Mapped { vmm, images, about }
}

/// A guest comes back, with all that it has.
pub async fn guest_with(run_dir: &RunDir, guest: Mapped, container: &str) -> Mapped {
    let Mapped { vmm, images, about } = guest;
    let about = Register { comes_back: true, container: container.parse().unwrap(), ..about };
    let vmm = Vmm::connect_with(run_dir, about.clone(), vmm.table).await;
    taken_in(&vmm).await;
    Mapped { vmm, images, about }
}

async fn taken_in(vmm: &Vmm) {
    match vmm.hear().await {
        ToVmm::Registered { owner, .. } => vmm.table.set_owner(owner),
        other => panic!("not taken in: {other:?}"),
    }
}

/// Pages that are really mapped by this process.
pub struct Pinned(*mut libc::c_void, usize);

// SAFETY: no code reads or writes through it; it is only unmapped.
unsafe impl Send for Pinned {}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `pin` made.
        unsafe { libc::munmap(self.0, self.1) };
    }
}

impl Mapped {
    pub fn bytes(&self, image: usize) -> u64 {
        self.images[image].0.bytes
    }

    /// The table says that a part of the first image is mapped.
    pub fn map(&self, at: u64, bytes: u64) {
        self.vmm.table.set(FIRST + at / 4096, bytes / 4096, State::Shared);
    }

    /// The table says that it is not.
    pub fn unmap(&self, at: u64, bytes: u64) {
        self.vmm.table.set(FIRST + at / 4096, bytes / 4096, State::Untouched);
    }

    /// Reads a part of the first image, so that it is resident.
    pub fn read(&self, at: u64, bytes: u64) {
        let mut buffer = vec![0; usize::try_from(bytes).unwrap()];
        self.images[0].1.read_exact_at(&mut buffer, at).unwrap();
    }

    /// Drops all pages that can be dropped. False if unmapped pages stay.
    pub fn drop_cache(&self) -> bool {
        use balancer::pool::{Pagecache, PoolBacking};
        let file = &self.images[0].1;
        // SAFETY: an advice about a descriptor that we own.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        Pagecache::new(file.try_clone().unwrap()).unwrap().resident().unwrap().is_empty()
    }

    /// Maps a part of the first image and touches it.
    pub fn pin(&self, at: u64, bytes: u64) -> Pinned {
        let (length, offset) = (usize::try_from(bytes).unwrap(), i64::try_from(at).unwrap());
        let fd = self.images[0].1.as_raw_fd();
        // SAFETY: a new read-only mapping of an open file.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, fd, offset)
        };
        assert_ne!(base, libc::MAP_FAILED);
        for page in (0..length).step_by(4096) {
            // SAFETY: inside the mapping above, which ends at or before the end of the file.
            unsafe { base.cast::<u8>().add(page).read_volatile() };
        }
        Pinned(base, length)
    }
}
