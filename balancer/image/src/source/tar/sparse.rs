//! Sparse members of GNU tar: a map names the segments that the archive holds, the rest of the file is zeros.
//!
//! | version | where the map is |
//! |---|---|
//! | old (type `S`) | 4 segments in the header, more in blocks behind it |
//! | pax 0.0 | a record `GNU.sparse.offset` and one `GNU.sparse.numbytes` for each segment |
//! | pax 0.1 | one record `GNU.sparse.map`: `OFFSET,BYTES,OFFSET,BYTES,..` |
//! | pax 1.0 | lines at the begin of the contents, filled up to a block: number of segments, offset, bytes, .. |

use super::header::number;
use super::pax::{Extended, decimal};
use super::{BLOCK, TarError};
use std::collections::VecDeque;
use std::io::{self, Read};

/// Most segments of one file. Bounds memory; GNU tar writes one for each piece between two holes.
const SEGMENTS_MAX: usize = 1 << 20;
/// A segment in a header: offset and bytes, 12 digits each.
const SEGMENT_BYTES: usize = 24;

/// Segments of a file, in order, and its length.
#[derive(Debug, Default)]
pub(super) struct Map {
    segments: VecDeque<(u64, u64)>,
    pub bytes: u64,
    at: u64,
}

/// Refuses a map that would take too much memory.
pub(super) fn bound(segments: usize, at: u64) -> Result<(), TarError> {
    if segments > SEGMENTS_MAX { Err(TarError::Sparse { at }) } else { Ok(()) }
}

impl Map {
    /// A map whose segments follow each other, lie inside the file, and hold `stored` bytes together.
    pub(super) fn new(segments: Vec<(u64, u64)>, bytes: u64, stored: u64, at: u64) -> Result<Self, TarError> {
        let (mut end, mut held) = (0_u64, 0_u64);
        for &(offset, length) in &segments {
            let next = offset.checked_add(length).filter(|next| offset >= end && *next <= bytes);
            end = next.ok_or(TarError::Sparse { at })?;
            held += length;
        }
        // The archive may fill the last segment up to a block.
        if held > stored || stored - held >= BLOCK as u64 {
            return Err(TarError::Sparse { at });
        }
        Ok(Self { segments: segments.into(), bytes, at: 0 })
    }

    /// Reads the file: zeros, or what `stored` has of the current segment.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        stored: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        while self.segments.front().is_some_and(|(offset, length)| offset + length <= self.at) {
            self.segments.pop_front();
        }
        let (begin, end) =
            self.segments.front().map_or((self.bytes, self.bytes), |(at, length)| (*at, at + length));
        let is_hole = self.at < begin;
        let left = if is_hole { begin } else { end } - self.at;
        let bound = left.min(buffer.len() as u64) as usize;
        let count = if is_hole {
            buffer[..bound].fill(0);
            bound
        } else {
            stored(&mut buffer[..bound])?
        };
        self.at += count as u64;
        Ok(count)
    }
}

/// Segments in a header of type `S` or in a block behind it; an empty place ends them.
pub(super) fn in_header(fields: &[u8], segments: &mut Vec<(u64, u64)>, at: u64) -> Result<(), TarError> {
    for field in fields.chunks_exact(SEGMENT_BYTES) {
        let (offset, bytes) = field.split_at(SEGMENT_BYTES / 2);
        if bytes.iter().all(|byte| *byte == 0) {
            break;
        }
        let segment = number(offset).zip(number(bytes)).ok_or(TarError::Sparse { at })?;
        segments.push(segment);
        bound(segments.len(), at)?;
    }
    Ok(())
}

/// Segments in a record `GNU.sparse.map`.
fn in_record(text: &[u8], at: u64) -> Result<Vec<(u64, u64)>, TarError> {
    let numbers: Option<Vec<u64>> =
        text.split(|byte| *byte == b',').filter(|number| !number.is_empty()).map(decimal).collect();
    let numbers = numbers.filter(|numbers| numbers.len() % 2 == 0).ok_or(TarError::Sparse { at })?;
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// Segments at the begin of the contents, and the bytes that they took there.
fn in_contents(contents: &mut impl Read, at: u64) -> Result<(Vec<(u64, u64)>, u64), TarError> {
    let (mut numbers, mut line, mut read, mut wanted) = (Vec::new(), Vec::new(), 0, None);
    let mut block = [0; BLOCK];
    while wanted.is_none_or(|wanted| numbers.len() < wanted) {
        contents.read_exact(&mut block).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                TarError::Truncated { within: "the map of a sparse member".into() }
            }
            _ => error.into(),
        })?;
        read += BLOCK as u64;
        for byte in block {
            if wanted.is_some_and(|wanted| numbers.len() == wanted) {
                break;
            }
            if byte != b'\n' {
                line.push(byte);
                bound(line.len(), at)?;
                continue;
            }
            let number = decimal(&line).ok_or(TarError::Sparse { at })?;
            line.clear();
            if wanted.is_some() {
                numbers.push(number);
                continue;
            }
            let count = usize::try_from(number).map_err(|_| TarError::Sparse { at })?;
            bound(count, at)?;
            wanted = Some(count * 2);
        }
    }
    Ok((numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), read))
}

/// The map that records of pax describe, for a member with `stored` bytes in the archive; with it the bytes that the
/// map itself takes of them. `None` if the member is not sparse.
pub(super) fn of_pax(
    extended: &mut Extended,
    stored: u64,
    contents: &mut impl Read,
    at: u64,
) -> Result<Option<Map>, TarError> {
    let major = extended.number("GNU.sparse.major", at, "sparse version")?;
    let minor = extended.number("GNU.sparse.minor", at, "sparse version")?;
    let real = extended.number("GNU.sparse.realsize", at, "length")?;
    let size = extended.number("GNU.sparse.size", at, "length")?;
    let count = extended.take("GNU.sparse.numblocks");
    let record = extended.records.remove(b"GNU.sparse.map".as_slice());
    let segments = std::mem::take(&mut extended.segments);
    let Some(bytes) = real.or(size) else {
        let any = major.is_some() || count.is_some() || record.is_some() || !segments.is_empty();
        return if any { Err(TarError::Sparse { at }) } else { Ok(None) };
    };
    let (segments, map_bytes) = match (major, minor, record) {
        (Some(1), None | Some(0), _) => in_contents(contents, at)?,
        (None | Some(0), _, Some(record)) => (in_record(&record, at)?, 0),
        (None | Some(0), _, None) => (segments, 0),
        _ => return Err(TarError::Sparse { at }),
    };
    let stored = stored.checked_sub(map_bytes).ok_or(TarError::Sparse { at })?;
    Map::new(segments, bytes, stored, at).map(Some)
}
