//! `/proc/self/pagemap`, page by page (Documentation/admin-guide/mm/pagemap.rst).

use protocol::bytes::FRAME_BYTES;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE: u64 = 1 << 61;
/// Mapped by this process alone. The zero page is nobody's, and page numbers are hidden from us; so this tells it
/// apart. A page that KSM merged looks the same, so guest RAM is not merged where there is only this
/// (`memory/merge.rs`).
const EXCLUSIVE: u64 = 1 << 56;
const ENTRY_BYTES: u64 = 8;
const PAGES_PER_READ: usize = 4096;

pub(super) fn holds(word: u64) -> bool {
    word & SWAPPED != 0 || word & (PRESENT | EXCLUSIVE) == PRESENT | EXCLUSIVE
}

/// A page of a file, or shared memory.
pub(super) fn is_file(word: u64) -> bool {
    word & (PRESENT | FILE) == PRESENT | FILE
}

/// Visits the runs of wanted pages, of `pages` from `address` on.
pub(super) fn runs(
    file: &File,
    address: u64,
    pages: u64,
    wanted: impl Fn(u64) -> bool,
    mut visit: impl FnMut(Range<u64>),
) -> io::Result<()> {
    let mut words = vec![0u8; PAGES_PER_READ.min(usize::try_from(pages).unwrap_or(PAGES_PER_READ)) * 8];
    let mut open: Option<Range<u64>> = None;
    let mut at = 0;
    while at < pages {
        let part = usize::try_from(pages - at).unwrap_or(PAGES_PER_READ).min(PAGES_PER_READ);
        let bytes = &mut words[..part * 8];
        file.read_exact_at(bytes, (address / FRAME_BYTES + at) * ENTRY_BYTES)?;
        for word in bytes.chunks_exact(8) {
            if wanted(u64::from_ne_bytes(word.try_into().expect("chunks of 8"))) {
                open.get_or_insert(at..at).end = at + 1;
            } else if let Some(run) = open.take() {
                visit(run);
            }
            at += 1;
        }
    }
    if let Some(run) = open {
        visit(run);
    }
    Ok(())
}

/// True if the page at this address is held.
pub(super) fn is_held(file: &File, address: u64) -> io::Result<bool> {
    let mut word = [0; 8];
    file.read_exact_at(&mut word, address / FRAME_BYTES * ENTRY_BYTES)?;
    Ok(holds(u64::from_ne_bytes(word)))
}
