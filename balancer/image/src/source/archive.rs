//! A tar file, as it is or compressed, read from its begin to its end as often as needed.

use super::decompress::{Compression, Hashed};
use super::tar::{Member, Members, TarError};
use crate::error::BuildError;
use sha2::Digest;
use std::fs::File;
use std::io::{self, Read, Seek};

/// Bytes behind the end of an archive: tar fills its last record with zeros, 10 KiB as a rule.
const TRAILING_BYTES_MAX: u64 = 1 << 20;

/// An open tar.
pub(super) struct Archive {
    /// Its name in messages.
    pub name: String,
    pub file: File,
    pub compression: Compression,
    /// The SHA-256 that the file must have, in hexadecimal.
    pub digest: Option<String>,
}

impl Archive {
    pub(super) fn refuse(&self, what: TarError) -> BuildError {
        BuildError::Tar { archive: self.name.clone(), what }
    }

    /// Visits every member with its contents. Afterwards the file has the digest that it must have.
    pub(super) fn each(
        &self,
        mut see: impl FnMut(Member, &mut dyn Read) -> Result<(), BuildError>,
    ) -> Result<(), BuildError> {
        let mut file = &self.file;
        file.rewind().map_err(|error| self.refuse(error.into()))?;
        let (hashed, hash) = Hashed::new(file);
        let mut members = Members::new(self.compression.reader(hashed));
        while let Some(member) = members.next().map_err(|error| self.refuse(error))? {
            see(member, &mut members)?;
        }
        let trailing = io::copy(&mut members.into_rest().take(TRAILING_BYTES_MAX + 1), &mut io::sink());
        if trailing.map_err(|error| self.refuse(error.into()))? > TRAILING_BYTES_MAX {
            return Err(self.refuse(TarError::Trailing { bytes: TRAILING_BYTES_MAX }));
        }
        let Some(expected) = &self.digest else { return Ok(()) };
        let found: String = hash.take().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == *expected {
            return Ok(());
        }
        Err(self.refuse(TarError::Digest { expected: expected.clone(), found }))
    }
}
