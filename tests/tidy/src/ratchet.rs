//! Known offences, as a number per rule and file that may only fall.

use crate::Offence;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Numbers of known offences, by rule and file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ratchet(BTreeMap<(String, PathBuf), usize>);

impl Ratchet {
    /// Reads lines of `RULE COUNT PATH`; `#` begins a remark.
    ///
    /// # Errors
    /// The first line that is something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let known = |line: &str| {
            let mut fields = line.splitn(3, ' ');
            let (rule, count, path) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?);
            Some(((rule.to_owned(), PathBuf::from(path)), count))
        };
        lines.map(|line| known(line).ok_or_else(|| format!("{line:?} is not RULE COUNT PATH"))).collect()
    }

    /// The offences of files that have more of them than are known, and entries that can be lowered.
    #[must_use]
    pub fn beyond(&self, rule: &str, offences: Vec<Offence>) -> Vec<Offence> {
        let mut found: BTreeMap<PathBuf, Vec<Offence>> = BTreeMap::new();
        for offence in offences {
            found.entry(offence.path.clone()).or_default().push(offence);
        }
        let of_rule = self.0.iter().filter(|((known, _), _)| known == rule);
        for (path, known) in of_rule.map(|((_, path), known)| (path, *known)) {
            let list = found.entry(path.clone()).or_default();
            let count = list.len();
            if count <= known {
                list.clear();
            }
            if count < known {
                let what =
                    format!("{count} offences of the rule {rule}: lower {known} in tests/tidy/known.txt");
                list.push(Offence { path: path.clone(), line: 1, what });
            }
        }
        found.into_values().flatten().collect()
    }
}

impl FromIterator<((String, PathBuf), usize)> for Ratchet {
    fn from_iter<T: IntoIterator<Item = ((String, PathBuf), usize)>>(known: T) -> Self {
        Self(known.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offences(path: &str, count: usize) -> Vec<Offence> {
        (0..count).map(|line| Offence { path: path.into(), line, what: String::new() }).collect()
    }

    #[test]
    fn known_offences_may_not_grow_and_the_list_falls_with_them() {
        let ratchet = Ratchet::parse("# remark\nwidth 2 a b.rs\n").unwrap();
        let beyond = |count| ratchet.beyond("width", offences("a b.rs", count)).len();
        assert_eq!((beyond(2), beyond(3)), (0, 3));
        assert_eq!((beyond(1), beyond(0)), (1, 1), "the list has to be lowered");
        assert_eq!(ratchet.beyond("words", offences("a b.rs", 1)).len(), 1, "of another rule");
        assert_eq!(ratchet.beyond("width", [offences("a b.rs", 2), offences("c.rs", 1)].concat()).len(), 1);
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error() {
        assert!(Ratchet::parse("width many a.rs").is_err());
    }
}
