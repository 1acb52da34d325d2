//! Members of a tar, one after the other.
//!
//! Headers are crate `tar`'s, the walk is not: that crate splits extended headers at line ends, which bytes of a file
//! capability may be, then reads no length and no owner from them; it keeps extended headers of any length in memory;
//! it refuses numbers that are blank; and it takes an archive that ends between two members for a whole one.

mod acl;
mod attributes;
mod header;
mod pax;
mod sparse;

use attributes::Attributes;
use header::{Numbers, is_header_only};
use pax::{Extended, Records};
use std::collections::BTreeMap;
use std::io::{self, Read};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// Longest extended header or long name. Attributes of one file have 64 KiB at most on Linux.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Types that the crate does not name: Solaris's extended header, a folder of an incremental archive of GNU tar, the
/// label of a volume.
const SOLARIS_HEADER: u8 = b'X';
const INCREMENTAL_FOLDER: u8 = b'D';
const VOLUME_LABEL: u8 = b'V';
/// Segments, mark of more blocks, and length of a sparse file in a header of type `S`; the same in a block behind it.
const SPARSE: (std::ops::Range<usize>, usize, std::ops::Range<usize>) = (386..482, 482, 483..495);
const SPARSE_MORE: (std::ops::Range<usize>, usize) = (0..504, 504);

