//! A tree of files without their contents: every source becomes one before an image is laid out.

use super::{ENTRIES_MAX, IMAGE_BYTES_MAX};
use std::collections::{BTreeMap, VecDeque};

/// Longest name of an entry, bytes (`EROFS_NAME_LEN`, and Linux's `NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symbolic link, bytes: Linux's `PATH_MAX` without the NUL.
pub const TARGET_BYTES_MAX: usize = 4095;
/// Most bytes of the extended attributes of one inode, as EROFS stores them: 16 bits count words of 4 bytes.
pub const XATTR_BYTES_MAX: usize = 12 + 4 * (u16::MAX as usize - 1);

/// Attributes of overlayfs that describe the file system a folder was copied from: they mean nothing elsewhere.
const OVERLAY_BOOKKEEPING: [&[u8]; 5] = [b"origin", b"impure", b"nlink", b"uuid", b"protattr"];

/// Prefixes of names that EROFS knows, and its numbers for them. Those of access control lists are whole names.
pub const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// True for an extended attribute that is a part of the tree. Labels of SELinux, hashes of IMA and the bookkeeping of
/// overlayfs belong to the machine that the tree was on; with them the same tree would have another digest on every
/// machine.
#[must_use]
pub fn is_kept(name: &[u8]) -> bool {
    if let Some(rest) = name.strip_prefix(b"trusted.overlay.") {
        return !OVERLAY_BOOKKEEPING.contains(&rest);
    }
    let prefixed = |prefix: &[u8]| name.len() > prefix.len() && name.starts_with(prefix);
    let acl = name == b"system.posix_acl_access" || name == b"system.posix_acl_default";
    acl || name == b"security.capability" || prefixed(b"user.") || prefixed(b"trusted.")
}

/// Why a tree cannot become an image.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum TreeError {
    #[error("{name:?} cannot be the name of a file: {why}")]
    Name { name: String, why: &'static str },
    #[error("More than {ENTRIES_MAX} files and folders")]
    TooMany,
    #[error("The files have more than {IMAGE_BYTES_MAX} bytes together")]
    TooLarge,
    #[error("{path}: the target of the symbolic link has {bytes} bytes, must have 1 to {TARGET_BYTES_MAX}")]
    Target { path: String, bytes: usize },
    #[error(
        "{path}: the extended attribute {name} has a name of {name_bytes} and a value of {value_bytes} bytes, at most \
         255 and 65535 are possible"
    )]
    Xattr { path: String, name: String, name_bytes: usize, value_bytes: usize },
    #[error("{path}: the extended attributes have {bytes} bytes, at most {XATTR_BYTES_MAX} are possible")]
    Xattrs { path: String, bytes: usize },
    #[error("{path}: device {major}:{minor}, but major numbers end at 4095 and minor numbers at 1048575")]
    Device { path: String, major: u32, minor: u32 },
}

/// Which inode of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeId(u32);

impl InodeId {
    /// Its place in tables of the tree.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A file, a folder, or any other inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Permissions, with set-user-ID, set-group-ID and sticky bit: `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes, by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What it is.
    pub kind: Kind,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder: names in the order of their bytes.
    Directory(BTreeMap<Box<[u8]>, InodeId>),
    /// A file with this many bytes.
    Regular(u64),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device, major and minor number; 0:0 is a whiteout of overlayfs.
    Char(u32, u32),
    /// A block device, major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Inode {
    /// One of root without extended attributes.
    #[must_use]
    pub fn new(mode: u16, kind: Kind) -> Self {
        Self { mode: mode & 0o7777, uid: 0, gid: 0, xattrs: BTreeMap::new(), kind }
    }

    /// Mode, owner and attributes of this inode for something else.
    #[must_use]
    pub fn with_kind(&self, kind: Kind) -> Self {
        Self { mode: self.mode, uid: self.uid, gid: self.gid, xattrs: self.xattrs.clone(), kind }
    }

    /// An empty folder that no entry described: `rwxr-xr-x`, of root.
    #[must_use]
    pub fn folder() -> Self {
        Self::new(0o755, Kind::Directory(BTreeMap::new()))
    }
}

/// A tree of inodes. Inodes that no name leads to are not a part of the image.
#[derive(Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
}

