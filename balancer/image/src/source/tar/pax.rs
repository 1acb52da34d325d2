//! Headers before a header: the records of POSIX (pax), local and global, and the long names of GNU tar.

use super::{TarError, sparse};
use std::collections::BTreeMap;

/// Records that mean one member only: a global header cannot say them of all.
const OF_ONE_MEMBER: [&[u8]; 3] = [b"path", b"linkpath", b"size"];

pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What headers before a member say about it.
#[derive(Debug, Default)]
pub(super) struct Extended {
    /// Names of GNU tar.
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub records: Records,
    /// `GNU.sparse.offset` and `GNU.sparse.numbytes`, which are said again for each segment (version 0.0).
    pub segments: Vec<(u64, u64)>,
}

impl Extended {
    /// What global headers said so far holds until something else is said.
    pub(super) fn new(global: &Records) -> Self {
        Self { records: global.clone(), ..Self::default() }
    }

    /// Adds the records of a local header, which begins at this byte of the archive.
    pub(super) fn add(&mut self, text: &[u8], at: u64) -> Result<(), TarError> {
        let mut offset = None;
        for record in records(text, at) {
            let (key, value) = record?;
            let number = || decimal(value).ok_or(TarError::Extension { at });
            match key {
                b"GNU.sparse.offset" => offset = Some(number()?),
                b"GNU.sparse.numbytes" => {
                    let begin = offset.take().ok_or(TarError::Extension { at })?;
                    self.segments.push((begin, number()?));
                    sparse::bound(self.segments.len(), at)?;
                }
                _ => {
                    self.records.insert(key.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }

    /// Takes a record. An empty value means that the header's own holds (POSIX).
    pub(super) fn take(&mut self, key: &str) -> Option<Vec<u8>> {
        self.records.remove(key.as_bytes()).filter(|value| !value.is_empty())
    }

    /// Takes a record that is a number.
    pub(super) fn number(
        &mut self,
        key: &str,
        at: u64,
        field: &'static str,
    ) -> Result<Option<u64>, TarError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        decimal(&value).map(Some).ok_or(TarError::Field { at, field })
    }
}

/// Adds the records of a global header to those before it.
pub(super) fn add_global(global: &mut Records, text: &[u8], at: u64) -> Result<(), TarError> {
    for record in records(text, at) {
        let (key, value) = record?;
        if !OF_ONE_MEMBER.contains(&key) && !key.starts_with(b"GNU.sparse.") {
            global.insert(key.to_vec(), value.to_vec());
        }
    }
    Ok(())
}

/// A decimal number.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A long name, up to its NUL.
pub(super) fn name(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

type Record<'a> = (&'a [u8], &'a [u8]);

/// Records of an extended header: `LENGTH KEY=VALUE\n`, where the length counts itself and the value may be any bytes
/// (POSIX, pax).
fn records(mut rest: &[u8], at: u64) -> impl Iterator<Item = Result<Record<'_>, TarError>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match record(rest) {
            Some((record, later)) => {
                rest = later;
                Some(Ok(record))
            }
            None => {
                rest = &[];
                Some(Err(TarError::Extension { at }))
            }
        }
    })
}

fn record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let content = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = content.iter().position(|byte| *byte == b'=')?;
    Some(((&content[..equals], &content[equals + 1..]), rest))
}
