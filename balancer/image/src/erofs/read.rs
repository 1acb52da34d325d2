//! An image, read by hand. Its maker may be hostile: every place is checked against the file, and nothing is read
//! twice because the file says so.

use super::directory::{self, Entry};
use super::format;
use super::format::{
    BLOCK_BYTES, EXTENDED_BYTES, InodeHead, Layout, SLOT_BYTES, SUPER_BYTES, SUPER_OFFSET, Super,
};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Features that change how the places of inodes are found, or that did not exist when this was written.
const KNOWN_FEATURES: u32 = 0x7f;

/// Why a place cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ReadError {
    #[error("it is not an EROFS image: the magic number is missing")]
    Magic,
    #[error("its blocks have 2^{bits} bytes, but DAX serves blocks of 4096 only")]
    Block { bits: u8 },
    #[error("it needs features that are not known here: {features:#x}")]
    Features { features: u32 },
    #[error("its files are on {count} other devices")]
    Devices { count: u16 },
    #[error("it says that it has {blocks} blocks of 4096, but the file has {bytes} bytes")]
    Short { blocks: u32, bytes: u64 },
    #[error("{what} at byte {at:#x} and {bytes} bytes long lies outside the image of {end} bytes")]
    Outside { what: &'static str, at: u128, bytes: u64, end: u64 },
    #[error("inode {nid} has a version, layout or file type that does not exist")]
    Inode { nid: u64 },
    #[error("{0}")]
    Directory(&'static str),
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// An open image.
#[derive(Debug)]
pub struct Reader<'a> {
    file: &'a File,
    /// The file's length.
    pub bytes: u64,
    /// The super block.
    pub sb: Super,
}

/// An inode and where it is.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Its number.
    pub nid: u64,
    /// Its fields.
    pub head: InodeHead,
    /// Where the inode is, bytes.
    pub at: u64,
    /// Bytes of the inode alone.
    pub head_bytes: u64,
}

impl Found {
    /// Where the end of its contents is, if that is behind the inode.
    #[must_use]
    pub fn inline_at(&self) -> u64 {
        self.at + self.head_bytes + self.head.xattr_bytes()
    }
}

impl<'a> Reader<'a> {
    /// Reads the super block.
    ///
    /// # Errors
    /// When it is not one that can be read here.
    pub fn open(file: &'a File) -> Result<Self, ReadError> {
        let bytes = file.metadata()?.len();
        let mut disk = [0; SUPER_BYTES];
        if bytes < SUPER_OFFSET + SUPER_BYTES as u64 {
            return Err(ReadError::Magic);
        }
        file.read_exact_at(&mut disk, SUPER_OFFSET)?;
        let sb = Super::decode(&disk).ok_or(ReadError::Magic)?;
        if sb.block_bits != 12 {
            return Err(ReadError::Block { bits: sb.block_bits });
        }
        if sb.incompatible & !KNOWN_FEATURES != 0 {
            return Err(ReadError::Features { features: sb.incompatible & !KNOWN_FEATURES });
        }
        if sb.extra_devices != 0 {
            return Err(ReadError::Devices { count: sb.extra_devices });
        }
        if u64::from(sb.blocks) * BLOCK_BYTES > bytes {
            return Err(ReadError::Short { blocks: sb.blocks, bytes });
        }
        Ok(Self { file, bytes, sb })
    }

    /// Where `bytes` at `at` are, if they lie inside the image.
    fn place(&self, what: &'static str, at: u128, bytes: u64) -> Result<u64, ReadError> {
        if at + u128::from(bytes) <= u128::from(self.bytes) {
            // At most the file's length.
            return Ok(at as u64);
        }
        Err(ReadError::Outside { what, at, bytes, end: self.bytes })
    }

    /// An inode by its number. Inode, attributes and the contents behind them are inside the image.
    ///
    /// # Errors
    /// When it is not.
    pub fn inode(&self, nid: u64) -> Result<Found, ReadError> {
        let meta = u128::from(self.sb.meta_block) * u128::from(BLOCK_BYTES);
        let at = meta + u128::from(nid) * u128::from(SLOT_BYTES);
        let at = self.place("an inode", at, SLOT_BYTES)?;
        let mut disk = [0; EXTENDED_BYTES as usize];
        let there = (self.bytes - at).min(EXTENDED_BYTES) as usize;
        self.file.read_exact_at(&mut disk[..there], at)?;
        let (head, head_bytes) = InodeHead::decode(&disk).ok_or(ReadError::Inode { nid })?;
        if format::FileType::from_mode(head.mode).is_none() {
            return Err(ReadError::Inode { nid });
        }
        let inline = if head.layout == Layout::FlatInline { head.bytes % BLOCK_BYTES } else { 0 };
        self.place("an inode", at.into(), head_bytes + head.xattr_bytes() + inline)?;
        Ok(Found { nid, head, at, head_bytes })
    }

    /// Looks whether the blocks of a flat file are inside the image.
    ///
    /// # Errors
    /// When they are not.
    pub fn check_blocks(&self, found: &Found) -> Result<(), ReadError> {
        let inline = found.head.layout == Layout::FlatInline;
        let bytes = found.head.bytes;
        let bytes = if inline { bytes - bytes % BLOCK_BYTES } else { bytes };
        if bytes > 0 {
            self.place("a file", u128::from(found.head.raw) * u128::from(BLOCK_BYTES), bytes)?;
        }
        Ok(())
    }

    /// Contents of a flat file from an offset on, into all of `buffer`, which must not reach beyond the file's end or
    /// its block.
    ///
    /// # Errors
    /// When they lie outside the image.
    pub fn read(&self, found: &Found, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let whole = found.head.bytes - found.head.bytes % BLOCK_BYTES;
        let at = if found.head.layout == Layout::FlatInline && offset >= whole {
            u128::from(found.inline_at()) + u128::from(offset - whole)
        } else {
            u128::from(found.head.raw) * u128::from(BLOCK_BYTES) + u128::from(offset)
        };
        let at = self.place("a file", at, buffer.len() as u64)?;
        self.file.read_exact_at(buffer, at)?;
        Ok(())
    }

    /// The entries of a folder, block by block.
    ///
    /// # Errors
    /// When the folder is damaged, or `see` says so.
    pub fn directory<E: From<ReadError>>(
        &self,
        found: &Found,
        mut see: impl FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut block = [0; BLOCK_BYTES as usize];
        let mut offset = 0;
        while offset < found.head.bytes {
            let block = &mut block[..(found.head.bytes - offset).min(BLOCK_BYTES) as usize];
            self.read(found, offset, block)?;
            for entry in directory::decode(block).map_err(ReadError::Directory)? {
                see(entry)?;
            }
            offset += BLOCK_BYTES;
        }
        Ok(())
    }

    /// The bytes of an inode's own extended attributes.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn xattrs(&self, found: &Found) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; found.head.xattr_bytes() as usize];
        self.file.read_exact_at(&mut bytes, found.at + found.head_bytes)?;
        Ok(bytes)
    }
}
