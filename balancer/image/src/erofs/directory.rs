//! Folders: blocks of entries, sorted by the bytes of their names, so that Linux finds one by halving.
//!
//! ```text
//!   a block: | number, offset of name, type | number, offset, type | ... | name name name | zeros |
//!              12 bytes each, one per name                           ^ where the first name's offset points
//! ```

use super::format::{BLOCK_BYTES, DIRENT_BYTES, u16_at, u64_at};

/// An entry of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Number of its inode.
    pub nid: u64,
    /// File type.
    pub kind: u8,
}

/// How many entries go into each block, for names in their order, and the bytes of the folder: of the last block the
/// used bytes count.
pub fn blocks<'a>(names: impl Iterator<Item = &'a [u8]>) -> (Vec<usize>, u64) {
    let (mut counts, mut used) = (vec![0], 0);
    for name in names {
        let bytes = DIRENT_BYTES + name.len();
        if used + bytes > BLOCK_BYTES as usize {
            counts.push(0);
            used = 0;
        }
        used += bytes;
        if let Some(count) = counts.last_mut() {
            *count += 1;
        }
    }
    let bytes = (counts.len() as u64 - 1) * BLOCK_BYTES + used as u64;
    (counts, bytes)
}

/// Appends entries as one block, without the zeros behind them.
pub fn encode(entries: &[Entry<'_>], out: &mut Vec<u8>) {
    let mut offset = entries.len() * DIRENT_BYTES;
    for entry in entries {
        out.extend(entry.nid.to_le_bytes());
        // Within a block by construction: `blocks` counted.
        out.extend((offset as u16).to_le_bytes());
        out.extend([entry.kind, 0]);
        offset += entry.name.len();
    }
    for entry in entries {
        out.extend(entry.name);
    }
}

/// The entries of one block, or its defect. The names are checked, their order is not.
///
/// # Errors
/// For offsets outside the block and for names that no file can have.
pub fn decode(block: &[u8]) -> Result<Vec<Entry<'_>>, &'static str> {
    if block.len() < DIRENT_BYTES {
        return Err("a block of the folder is too short for an entry");
    }
    let first = usize::from(u16_at(block, 8));
    if first < DIRENT_BYTES || first % DIRENT_BYTES != 0 || first > block.len() {
        return Err("the offset of a first name is not behind whole entries");
    }
    let count = first / DIRENT_BYTES;
    let mut entries = Vec::with_capacity(count);
    for index in 0..count {
        let at = index * DIRENT_BYTES;
        let begin = usize::from(u16_at(block, at + 8));
        let last = index + 1 == count;
        let end = if last { block.len() } else { usize::from(u16_at(block, at + DIRENT_BYTES + 8)) };
        let Some(name) = block.get(begin..end) else {
            return Err("the offset of a name lies outside its block");
        };
        // Behind the last name are zeros.
        let name = if last { name.split(|byte| *byte == 0).next().unwrap_or_default() } else { name };
        if begin < first
            || name.is_empty()
            || name.len() > 255
            || name.iter().any(|byte| b"/\0".contains(byte))
        {
            return Err("a name is empty, too long, or has a slash or a NUL");
        }
        entries.push(Entry { name, nid: u64_at(block, at), kind: block[at + 10] });
    }
    Ok(entries)
}
