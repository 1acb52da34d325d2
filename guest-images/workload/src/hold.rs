//! What the guest holds under a name.

use crate::PAGE_BYTES;
use crate::pattern;
use crate::region::{Region, Writable};
use crate::reply::Reply;

/// Held memory that can tell whether it still is what it was.
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
        /// As [`pattern::checksum`] tells it.
        checksum: String,
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

    /// The memory.
    pub fn memory(&self) -> &Region {
        match self {
            Hold::Pattern { memory, .. } => memory,
            Hold::File { memory, .. } => memory,
        }
    }

    /// Fills the memory anew. A file's mapping is read-only.
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
        };
        Reply::new()
            .flag("intact", bad_pages == 0)
            .text("checksum", &checksum)
            .number("bytes", self.memory().bytes())
            .number("bad_pages", bad_pages)
    }
}