/// A defect of an archive.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum TarError {
    #[error("it ends within {within}")]
    Truncated { within: String },
    #[error("it ends without the block of zeros that ends a tar: it is truncated, fetch it again")]
    NoEnd,
    #[error("at byte {at} is not a header of a tar (its checksum is wrong)")]
    Header { at: u64 },
    #[error("the header at byte {at} has no readable {field}")]
    Field { at: u64, field: &'static str },
    #[error("the extended header at byte {at} has {bytes} bytes, at most {EXTENSION_BYTES_MAX} are read")]
    LongExtension { at: u64, bytes: u64 },
    #[error("the extended header at byte {at} is malformed")]
    Extension { at: u64 },
    #[error("the map of the sparse member at byte {at} is malformed: pack it without --sparse")]
    Sparse { at: u64 },
    #[error("{path:?}: {why}")]
    Member { path: String, why: String },
    #[error("it is {what}")]
    Other { what: &'static str },
    #[error("behind its end are more than {bytes} bytes of zeros: cut it off there")]
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
    /// The length of the file. The archive holds less of a sparse one.
    pub bytes: u64,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub device: (u32, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What is left out of it.
    pub remarks: Vec<String>,
}

impl Member {
    /// True for a file, which has contents.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.kind, EntryType::Regular | EntryType::Continuous)
    }
}

/// The members of an archive.
pub(super) struct Members<R> {
    source: R,
    /// The end may be missing: a digest vouches for the length.
    endless: bool,
    /// Bytes of the stream that were read.
    at: u64,
    /// Bytes of the current member that were not read, and of the padding behind it.
    left: u64,
    padding: u64,
    /// Of a sparse member.
    map: Option<sparse::Map>,
    global: Records,
}

impl<R: Read> Members<R> {
    /// With `endless`, an archive that ends between two members is whole.
    pub(super) fn new(source: R, endless: bool) -> Self {
        Self { source, endless, at: 0, left: 0, padding: 0, map: None, global: Records::new() }
    }

    /// The next member; `None` at the end. Unread contents of the one before are skipped.
    pub(super) fn next(&mut self) -> Result<Option<Member>, TarError> {
        let mut extended = Extended::new(&self.global);
        loop {
            self.skip()?;
            let begin = self.at;
            let Some(header) = self.header()? else { return Ok(None) };
            let kind = header.entry_type();
            let bytes = Numbers::of(&header, begin).bytes()?;
            self.frame(if is_header_only(kind) { 0 } else { bytes }, begin)?;
            match kind {
                EntryType::XHeader => extended.add(&self.extension(bytes, begin)?, begin)?,
                EntryType::GNULongName => extended.path = Some(pax::name(self.extension(bytes, begin)?)),
                EntryType::GNULongLink => extended.link = Some(pax::name(self.extension(bytes, begin)?)),
                EntryType::XGlobalHeader => {
                    let text = self.extension(bytes, begin)?;
                    pax::add_global(&mut self.global, &text, begin)?;
                    let local = std::mem::take(&mut extended.records);
                    extended.records = self.global.clone();
                    extended.records.extend(local);
                }
                other if other.as_byte() == SOLARIS_HEADER => {
                    extended.add(&self.extension(bytes, begin)?, begin)?;
                }
                other if other.as_byte() == VOLUME_LABEL => {}
                _ => return self.member(&header, extended, begin).map(Some),
            }
        }
    }

    /// Bytes of the stream that were read: where the contents of the member begin that was returned last.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// True if the contents of the member that was returned last lie in the archive as they are.
    pub(super) fn is_plain(&self) -> bool {
        self.map.is_none()
    }

    /// Skips a part of what the archive holds of the current member; 0 at its end.
    pub(super) fn skip_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.map = None;
        self.read(buffer)
    }

    /// The stream behind the end of the archive.
    pub(super) fn into_rest(self) -> R {
        self.source
    }

    fn member(&mut self, header: &Header, mut extended: Extended, begin: u64) -> Result<Member, TarError> {
        let numbers = Numbers::of(header, begin);
        let own = extended.path.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let path = extended.take("path").unwrap_or(own);
        let path = extended.take("GNU.sparse.name").unwrap_or(path);
        let own = extended.link.take();
        let own = own.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        let link = extended.take("linkpath").or(own).unwrap_or_default();
        let mut kind = header.entry_type();
        if kind.as_byte() == INCREMENTAL_FOLDER || (kind.is_file() && path.ends_with(b"/")) {
            // Archives of before 1988 mark folders by a slash.
            kind = EntryType::Directory;
        }
        let bytes = self.length(header, &mut extended, kind, begin)?;
        let owner = |said: Option<u64>, own: Result<u64, TarError>, field| {
            let id = said.map_or(own, Ok)?;
            u32::try_from(id).map_err(|_| TarError::Field { at: begin, field })
        };
        let uid = owner(extended.number("uid", begin, "owner")?, numbers.uid(), "owner")?;
        let gid = owner(extended.number("gid", begin, "group")?, numbers.gid(), "group")?;
        let device = match kind {
            EntryType::Char | EntryType::Block => numbers.device()?,
            _ => (0, 0),
        };
        let mode = numbers.mode()?;
        let Attributes { xattrs, permissions, remarks } = Attributes::of(extended.records, mode);
        let mode = permissions.map_or(mode, |own| mode & 0o7000 | own & 0o777);
        let kind = if kind.is_gnu_sparse() { EntryType::Regular } else { kind };
        Ok(Member { path, link, kind, bytes, mode, uid, gid, device, xattrs, remarks })
    }

    /// The length of a member, and what the archive holds of it.
    fn length(
        &mut self,
        header: &Header,
        extended: &mut Extended,
        kind: EntryType,
        begin: u64,
    ) -> Result<u64, TarError> {
        let mut bytes = self.left;
        if let Some(said) = extended.number("size", begin, "length")?.filter(|_| !is_header_only(kind)) {
            bytes = said;
            self.frame(said, begin)?;
        }
        self.map = if kind.is_gnu_sparse() {
            Some(self.old_sparse(header, bytes, begin)?)
        } else if matches!(kind, EntryType::Regular | EntryType::Continuous) {
            sparse::of_pax(extended, bytes, self, begin)?
        } else {
            None
        };
        Ok(self.map.as_ref().map_or(bytes, |map| map.bytes))
    }

    fn old_sparse(&mut self, header: &Header, stored: u64, begin: u64) -> Result<sparse::Map, TarError> {
        let block = header.as_bytes();
        let real = header::number(&block[SPARSE.2]).ok_or(TarError::Sparse { at: begin })?;
        let mut segments = Vec::new();
        sparse::in_header(&block[SPARSE.0], &mut segments, begin)?;
        let mut more = block[SPARSE.1] != 0;
        while more {
            let mut block = [0; BLOCK];
            if self.fill(&mut block)? < BLOCK {
                return Err(TarError::Truncated { within: "the map of a sparse member".into() });
            }
            sparse::in_header(&block[SPARSE_MORE.0], &mut segments, begin)?;
            more = block[SPARSE_MORE.1] != 0;
        }
        sparse::Map::new(segments, real, stored, begin)
    }

    /// A header; `None` at the end of the archive, which a block of zeros marks.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        let at = self.at;
        let block = header.as_mut_bytes();
        let count = self.fill(block)?;
        let is_zero = block.iter().all(|byte| *byte == 0);
        match count {
            0 if self.endless => return Ok(None),
            0 => return Err(TarError::NoEnd),
            BLOCK => {}
            _ if self.endless && is_zero => return Ok(None),
            _ => return Err(TarError::Truncated { within: "a header".into() }),
        }
        if is_zero {
            return Ok(None);
        }
        if header::is_sound(&header) { Ok(Some(header)) } else { Err(TarError::Header { at }) }
    }

    /// `bytes` of contents follow.
    fn frame(&mut self, bytes: u64, begin: u64) -> Result<(), TarError> {
        // Nothing is that long, and sums with it must not overflow.
        if bytes > i64::MAX as u64 {
            return Err(TarError::Field { at: begin, field: "length" });
        }
        (self.left, self.padding) = (bytes, bytes.next_multiple_of(BLOCK as u64) - bytes);
        self.map = None;
        Ok(())
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let bytes = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.source).take(bytes), &mut io::sink())?;
        self.at += skipped;
        // Padding may be missing where the end may.
        let is_whole = skipped == bytes || (self.endless && skipped >= self.left);
        (self.left, self.padding, self.map) = (0, 0, None);
        if !is_whole {
            return Err(TarError::Truncated { within: "the contents of a member".into() });
        }
        Ok(())
    }

    fn extension(&mut self, bytes: u64, at: u64) -> Result<Vec<u8>, TarError> {
        if bytes > EXTENSION_BYTES_MAX {
            return Err(TarError::LongExtension { at, bytes });
        }
        let mut content = vec![0; bytes as usize];
        let count = self.fill(&mut content)?;
        self.left -= count as u64;
        if count < content.len() {
            return Err(TarError::Truncated { within: "an extended header".into() });
        }
        Ok(content)
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

    /// Reads what the archive holds of the current member.
    fn stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bound = self.left.min(buffer.len() as u64) as usize;
        let count = self.source.read(&mut buffer[..bound])?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// The contents of the current member, the holes of a sparse one as zeros.
impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut map) = self.map.take() else { return self.stored(buffer) };
        let result = map.read(buffer, |part| self.stored(part));
        self.map = Some(map);
        result
    }
}
