//! One header block: numbers in every notation, and the dialects that differ in them.
//!
//! | notation | written by |
//! |---|---|
//! | octal digits, spaces and NULs around them | all |
//! | nothing but spaces and NULs: 0 | node-tar, cargo, tars of before 1988 |
//! | first byte 0x80 or 0xff: the rest is binary, most significant byte first | GNU tar, star, for large numbers |
//!
//! A checksum may be the sum of signed bytes (SunOS).

use super::TarError;
use tar::{EntryType, Header};

/// Fields of a header: where they begin, how long they are.
const MODE: (usize, usize) = (100, 8);
const UID: (usize, usize) = (108, 8);
const GID: (usize, usize) = (116, 8);
const SIZE: (usize, usize) = (124, 12);
const CHECKSUM: (usize, usize) = (148, 8);
const MAJOR: (usize, usize) = (329, 8);
const MINOR: (usize, usize) = (337, 8);

/// A number of a header; `None` if the field holds anything else, or a negative number.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    if let Some(first) = field.first().filter(|first| **first & 0x80 != 0) {
        let (high, low) = field.split_at_checked(field.len().saturating_sub(8))?;
        // A negative number has all bits set; what does not fit into 64 bits is not a number that is used.
        if first & 0x7f != 0 || high.iter().skip(1).any(|byte| *byte != 0) {
            return None;
        }
        let value = low.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        // Where the field has 8 bytes, the mark is in the most significant one.
        return Some(if high.is_empty() { value & !(0x80 << 56) } else { value });
    }
    let is_blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let digits = &field[field.iter().position(|byte| !is_blank(byte)).unwrap_or(field.len())..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Numbers of one header.
pub(super) struct Numbers<'a> {
    block: &'a [u8; 512],
    at: u64,
}

impl<'a> Numbers<'a> {
    /// Those of the header at this byte of the archive.
    pub(super) fn of(header: &'a Header, at: u64) -> Self {
        Self { block: header.as_bytes(), at }
    }

    fn field(&self, (begin, bytes): (usize, usize), field: &'static str) -> Result<u64, TarError> {
        number(&self.block[begin..begin + bytes]).ok_or(TarError::Field { at: self.at, field })
    }

    pub(super) fn bytes(&self) -> Result<u64, TarError> {
        self.field(SIZE, "length")
    }

    pub(super) fn mode(&self) -> Result<u16, TarError> {
        Ok((self.field(MODE, "mode")? & 0o7777) as u16)
    }

    pub(super) fn uid(&self) -> Result<u64, TarError> {
        self.field(UID, "owner")
    }

    pub(super) fn gid(&self) -> Result<u64, TarError> {
        self.field(GID, "group")
    }

    /// Major and minor number of a device.
    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        let part = |field| {
            u32::try_from(self.field(field, "device number")?)
                .map_err(|_| TarError::Field { at: self.at, field: "device number" })
        };
        Ok((part(MAJOR)?, part(MINOR)?))
    }
}

/// True if the checksum of a header is right. Its own field counts as spaces.
pub(super) fn is_sound(header: &Header) -> bool {
    let block = header.as_bytes();
    let (begin, bytes) = CHECKSUM;
    let outside = || block[..begin].iter().chain(&block[begin + bytes..]);
    let spaces = bytes as i64 * i64::from(b' ');
    let unsigned = outside().map(|byte| i64::from(*byte)).sum::<i64>() + spaces;
    let signed = outside().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() + spaces;
    let said = number(&block[begin..begin + bytes]).and_then(|said| i64::try_from(said).ok());
    said.is_some_and(|said| said == unsigned || said == signed)
}

/// True for a member that has a header only, whatever length the header names: old archivers wrote there the length of
/// a link's target or of a folder, with nothing behind it. Docker, Python and libarchive read them so.
pub(super) fn is_header_only(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo
    )
}
