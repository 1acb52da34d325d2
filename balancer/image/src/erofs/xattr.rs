//! Extended attributes, behind the inode they belong to. None is shared between inodes: few files have any.

use super::format::{XATTR_ENTRY_BYTES, XATTR_HEADER_BYTES, u16_at};
use crate::tree::PREFIXES;
use std::collections::BTreeMap;

/// Bytes of these attributes behind their inode.
#[must_use]
pub fn bytes(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> usize {
    let entry = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        (XATTR_ENTRY_BYTES + split(name).map_or(0, |(_, rest)| rest.len()) + value.len()).next_multiple_of(4)
    };
    if xattrs.is_empty() { 0 } else { XATTR_HEADER_BYTES + xattrs.iter().map(entry).sum::<usize>() }
}

/// The number of a name's prefix, and the rest of it.
#[must_use]
pub fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(prefix, index)| Some((*index, name.strip_prefix(*prefix)?)))
}

/// Appends them as they are on the disk.
pub fn encode(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>, out: &mut Vec<u8>) {
    if xattrs.is_empty() {
        return;
    }
    let begin = out.len();
    // No filter of names, none shared.
    out.extend([0; XATTR_HEADER_BYTES]);
    for (name, value) in xattrs {
        // The plan has checked name and lengths.
        let Some((index, rest)) = split(name) else { continue };
        out.extend([rest.len() as u8, index]);
        out.extend((value.len() as u16).to_le_bytes());
        out.extend(rest);
        out.extend(value);
        out.resize(begin + (out.len() - begin).next_multiple_of(4), 0);
    }
}

/// The attributes in the bytes behind an inode, by full name; `None` if the bytes are not such a list.
#[must_use]
pub fn decode(disk: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut xattrs = BTreeMap::new();
    let Some(mut rest) = disk.get(XATTR_HEADER_BYTES..) else { return disk.is_empty().then_some(xattrs) };
    if disk[4] != 0 {
        return None;
    }
    while rest.len() >= XATTR_ENTRY_BYTES {
        let (name, value) = (usize::from(rest[0]), usize::from(u16_at(rest, 2)));
        let (prefix, _) = PREFIXES.iter().find(|(_, index)| *index == rest[1])?;
        let body = rest.get(XATTR_ENTRY_BYTES..XATTR_ENTRY_BYTES + name + value)?;
        xattrs.insert([prefix, &body[..name]].concat(), body[name..].to_vec());
        rest = rest.get((XATTR_ENTRY_BYTES + name + value).next_multiple_of(4)..)?;
    }
    Some(xattrs)
}