impl Tree {
    /// A tree with an empty root.
    #[must_use]
    pub fn new() -> Self {
        Self { inodes: vec![Inode::folder()] }
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> InodeId {
        InodeId(0)
    }

    /// An inode.
    #[must_use]
    pub fn get(&self, id: InodeId) -> &Inode {
        &self.inodes[id.index()]
    }

    /// An inode, to be changed.
    pub fn get_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.index()]
    }

    /// Inodes, also those that no name leads to.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// False: there is a root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }

    /// Adds an inode without a name.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add(&mut self, inode: Inode) -> Result<InodeId, TreeError> {
        if self.inodes.len() >= ENTRIES_MAX {
            return Err(TreeError::TooMany);
        }
        let id = InodeId(u32::try_from(self.inodes.len()).map_err(|_| TreeError::TooMany)?);
        self.inodes.push(inode);
        Ok(id)
    }

    /// Gives an inode a name in a folder, instead of what had that name.
    ///
    /// # Errors
    /// When it is not a name of a file.
    ///
    /// # Panics
    /// When `folder` is none: the caller has looked.
    pub fn link(&mut self, folder: InodeId, name: &[u8], id: InodeId) -> Result<(), TreeError> {
        check_name(name)?;
        let Kind::Directory(names) = &mut self.get_mut(folder).kind else { unreachable!("not a folder") };
        names.insert(name.into(), id);
        Ok(())
    }

    /// Takes a name out of a folder.
    pub fn unlink(&mut self, folder: InodeId, name: &[u8]) {
        if let Kind::Directory(names) = &mut self.get_mut(folder).kind {
            names.remove(name);
        }
    }

    /// True for a folder.
    #[must_use]
    pub fn is_folder(&self, id: InodeId) -> bool {
        matches!(self.get(id).kind, Kind::Directory(_))
    }

    /// What has a name in a folder; nothing if it is not a folder.
    #[must_use]
    pub fn lookup(&self, folder: InodeId, name: &[u8]) -> Option<InodeId> {
        match &self.get(folder).kind {
            Kind::Directory(names) => names.get(name).copied(),
            _ => None,
        }
    }

    /// The one order of the tree that depends on nothing but names: folder by folder, the names of one by their bytes.
    /// An inode with several names comes where its first one does.
    #[must_use]
    pub fn traversal(&self) -> Traversal<'_> {
        let mut traversal = Traversal {
            inodes: vec![self.root()],
            links: vec![0; self.len()],
            above: vec![None; self.len()],
        };
        traversal.links[0] = 2;
        let mut folders = VecDeque::from([self.root()]);
        while let Some(folder) = folders.pop_front() {
            let Kind::Directory(names) = &self.get(folder).kind else { continue };
            for (name, &id) in names {
                let is_folder = matches!(self.get(id).kind, Kind::Directory(_));
                if traversal.above[id.index()].is_none() {
                    traversal.above[id.index()] = Some((folder, name));
                    traversal.inodes.push(id);
                    if is_folder {
                        traversal.links[id.index()] = 1;
                        folders.push_back(id);
                    }
                }
                traversal.links[id.index()] += 1;
                // The child's "..".
                traversal.links[folder.index()] += u32::from(is_folder);
            }
        }
        traversal
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

/// A traversal of a tree: its inodes in the order in which an image has them.
#[derive(Debug)]
pub struct Traversal<'a> {
    /// The root first.
    pub inodes: Vec<InodeId>,
    links: Vec<u32>,
    above: Vec<Option<(InodeId, &'a [u8])>>,
}

impl Traversal<'_> {
    /// Names of an inode; of a folder with `.` and the `..` of its folders.
    #[must_use]
    pub fn links(&self, id: InodeId) -> u32 {
        self.links[id.index()]
    }

    /// The folder that an inode is in; the root is in itself.
    #[must_use]
    pub fn above(&self, id: InodeId) -> InodeId {
        self.above[id.index()].map_or(id, |(above, _)| above)
    }

    /// Its first path, relative to the root; empty for the root.
    #[must_use]
    pub fn path(&self, mut id: InodeId) -> Vec<u8> {
        let mut names = Vec::new();
        while let Some((above, name)) = self.above[id.index()] {
            names.push(name);
            id = above;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Its first path, for people.
    #[must_use]
    pub fn shown(&self, id: InodeId) -> String {
        shown(&self.path(id))
    }
}

/// A path inside an image, for people.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

fn check_name(name: &[u8]) -> Result<(), TreeError> {
    let why = match name {
        b"" => "it is empty",
        b"." | b".." => "it means a folder",
        _ if name.contains(&b'/') => "it has a slash",
        _ if name.contains(&0) => "it has a NUL",
        _ if name.len() > NAME_BYTES_MAX => "it has more than 255 bytes",
        _ => return Ok(()),
    };
    Err(TreeError::Name { name: String::from_utf8_lossy(name).chars().take(80).collect(), why })
}
