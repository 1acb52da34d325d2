//! Members of a tar, one after the other.
//!
//! Headers are crate `tar`'s, the walk is not: that crate splits extended headers at line ends, which bytes of a file
//! capability may be, then reads no length and no owner from them; it keeps extended headers of any length in memory;
//! and it takes an archive that ends between two members for a whole one.

use crate::tree::is_kept;
use std::collections::BTreeMap;
use std::io::{self, Read};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// Longest extended header or long name. Attributes of one file have 64 KiB at most on Linux.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// A defect of an archive.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum TarError {
    #[error("it ends within {within}")]
    Truncated { within: String },
    #[error("it ends without the block of zeros that ends a tar: it is truncated")]
    NoEnd,
    #[error("at byte {at} is not a header of a tar (its checksum is wrong)")]
    Header { at: u64 },
    #[error("the header at byte {at} has no readable {field}")]
    Field { at: u64, field: &'static str },
    #[error("the extended header at byte {at} has {bytes} bytes, at most {EXTENSION_BYTES_MAX} are read")]
    LongExtension { at: u64, bytes: u64 },
    #[error("the extended header at byte {at} is malformed")]
    Extension { at: u64 },
    #[error("{path:?}: {why}")]
    Member { path: String, why: String },
    #[error("its compression is not supported: use gzip or zstd")]
    Compression,
    #[error("behind its end are more than {bytes} bytes")]
    Trailing { bytes: u64 },
    #[error("its digest is {found}, not {expected}")]
    Digest { expected: String, found: String },
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl TarError {
    pub(super) fn member(path: &[u8], why: impl Into<String>) -> Self {
        let path = String::from_utf8_lossy(path).chars().take(200).collect();
        Self::Member { path, why: why.into() }
    }
}

/// A member as its headers describe it.
#[derive(Debug)]
pub(super) struct Member {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: EntryType,
    pub bytes: u64,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub device: (u32, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Attributes of a member in the headers before it.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The members of an archive.
pub(super) struct Members<R> {
    source: R,
    /// Bytes of the stream that were read.
    at: u64,
    /// Bytes of the current member that were not read, and of the padding behind it.
    left: u64,
    padding: u64,
}

impl<R: Read> Members<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, at: 0, left: 0, padding: 0 }
    }

    /// The next member; `None` at the end. Unread contents of the one before are skipped.
    pub(super) fn next(&mut self) -> Result<Option<Member>, TarError> {
        let mut extended = Extended::default();
        loop {
            self.skip()?;
            let begin = self.at;
            let Some(header) = self.header()? else { return Ok(None) };
            let field = |field| move |_| TarError::Field { at: begin, field };
            let bytes = header.entry_size().map_err(field("length"))?;
            self.frame(bytes, begin)?;
            match header.entry_type() {
                EntryType::XHeader => {
                    extended.records.extend(records(&self.extension(bytes, begin)?, begin)?)
                }
                EntryType::GNULongName => extended.path = Some(text(self.extension(bytes, begin)?)),
                EntryType::GNULongLink => extended.link = Some(text(self.extension(bytes, begin)?)),
                // Remarks of archivers (git's commit, a volume's label).
                EntryType::XGlobalHeader => {}
                other if other.as_byte() == b'V' => {}
                _ => return self.member(&header, extended, begin).map(Some),
            }
        }
    }

    /// The stream behind the end of the archive.
    pub(super) fn into_rest(self) -> R {
        self.source
    }

    fn member(&mut self, header: &Header, mut extended: Extended, begin: u64) -> Result<Member, TarError> {
        let field = |field| move || TarError::Field { at: begin, field };
        let number = |extended: &mut Extended, key: &[u8], name| -> Result<Option<u64>, TarError> {
            let Some(value) = extended.records.remove(key) else { return Ok(None) };
            let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
            number.map(Some).ok_or_else(field(name))
        };
        let path = extended.records.remove(b"path".as_slice()).or(extended.path.take());
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended.records.remove(b"linkpath".as_slice()).or(extended.link.take());
        let link =
            link.or_else(|| header.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default();
        let mut bytes = header.entry_size().map_err(|_| field("length")())?;
        if let Some(said) = number(&mut extended, b"size", "length")? {
            bytes = said;
            self.frame(bytes, begin)?;
        }
        let owner = |said: Option<u64>, own: io::Result<u64>, name| {
            let id = said.map_or_else(|| own.map_err(|_| field(name)()), Ok)?;
            u32::try_from(id).map_err(|_| field(name)())
        };
        let said = (number(&mut extended, b"uid", "owner")?, number(&mut extended, b"gid", "group")?);
        let uid = owner(said.0, header.uid(), "owner")?;
        let gid = owner(said.1, header.gid(), "group")?;
        let mode = header.mode().map_err(|_| field("mode")())?;
        let mut kind = header.entry_type();
        let sparse = extended.records.keys().any(|key| key.starts_with(b"GNU.sparse."));
        if sparse || kind.is_gnu_sparse() {
            return Err(TarError::member(&path, "a sparse member: pack it without --sparse"));
        }
        // Archives of before 1988 mark folders so.
        if kind.is_file() && path.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let device = |own: io::Result<Option<u32>>| own.ok().flatten();
        let device = match (kind, device(header.device_major()), device(header.device_minor())) {
            (EntryType::Char | EntryType::Block, Some(major), Some(minor)) => (major, minor),
            (EntryType::Char | EntryType::Block, ..) => return Err(field("device number")()),
            _ => (0, 0),
        };
        let xattrs = extended.records.into_iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(b"SCHILY.xattr.".as_slice())?;
            is_kept(name).then(|| (name.to_vec(), value))
        });
        let mode = (mode & 0o7777) as u16;
        Ok(Member { path, link, kind, bytes, mode, uid, gid, device, xattrs: xattrs.collect() })
    }

    /// A header; `None` for the block of zeros that ends an archive.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        let at = self.at;
        let block = header.as_mut_bytes();
        match self.fill(block)? {
            0 => return Err(TarError::NoEnd),
            BLOCK => {}
            _ => return Err(TarError::Truncated { within: "a header".into() }),
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let outside = block[..148].iter().chain(&block[156..]);
        // The checksum's own field counts as spaces.
        let sum = outside.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
        match header.cksum() {
            Ok(said) if said == sum => Ok(Some(header)),
            _ => Err(TarError::Header { at }),
        }
    }

    /// `bytes` of contents follow.
    fn frame(&mut self, bytes: u64, begin: u64) -> Result<(), TarError> {
        // Nothing is that long, and sums with it must not overflow.
        if bytes > i64::MAX as u64 {
            return Err(TarError::Field { at: begin, field: "length" });
        }
        (self.left, self.padding) = (bytes, bytes.next_multiple_of(BLOCK as u64) - bytes);
        Ok(())
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let bytes = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.source).take(bytes), &mut io::sink())?;
        self.at += skipped;
        (self.left, self.padding) = (0, 0);
        if skipped < bytes {
            return Err(TarError::Truncated { within: "the contents of a member".into() });
        }
        Ok(())
    }

    fn extension(&mut self, bytes: u64, at: u64) -> Result<Vec<u8>, TarError> {
        if bytes > EXTENSION_BYTES_MAX {
            return Err(TarError::LongExtension { at, bytes });
        }
        let mut content = vec![0; bytes as usize];
        let count = self.read_all(&mut content)?;
        if count < content.len() {
            return Err(TarError::Truncated { within: "an extended header".into() });
        }
        Ok(content)
    }

    fn read_all(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill(buffer)?;
        self.left -= count as u64;
        Ok(count)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.source.read(&mut buffer[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.at += done as u64;
        Ok(done)
    }
}

/// The contents of the current member.
impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bound = self.left.min(buffer.len() as u64) as usize;
        let count = self.source.read(&mut buffer[..bound])?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A long name, up to its NUL.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Records of an extended header: `LENGTH KEY=VALUE\n`, where the length counts itself and the value may be any bytes
/// (POSIX, pax).
fn records(mut rest: &[u8], at: u64) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, TarError> {
    let mut records = BTreeMap::new();
    while !rest.is_empty() {
        let (record, later) = record(rest).ok_or(TarError::Extension { at })?;
        records.insert(record.0.to_vec(), record.1.to_vec());
        rest = later;
    }
    Ok(records)
}

type Record<'a> = (&'a [u8], &'a [u8]);

fn record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let content = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = content.iter().position(|byte| *byte == b'=')?;
    Some(((&content[..equals], &content[equals + 1..]), rest))
}
