//! Structures of the disk, little-endian, as in `fs/erofs/erofs_fs.h`.

/// A block, which is a page: the unit of DAX.
pub const BLOCK_BYTES: u64 = 4096;
/// Where the super block begins.
pub const SUPER_OFFSET: u64 = 1024;
/// Length of the super block.
pub const SUPER_BYTES: usize = 128;
/// Inodes begin at multiples of this, counted from the begin of the metadata: their number is their place.
pub const SLOT_BYTES: u64 = 32;
/// An inode with 16 bits for owner and links and 32 for the length.
pub const COMPACT_BYTES: u64 = 32;
/// An inode with room for everything.
pub const EXTENDED_BYTES: u64 = 64;
/// One entry of a folder, without its name.
pub const DIRENT_BYTES: usize = 12;
/// Header of the extended attributes of an inode.
pub const XATTR_HEADER_BYTES: usize = 12;
/// Header of one extended attribute.
pub const XATTR_ENTRY_BYTES: usize = 4;

const MAGIC: u32 = 0xe0f5_e1e2;
const COMPAT_CHECKSUM: u32 = 1;
const COMPAT_MTIME: u32 = 2;

/// The layout of an inode's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Whole blocks.
    FlatPlain,
    /// Compressed, whole index.
    CompressedFull,
    /// Whole blocks, and the end behind the inode.
    FlatInline,
    /// Compressed, short index.
    CompressedCompact,
    /// By chunks.
    Chunked,
}

impl Layout {
    /// The layout with this number.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            0 => Self::FlatPlain,
            1 => Self::CompressedFull,
            2 => Self::FlatInline,
            3 => Self::CompressedCompact,
            4 => Self::Chunked,
            _ => return None,
        })
    }
}

/// The kind of a file: bits of its mode and number in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of stat(2)")]
pub enum FileType {
    Regular,
    Directory,
    Char,
    Block,
    Fifo,
    Socket,
    Symlink,
}

impl FileType {
    const ALL: [(Self, u16); 7] = [
        (Self::Regular, 0o100_000),
        (Self::Directory, 0o040_000),
        (Self::Char, 0o020_000),
        (Self::Block, 0o060_000),
        (Self::Fifo, 0o010_000),
        (Self::Socket, 0o140_000),
        (Self::Symlink, 0o120_000),
    ];

    /// From the mode of an inode.
    #[must_use]
    pub fn from_mode(mode: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, bits)| mode & 0o170_000 == *bits).map(|(kind, _)| kind)
    }

    /// Its bits in a mode.
    #[must_use]
    pub fn mode_bits(self) -> u16 {
        Self::ALL.into_iter().find(|(kind, _)| *kind == self).map_or(0, |(_, bits)| bits)
    }

    /// Its number in a folder (`FT_REG_FILE` and so on, from 1).
    #[must_use]
    pub fn number(self) -> u8 {
        Self::ALL.into_iter().zip(1..).find(|((kind, _), _)| *kind == self).map_or(0, |(_, number)| number)
    }
}

/// The fields of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InodeHead {
    /// File type and permissions.
    pub mode: u16,
    /// Layout of its contents.
    pub layout: Layout,
    /// Bytes that it holds.
    pub bytes: u64,
    /// First block of them, or the number of a device.
    pub raw: u32,
    /// Number for programs of 32 bits.
    pub ino: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names.
    pub links: u32,
    /// Extended attributes: their size in the inode, counted the kernel's way.
    pub xattr_count: u16,
}

impl InodeHead {
    /// True if 32 bytes are enough.
    #[must_use]
    pub fn is_compact(&self) -> bool {
        let small = |value: u32| u16::try_from(value).is_ok();
        small(self.uid) && small(self.gid) && small(self.links) && u32::try_from(self.bytes).is_ok()
    }

    /// Bytes of the inode alone.
    #[must_use]
    pub fn head_bytes(&self) -> u64 {
        if self.is_compact() { COMPACT_BYTES } else { EXTENDED_BYTES }
    }

    /// Bytes of its extended attributes.
    #[must_use]
    pub fn xattr_bytes(&self) -> u64 {
        xattr_bytes(self.xattr_count)
    }

