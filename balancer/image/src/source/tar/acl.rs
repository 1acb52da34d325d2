//! Access control lists as archivers write them, to the bytes of Linux's extended attribute.
//!
//! The text is that of POSIX.1e draft 17, long (`user:1000:rw-`) or short (`u:1000:rw-`), entries separated by commas
//! or line ends, with star's fourth field for the number behind a name (`user:joe:rw-:1000`). The bytes are
//! `struct posix_acl_xattr_header` and `_entry` of Linux (`include/uapi/linux/posix_acl_xattr.h`): version 2, then tag,
//! permissions and number of each entry, in the order of their tags.

/// Version of the bytes (`POSIX_ACL_XATTR_VERSION`).
const VERSION: u32 = 2;
/// The number of an entry that names neither user nor group (`ACL_UNDEFINED_ID`).
const NONE: u32 = u32::MAX;

/// Tags (`include/uapi/linux/posix_acl.h`).
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// A list: tag, number, permissions of each entry, sorted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<(u16, u32, u16)>);

/// Why a list cannot be kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    pub why: String,
    /// What the owning group may do, if the list says it.
    pub group: Option<u16>,
}

impl Acl {
    /// The list of a text.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Unusable> {
        let text = String::from_utf8_lossy(text);
        let lines = text.split(['\n', ',', '\0']).map(|entry| entry.split('#').next().unwrap_or("").trim());
        let (mut entries, mut failed) = (Vec::new(), None);
        for line in lines.filter(|line| !line.is_empty()) {
            match entry(line) {
                Ok(entry) => entries.push(entry),
                Err(why) => failed = failed.or(Some(why)),
            }
        }
        entries.sort_unstable();
        let of = |tag| entries.iter().filter(move |entry| entry.0 == tag);
        let may = |tag| of(tag).next().map(|entry| entry.2);
        let once = |tag| of(tag).count() == 1;
        let named = of(USER).chain(of(GROUP)).count() > 0;
        let double = entries.windows(2).any(|pair| pair[0].0 == pair[1].0 && pair[0].1 == pair[1].1);
        let whole = once(USER_OBJ) && once(GROUP_OBJ) && once(OTHER) && (once(MASK) || !named) && !double;
        let group = may(GROUP_OBJ).map(|group| group & may(MASK).unwrap_or(7));
        match failed {
            Some(why) => Err(Unusable { why, group }),
            None if whole || entries.is_empty() => Ok(Self(entries)),
            None => Err(Unusable { why: "entries are missing or named twice".into(), group }),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if it says more than the permissions of the file.
    pub(super) fn is_extended(&self) -> bool {
        self.0.len() > 3
    }

    fn may(&self, tag: u16) -> u16 {
        self.0.iter().find(|entry| entry.0 == tag).map_or(0, |entry| entry.2)
    }

    /// The permissions of a file with this list: the mask is where the group's are.
    pub(super) fn permissions(&self) -> u16 {
        let has_mask = self.0.iter().any(|entry| entry.0 == MASK);
        let group = if has_mask { MASK } else { GROUP_OBJ };
        self.may(USER_OBJ) << 6 | self.may(group) << 3 | self.may(OTHER)
    }

    /// The value of the extended attribute.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for (tag, id, may) in &self.0 {
            out.extend(tag.to_le_bytes());
            out.extend(may.to_le_bytes());
            out.extend(id.to_le_bytes());
        }
        out
    }
}

/// One entry: `TAG:NAME:PERMISSIONS[:NUMBER]`, and `default:` before it (bsdtar).
fn entry(line: &str) -> Result<(u16, u32, u16), String> {
    let line = line.strip_prefix("default:").or(line.strip_prefix("d:")).unwrap_or(line);
    let mut fields: Vec<&str> = line.split(':').map(str::trim).collect();
    // "mask:rwx" and "other:rwx" are written too.
    if fields.len() == 2 {
        fields.insert(1, "");
    }
    let [tag, name, may, rest @ ..] = fields.as_slice() else {
        return Err(format!("{line:?} is not an entry of an access control list"));
    };
    let tag = match (*tag, name.is_empty()) {
        ("user" | "u", true) => USER_OBJ,
        ("user" | "u", false) => USER,
        ("group" | "g", true) => GROUP_OBJ,
        ("group" | "g", false) => GROUP,
        ("mask" | "m", _) => MASK,
        ("other" | "o", _) => OTHER,
        _ => return Err(format!("{line:?} is not an entry of an access control list")),
    };
    let id = match tag {
        USER | GROUP => {
            let number = rest.first().unwrap_or(name).parse().or_else(|_| name.parse());
            number.map_err(|_| format!("{name:?} is a name and not a number"))?
        }
        _ => NONE,
    };
    Ok((tag, id, permissions(may).ok_or_else(|| format!("{may:?} are not permissions"))?))
}

/// `rwx` in any order, with `-` for what is not permitted, or a digit.
fn permissions(text: &str) -> Option<u16> {
    if let Ok(number) = text.parse::<u16>() {
        return (number <= 7).then_some(number);
    }
    text.chars().try_fold(0, |may, sign| match sign {
        'r' => Some(may | 4),
        'w' => Some(may | 2),
        'x' => Some(may | 1),
        '-' => Some(may),
        _ => None,
    })
}

#[cfg(test)]
#[path = "acl_test.rs"]
mod tests;
