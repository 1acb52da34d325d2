//! Extended attributes of a member, in every spelling that archivers write.
//!
//! | record | written by | value |
//! |---|---|---|
//! | `SCHILY.xattr.NAME` | star, GNU tar, bsdtar, Docker | the bytes; in the name `%25` is `%`, `%3D` is `=` (GNU) |
//! | `LIBARCHIVE.xattr.NAME` | bsdtar | base64; in the name `%XX` is a byte |
//! | `RHT.security.NAME` | GNU tar, for labels | the bytes, of `security.NAME` |
//! | `SCHILY.acl.access`, `SCHILY.acl.default` | star, GNU tar, bsdtar | text ([`super::acl`]) |
//!
//! Where several name one attribute, the first line of this table wins.

use super::acl::{self, Acl};
use super::pax::Records;
use crate::tree::is_kept;
use std::collections::BTreeMap;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Attributes of a member.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The permissions that an access control list gives, instead of the header's.
    pub permissions: Option<u16>,
    /// What is left out.
    pub remarks: Vec<String>,
}

impl Attributes {
    /// Those in the records of a member with these permissions.
    pub(super) fn of(records: Records, mode: u16) -> Self {
        let mut own = Self::default();
        let lists = [(ACCESS, "SCHILY.acl.access"), (DEFAULT, "SCHILY.acl.default")];
        let lists = lists.map(|(name, key)| (name, key, records.get(key.as_bytes()).cloned()));
        if records.contains_key(b"SCHILY.acl.ace".as_slice()) {
            own.remarks.push("its access control list is one of NFSv4, which Linux does not keep".into());
        }
        let mut later = Vec::new();
        for (key, value) in records {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.".as_slice()) {
                own.keep(unescaped(name, true), value);
            } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.".as_slice()) {
                match base64(&value) {
                    Some(value) => later.push((unescaped(name, false), value)),
                    None => {
                        let name = String::from_utf8_lossy(name).into_owned();
                        own.remarks.push(format!("its extended attribute {name} is not base64"));
                    }
                }
            } else if let Some(name) = key.strip_prefix(b"RHT.security.".as_slice()) {
                later.push(([b"security.", name].concat(), value));
            }
        }
        for (name, value) in later {
            if !own.xattrs.contains_key(&name) {
                own.keep(name, value);
            }
        }
        for (name, key, text) in lists {
            if let Some(text) = text.filter(|_| !own.xattrs.contains_key(name.as_bytes())) {
                own.list(name, key, &text, mode);
            }
        }
        own
    }

    fn keep(&mut self, name: Vec<u8>, value: Vec<u8>) {
        if is_kept(&name) {
            self.xattrs.insert(name, value);
        }
    }

    fn list(&mut self, name: &str, key: &str, text: &[u8], mode: u16) {
        let is_access = name == ACCESS;
        match Acl::parse(text) {
            Ok(acl) if acl.is_empty() => {}
            Ok(acl) => {
                self.permissions = is_access.then(|| acl.permissions()).or(self.permissions);
                // A list that says nothing but the permissions is not kept by the kernel either.
                if !is_access || acl.is_extended() {
                    self.xattrs.insert(name.into(), acl.encode());
                }
            }
            Err(acl::Unusable { why, group }) => {
                // The group's bits in the header are the mask: without the list they would permit more than it does.
                let group = group.unwrap_or(0);
                self.permissions =
                    is_access.then_some(mode & !0o070 | (mode & group << 3)).or(self.permissions);
                self.remarks.push(format!("{key}: {why}; it is left out, pack again with --numeric-owner"));
            }
        }
    }
}

/// The name of an attribute without the escapes of the record's key: all `%XX`, or those that GNU tar writes.
fn unescaped(name: &[u8], gnu: bool) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), name);
    while let Some((&first, later)) = rest.split_first() {
        let known = |digits: &[u8]| !gnu || digits == b"25" || digits == b"3D";
        let digits = later.get(..2).filter(|digits| first == b'%' && known(digits));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        out.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &later[2..] } else { later };
    }
    out
}

/// Bytes in base64, with or without the signs that fill it up (RFC 4648, section 4).
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.iter().filter(|byte| !matches!(byte, b'=' | b'\n')) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
#[path = "attributes_test.rs"]
mod tests;
