//! What the guest holds under a name.

use crate::PAGE_BYTES;
use crate::pattern;
use crate::region::{Region, Writable};
use crate::reply::Reply;

/// Whether a page is one of `percent` of a hundred: of each hundred pages the same number, as far apart as can be.
fn is_written(page: usize, percent: u64) -> bool {
    let (page, percent) = (page as u64 % 100, percent.min(100));
    (page + 1) * percent / 100 > page * percent / 100
}

/// Held memory with what is needed to check that it is unchanged.
#[derive(Debug)]
pub enum Hold {
    /// Anonymous memory with the pattern of a seed.
    Pattern {
        /// The memory.
        memory: Writable,
        /// What its content comes from.
        seed: u64,
    },
    /// A mapped file and the checksum it had when it was mapped.
    File {
        /// The mapping.
        memory: Region,
        /// As [`pattern::checksum`] returns it.
        checksum: String,
    },
    /// A file mapped privately, some of its pages written.
    Private {
        /// The mapping.
        memory: Writable,
        /// The same file, mapped to compare with.
        file: Region,
        /// How many of a hundred pages were written.
        percent: u64,
        /// What they were filled from.
        seed: u64,
    },
}

impl Hold {
    /// Takes memory and fills it.
    pub fn pattern(bytes: u64, seed: u64) -> std::io::Result<Hold> {
        let mut memory = Region::anonymous(bytes)?;
        pattern::fill(seed, 0, memory.content_mut());
        Ok(Hold::Pattern { memory, seed })
    }

    /// Maps a file and reads all of it.
    pub fn file(path: &str) -> std::io::Result<Hold> {
        let memory = Region::of_file(&std::fs::File::open(path)?)?;
        let checksum = pattern::checksum(memory.content());
        Ok(Hold::File { memory, checksum })
    }

    /// Maps a file privately and fills `percent` of a hundred of its pages, spread over all of it.
    pub fn private(path: &str, percent: u64, seed: u64) -> std::io::Result<Hold> {
        let opened = std::fs::File::open(path)?;
        let (mut memory, file) = (Region::private_of_file(&opened)?, Region::of_file(&opened)?);
        for (page, bytes) in memory.content_mut().chunks_mut(PAGE_BYTES).enumerate() {
            if is_written(page, percent) {
                pattern::fill(seed, (page * PAGE_BYTES) as u64, bytes);
            }
        }
        Ok(Hold::Private { memory, file, percent, seed })
    }

    /// Pages that were written, where not all of them were.
    pub fn written_pages(&self) -> Option<u64> {
        let Hold::Private { memory, percent, .. } = self else { return None };
        let pages = memory.bytes() as usize / PAGE_BYTES;
        Some((0..pages).filter(|page| is_written(*page, *percent)).count() as u64)
    }

    /// The memory.
    pub fn memory(&self) -> &Region {
        match self {
            Hold::Pattern { memory, .. } | Hold::Private { memory, .. } => memory,
            Hold::File { memory, .. } => memory,
        }
    }

    /// Fills the memory again. A file's mapping is read-only.
    pub fn rewrite(&mut self, new_seed: u64) -> Result<(), String> {
        let Hold::Pattern { memory, seed } = self else {
            return Err("A mapped file cannot be rewritten".into());
        };
        pattern::fill(new_seed, 0, memory.content_mut());
        *seed = new_seed;
        Ok(())
    }

    /// Compares with what it was: `intact`, `checksum`, `bytes`, `bad_pages`.
    pub fn verify(&self) -> Reply {
        let content = self.memory().content();
        let checksum = pattern::checksum(content);
        let bad_pages = match self {
            Hold::Pattern { seed, .. } => {
                let pages = content.chunks(PAGE_BYTES).enumerate();
                let bad = |(page, bytes): &(usize, &[u8])| {
                    !pattern::matches(*seed, (page * PAGE_BYTES) as u64, bytes)
                };
                pages.filter(bad).count() as u64
            }
            Hold::File { checksum: before, .. } => u64::from(*before != checksum),
            Hold::Private { file, percent, seed, .. } => {
                let pages = content.chunks(PAGE_BYTES).zip(file.content().chunks(PAGE_BYTES)).enumerate();
                let good =
                    |(page, (bytes, original)): &(usize, (&[u8], &[u8]))| match is_written(*page, *percent) {
                        true => pattern::matches(*seed, (page * PAGE_BYTES) as u64, bytes),
                        false => bytes == original,
                    };
                pages.filter(|page| !good(page)).count() as u64
            }
        };
        Reply::new()
            .flag("intact", bad_pages == 0)
            .text("checksum", &checksum)
            .number("bytes", self.memory().bytes())
            .number("bad_pages", bad_pages)
    }
}
