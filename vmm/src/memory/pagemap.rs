//! Which pages of this process the kernel holds: `/proc/self/pagemap` (Documentation/admin-guide/mm/pagemap.rst).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const ENTRY_BYTES: u64 = 8;

/// The kernel's view of this process's pages.
#[derive(Debug)]
pub struct Pagemap(File);

impl Pagemap {
    /// Opens it. No privilege is needed: present bits are shown to everyone.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Sets a flag for each page from `address` on: does the kernel hold it, in memory or swapped out?
    ///
    /// # Errors
    /// When the kernel refuses the reading.
    pub fn held(&self, address: u64, held: &mut [bool]) -> io::Result<()> {
        let mut words = [0u8; 4096];
        let mut page = address / 4096;
        for part in held.chunks_mut(words.len() / 8) {
            let bytes = &mut words[..part.len() * 8];
            self.0.read_exact_at(bytes, page * ENTRY_BYTES)?;
            for (flag, word) in part.iter_mut().zip(bytes.chunks_exact(8)) {
                let word = u64::from_ne_bytes(word.try_into().expect("chunks of 8"));
                *flag = word & (PRESENT | SWAPPED) != 0;
            }
            page += part.len() as u64;
        }
        Ok(())
    }

    /// Pages from `address` on that the kernel holds.
    ///
    /// # Errors
    /// When the kernel refuses the reading.
    pub fn count_held(&self, address: u64, pages: u64) -> io::Result<u64> {
        let mut flags = [false; 512];
        let mut count = 0;
        let mut done = 0;
        while done < pages {
            let part = (pages - done).min(512);
            let flags = &mut flags[..usize::try_from(part).expect("at most 512")];
            self.held(address + done * 4096, flags)?;
            count += flags.iter().filter(|held| **held).count() as u64;
            done += part;
        }
        Ok(count)
    }
}
