//! Where everything goes: a pure function of the tree, so that equal trees become equal images.

use super::directory::{self, Entry};
use super::format::{BLOCK_BYTES, FileType, InodeHead, Layout, SLOT_BYTES, SUPER_BYTES, SUPER_OFFSET, Super};
use super::{format, xattr};
use crate::tree::{Inode, InodeId, Kind, TARGET_BYTES_MAX, Traversal, Tree, TreeError, XATTR_BYTES_MAX};
use crate::{ENTRIES_MAX, IMAGE_BYTES_MAX};
use protocol::bytes::BLOCK_BYTES as HUGE_BYTES;
use sha2::{Digest, Sha256};

/// The place of one inode.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Where the inode is, in slots: its number.
    pub nid: u64,
    /// First block of its contents; 0 if it has none.
    pub block: u32,
    head: InodeHead,
    /// The end of its contents lies behind it.
    inline: bool,
}

/// The layout of an image.
#[derive(Debug)]
pub struct Plan {
    places: Vec<Option<Place>>,
    /// The image up to the first regular file.
    pub metadata: Vec<u8>,
    /// Length of the image: a multiple of 2 MiB.
    pub bytes: u64,
    /// Regular files, and their bytes.
    pub contents: (u64, u64),
}

impl Plan {
    /// Lays a tree out.
    ///
    /// # Errors
    /// When a part of it does not fit into an image.
    pub fn new(tree: &Tree, traversal: &Traversal<'_>) -> Result<Self, TreeError> {
        if traversal.inodes.len() > ENTRIES_MAX {
            return Err(TreeError::TooMany);
        }
        let mut plan =
            Self { places: vec![None; tree.len()], metadata: Vec::new(), bytes: 0, contents: (0, 0) };
        let mut next = plan.place_inodes(tree, traversal)?.div_ceil(BLOCK_BYTES);
        for id in &traversal.inodes {
            plan.place_blocks(*id, tree, &mut next, false)?;
        }
        let metadata_blocks = next;
        for id in &traversal.inodes {
            plan.place_blocks(*id, tree, &mut next, true)?;
        }
        plan.bytes = (next * BLOCK_BYTES).next_multiple_of(HUGE_BYTES);
        if plan.bytes > IMAGE_BYTES_MAX {
            return Err(TreeError::TooLarge);
        }
        plan.encode(tree, traversal, metadata_blocks, next);
        Ok(plan)
    }

    /// Where an inode is; `None` if no name leads to it.
    #[must_use]
    pub fn place(&self, id: InodeId) -> Option<Place> {
        self.places[id.index()]
    }

    /// Gives every inode its place, and returns where they end.
    fn place_inodes(&mut self, tree: &Tree, traversal: &Traversal<'_>) -> Result<u64, TreeError> {
        let mut cursor = SUPER_OFFSET + SUPER_BYTES as u64;
        for (id, ino) in traversal.inodes.iter().zip(1..) {
            let inode = tree.get(*id);
            let head = head(inode, traversal.links(*id), ino, &|| traversal.shown(*id))?;
            let (own, tail) = (head.head_bytes() + head.xattr_bytes(), head.bytes % BLOCK_BYTES);
            let is_file = matches!(inode.kind, Kind::Regular(_));
            let inline = !is_file && tail > 0 && own + tail <= BLOCK_BYTES;
            // What lies inline must not cross a block (`erofs_fill_symlink`); an inode need not.
            let whole = if inline { own + tail } else { head.head_bytes() };
            cursor = cursor.next_multiple_of(SLOT_BYTES);
            if cursor % BLOCK_BYTES + whole > BLOCK_BYTES {
                cursor = cursor.next_multiple_of(BLOCK_BYTES);
            }
            let layout = if inline { Layout::FlatInline } else { Layout::FlatPlain };
            let head = InodeHead { layout, ..head };
            self.places[id.index()] = Some(Place { nid: cursor / SLOT_BYTES, block: 0, head, inline });
            cursor += own + if inline { tail } else { 0 };
        }
        Ok(cursor)
    }

    /// Gives an inode its blocks, if it is a file and files are placed, or is none and they are not.
    fn place_blocks(
        &mut self,
        id: InodeId,
        tree: &Tree,
        next: &mut u64,
        files: bool,
    ) -> Result<(), TreeError> {
        let kind = &tree.get(id).kind;
        let (Some(place), true) = (&mut self.places[id.index()], matches!(kind, Kind::Regular(_)) == files)
        else {
            return Ok(());
        };
        let bytes = place.head.bytes;
        let blocks = if place.inline { bytes / BLOCK_BYTES } else { bytes.div_ceil(BLOCK_BYTES) };
        if files {
            self.contents = (self.contents.0 + 1, self.contents.1 + bytes);
        }
        if blocks == 0 {
            return Ok(());
        }
        place.block = u32::try_from(*next).map_err(|_| TreeError::TooLarge)?;
        place.head.raw = place.block;
        *next = next
            .checked_add(blocks)
            .filter(|next| *next <= IMAGE_BYTES_MAX / BLOCK_BYTES)
            .ok_or(TreeError::TooLarge)?;
        Ok(())
    }