    /// As it is on the disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let compact = self.is_compact();
        let mut out = Vec::with_capacity(EXTENDED_BYTES as usize);
        out.extend((u16::from(!compact) | (self.layout as u16) << 1).to_le_bytes());
        out.extend(self.xattr_count.to_le_bytes());
        out.extend(self.mode.to_le_bytes());
        // `is_compact` has looked: nothing is cut off.
        let low = |value: u32| (value as u16).to_le_bytes();
        if compact {
            out.extend(low(self.links));
            out.extend((self.bytes as u32).to_le_bytes());
            out.extend([0; 4]);
        } else {
            out.extend([0; 2]);
            out.extend(self.bytes.to_le_bytes());
        }
        out.extend(self.raw.to_le_bytes());
        out.extend(self.ino.to_le_bytes());
        if compact {
            out.extend(low(self.uid));
            out.extend(low(self.gid));
        } else {
            out.extend(self.uid.to_le_bytes());
            out.extend(self.gid.to_le_bytes());
            // Time of the last change, seconds and nanoseconds: see the module.
            out.extend([0; 12]);
            out.extend(self.links.to_le_bytes());
        }
        out.resize(self.head_bytes() as usize, 0);
        out
    }

    /// Of the first 32 or 64 bytes of an inode, and how many those are; `None` for a version or layout that Linux does
    /// not know.
    #[must_use]
    pub fn decode(disk: &[u8; EXTENDED_BYTES as usize]) -> Option<(Self, u64)> {
        let format = u16_at(disk, 0);
        if format >> 4 != 0 {
            return None;
        }
        let layout = Layout::from_number((format >> 1) & 7)?;
        let common = Self {
            mode: u16_at(disk, 4),
            layout,
            bytes: 0,
            raw: u32_at(disk, 16),
            ino: u32_at(disk, 20),
            uid: 0,
            gid: 0,
            links: 0,
            xattr_count: u16_at(disk, 2),
        };
        if format & 1 == 0 {
            let (uid, gid) = (u16_at(disk, 24).into(), u16_at(disk, 26).into());
            let bytes = u32_at(disk, 8).into();
            return Some((Self { bytes, uid, gid, links: u16_at(disk, 6).into(), ..common }, COMPACT_BYTES));
        }
        let (uid, gid) = (u32_at(disk, 24), u32_at(disk, 28));
        let bytes = u64_at(disk, 8);
        Some((Self { bytes, uid, gid, links: u32_at(disk, 44), ..common }, EXTENDED_BYTES))
    }
}

/// Bytes of the extended attributes behind an inode that counts them so.
#[must_use]
pub fn xattr_bytes(count: u16) -> u64 {
    if count == 0 { 0 } else { XATTR_HEADER_BYTES as u64 + 4 * (u64::from(count) - 1) }
}

/// A device's number (`new_encode_dev` of Linux).
#[must_use]
pub fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Major and minor of a device's number.
#[cfg(test)]
pub(crate) fn major_minor(device: u32) -> (u32, u32) {
    ((device & 0xf_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}

/// The super block, as far as it says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Super {
    /// Features that a reader may ignore.
    pub compatible: u32,
    /// Features that a reader must know.
    pub incompatible: u32,
    /// A block is two to this power.
    pub block_bits: u8,
    /// Number of the root.
    pub root: u16,
    /// Inodes.
    pub inodes: u64,
    /// Blocks that are in use.
    pub blocks: u32,
    /// Block where inodes are counted from.
    pub meta_block: u32,
    /// Block where shared extended attributes are counted from.
    pub xattr_block: u32,
    /// Other devices with contents.
    pub extra_devices: u16,
    /// The volume.
    pub uuid: [u8; 16],
}

impl Super {
    /// One as our images have it.
    #[must_use]
    pub fn new(root: u16, inodes: u64, blocks: u32) -> Self {
        Self {
            compatible: COMPAT_CHECKSUM | COMPAT_MTIME,
            incompatible: 0,
            block_bits: 12,
            root,
            inodes,
            blocks,
            meta_block: 0,
            xattr_block: 0,
            extra_devices: 0,
            uuid: [0; 16],
        }
    }

    /// Writes it into the first block of an image, with its checksum over the rest of that block.
    pub fn encode_into(&self, block: &mut [u8; BLOCK_BYTES as usize]) {
        let at = SUPER_OFFSET as usize;
        let mut put =
            |offset: usize, bytes: &[u8]| block[at + offset..][..bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(4, &[0; 4]);
        put(8, &self.compatible.to_le_bytes());
        put(12, &[self.block_bits]);
        put(14, &self.root.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(40, &self.meta_block.to_le_bytes());
        put(44, &self.xattr_block.to_le_bytes());
        put(48, &self.uuid);
        put(80, &self.incompatible.to_le_bytes());
        put(86, &self.extra_devices.to_le_bytes());
        let sum = crc32c(&block[at..]);
        block[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
    }

    /// `None` where the magic number is missing.
    #[must_use]
    pub fn decode(disk: &[u8; SUPER_BYTES]) -> Option<Self> {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&disk[48..64]);
        (u32_at(disk, 0) == MAGIC).then(|| Self {
            compatible: u32_at(disk, 8),
            incompatible: u32_at(disk, 80),
            block_bits: disk[12],
            root: u16_at(disk, 14),
            inodes: u64_at(disk, 16),
            blocks: u32_at(disk, 36),
            meta_block: u32_at(disk, 40),
            xattr_block: u32_at(disk, 44),
            extra_devices: u16_at(disk, 86),
            uuid,
        })
    }
}

/// CRC-32C without the last inversion, as Linux's `crc32c(~0, ..)`. One block per image: speed does not matter.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    })
}

/// A little-endian number at an offset that lies inside.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// As above.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

/// As above.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