    fn encode(&mut self, tree: &Tree, traversal: &Traversal<'_>, metadata_blocks: u64, blocks: u64) {
        self.metadata = vec![0; (metadata_blocks * BLOCK_BYTES) as usize];
        let mut own = Vec::new();
        for id in &traversal.inodes {
            let Some(place) = self.places[id.index()] else { continue };
            let inode = tree.get(*id);
            own.clear();
            own.extend(place.head.encode());
            xattr::encode(&inode.xattrs, &mut own);
            let held = match &inode.kind {
                Kind::Directory(_) => self.folder(tree, traversal, *id),
                Kind::Symlink(target) => target.clone(),
                _ => Vec::new(),
            };
            let split =
                if place.inline { held.len() - held.len() % BLOCK_BYTES as usize } else { held.len() };
            own.extend(&held[split..]);
            self.put(place.nid * SLOT_BYTES, &own);
            if split > 0 {
                self.put(u64::from(place.block) * BLOCK_BYTES, &held[..split]);
            }
        }
        let root = self.places[tree.root().index()].map_or(0, |place| place.nid as u16);
        // At most 2^28, as `place_blocks` has seen to.
        let mut sb = Super::new(root, traversal.inodes.len() as u64, blocks as u32);
        let digest: [u8; 32] = Sha256::digest(&self.metadata).into();
        sb.uuid.copy_from_slice(&digest[..16]);
        // A UUID of version 8, "custom" (RFC 9562, section 5.8).
        sb.uuid[6] = sb.uuid[6] & 0x0f | 0x80;
        sb.uuid[8] = sb.uuid[8] & 0x3f | 0x80;
        if let Some(first) = self.metadata.first_chunk_mut() {
            sb.encode_into(first);
        }
    }

    fn folder(&self, tree: &Tree, traversal: &Traversal<'_>, id: InodeId) -> Vec<u8> {
        let entry = |name, id: InodeId| {
            let nid = self.places[id.index()].map_or(0, |place| place.nid);
            Entry { name, nid, kind: file_type(&tree.get(id).kind).number() }
        };
        let entries: Vec<_> = names(&tree.get(id).kind)
            .into_iter()
            .map(|(name, child)| match name {
                b"." => entry(name, id),
                b".." => entry(name, traversal.above(id)),
                _ => entry(name, child.unwrap_or(id)),
            })
            .collect();
        let (mut out, mut rest) = (Vec::new(), entries.as_slice());
        for count in directory::blocks(entries.iter().map(|entry| entry.name)).0 {
            let (now, later) = rest.split_at(count);
            out.resize(out.len().next_multiple_of(BLOCK_BYTES as usize), 0);
            directory::encode(now, &mut out);
            rest = later;
        }
        out
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = at as usize;
        self.metadata[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// The names of a folder with `.` and `..`, in the order of their bytes.
fn names(kind: &Kind) -> Vec<(&[u8], Option<InodeId>)> {
    let mut names: Vec<(&[u8], Option<InodeId>)> = vec![(b".", None), (b"..", None)];
    if let Kind::Directory(children) = kind {
        names.extend(children.iter().map(|(name, id)| (&**name, Some(*id))));
    }
    names.sort_unstable_by_key(|(name, _)| *name);
    names
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Directory(_) => FileType::Directory,
        Kind::Regular(_) => FileType::Regular,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Char(..) => FileType::Char,
        Kind::Block(..) => FileType::Block,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
    }
}

/// The fields of an inode, except its blocks.
fn head(inode: &Inode, links: u32, ino: u32, path: &dyn Fn() -> String) -> Result<InodeHead, TreeError> {
    let (bytes, raw) = match inode.kind {
        Kind::Directory(_) => (directory::blocks(names(&inode.kind).into_iter().map(|(name, _)| name)).1, 0),
        Kind::Regular(bytes) if bytes > IMAGE_BYTES_MAX => return Err(TreeError::TooLarge),
        Kind::Regular(bytes) => (bytes, 0),
        Kind::Symlink(ref target) if (1..=TARGET_BYTES_MAX).contains(&target.len()) => {
            (target.len() as u64, 0)
        }
        Kind::Symlink(ref target) => return Err(TreeError::Target { path: path(), bytes: target.len() }),
        Kind::Char(major, minor) | Kind::Block(major, minor) if major > 0xfff || minor > 0xf_ffff => {
            return Err(TreeError::Device { path: path(), major, minor });
        }
        Kind::Char(major, minor) | Kind::Block(major, minor) => (0, format::device(major, minor)),
        Kind::Fifo | Kind::Socket => (0, 0),
    };
    Ok(InodeHead {
        mode: file_type(&inode.kind).mode_bits() | inode.mode,
        layout: Layout::FlatPlain,
        bytes,
        raw,
        ino,
        uid: inode.uid,
        gid: inode.gid,
        links,
        xattr_count: xattr_count(inode, path)?,
    })
}

fn xattr_count(inode: &Inode, path: &dyn Fn() -> String) -> Result<u16, TreeError> {
    for (name, value) in &inode.xattrs {
        let rest = xattr::split(name).map_or(usize::MAX, |(_, rest)| rest.len());
        if rest > 255 || value.len() > usize::from(u16::MAX) {
            let shown = String::from_utf8_lossy(name).into_owned();
            let (name_bytes, value_bytes) = (name.len(), value.len());
            return Err(TreeError::Xattr { path: path(), name: shown, name_bytes, value_bytes });
        }
    }
    match xattr::bytes(&inode.xattrs) {
        0 => Ok(0),
        bytes if bytes > XATTR_BYTES_MAX => Err(TreeError::Xattrs { path: path(), bytes }),
        // The header counts as one, each 4 bytes behind it as one more.
        bytes => Ok(((bytes - format::XATTR_HEADER_BYTES) / 4 + 1) as u16),
    }
}
