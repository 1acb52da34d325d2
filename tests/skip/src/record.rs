//! One line per skip or death in the file that tests append to.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// The environment variable that names the file.
pub const SKIPS_VARIABLE: &str = "BALLAST_SKIPS";

/// What died in the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// A guest in the emulated machine; its scenario ran once more.
    Guest,
    /// The emulated machine; what was left ran in a new one.
    Machine,
}

impl Death {
    const ALL: [Self; 2] = [Self::Guest, Self::Machine];

    /// The word in the file and in the summary.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Machine => "machine",
        }
    }
}

/// A line of the file: tab separated, a word first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A test was skipped, or a part of it.
    Skip {
        /// [`Ability::name`](crate::Ability::name).
        ability: String,
        /// Whether the ability's probe said that it is missing.
        is_missing: bool,
        /// What the probe said.
        probe: String,
        /// The test's name, or its place where it has none.
        test: String,
        /// Package, file and line.
        place: String,
        /// Why, in the test's words.
        reason: String,
    },
    /// A test was left out on purpose.
    Ignored {
        /// Its name.
        test: String,
        /// Why.
        reason: String,
    },
    /// A machine or guest of the lab died of a known fault of the lab.
    Died {
        /// Which of the two.
        death: Death,
        /// The fault's name.
        fault: String,
        /// Which machine or scenario.
        what: String,
    },
}

impl Record {
    /// The line, without its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let fields = match self {
            Self::Skip { ability, is_missing, probe, test, place, reason } => {
                let found = if *is_missing { "missing" } else { "present" };
                vec!["SKIP", ability, found, probe, test, place, reason]
            }
            Self::Ignored { test, reason } => vec!["IGNORED", test, reason],
            Self::Died { death, fault, what } => vec!["DIED", death.name(), fault, what],
        };
        let clean = |field: &&str| field.split_whitespace().collect::<Vec<_>>().join(" ");
        fields.iter().map(clean).collect::<Vec<_>>().join("\t")
    }

    /// The record of a line; `None` for a line that is not one.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.trim_end_matches(['\r', '\n']).split('\t').collect();
        match fields.as_slice() {
            ["SKIP", ability, found @ ("missing" | "present"), probe, test, place, reason] => {
                Some(Self::Skip {
                    ability: (*ability).into(),
                    is_missing: *found == "missing",
                    probe: (*probe).into(),
                    test: (*test).into(),
                    place: (*place).into(),
                    reason: (*reason).into(),
                })
            }
            ["IGNORED", test, reason] => {
                Some(Self::Ignored { test: (*test).into(), reason: (*reason).into() })
            }
            ["DIED", death, fault, what] => Some(Self::Died {
                death: Death::ALL.into_iter().find(|known| known.name() == *death)?,
                fault: (*fault).into(),
                what: (*what).into(),
            }),
            _ => None,
        }
    }
}

/// Whether a line that a program printed is a record: one from a machine that cannot write to the file.
#[must_use]
pub fn is_record(line: &str) -> bool {
    ["SKIP\t", "IGNORED\t", "DIED\t"].iter().any(|word| line.starts_with(word))
}

/// Appends a record to the file, or prints it where the variable does not name one.
///
/// # Panics
/// When the named file cannot be written: a skip must not be lost.
pub fn record(record: &Record) {
    let line = record.to_line();
    let Some(path) = std::env::var_os(SKIPS_VARIABLE).filter(|path| !path.is_empty()) else {
        println!("{line}");
        return;
    };
    let written = append(Path::new(&path), &line);
    assert!(written.is_ok(), "{} cannot be written: {written:?}: {line}", path.display());
}

/// One write of one line in append mode: test programs run next to each other.
fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(reason: &str) -> Record {
        Record::Skip {
            ability: "root".into(),
            is_missing: true,
            probe: "the effective user is 1000".into(),
            test: "a full disk".into(),
            place: "image src/store_test.rs:7".into(),
            reason: reason.into(),
        }
    }

    #[test]
    fn a_record_survives_its_line() {
        let ignored = Record::Ignored { test: "t".into(), reason: "r".into() };
        let died = Record::Died { death: Death::Machine, fault: "triple fault".into(), what: "linux".into() };
        for record in [skip("mount failed"), ignored, died] {
            assert_eq!(Record::parse(&record.to_line()), Some(record.clone()));
            assert!(is_record(&record.to_line()), "{record:?}");
        }
    }

    #[test]
    fn tabs_and_newlines_of_a_reason_do_not_break_the_line() {
        assert_eq!(Record::parse(&skip("one\ttwo\nthree").to_line()), Some(skip("one two three")));
    }

    #[test]
    fn records_of_several_tests_are_kept_in_one_file() {
        let path = std::env::temp_dir().join(format!("ballast-skips-{}", std::process::id()));
        for reason in ["one", "two"] {
            append(&path, &skip(reason).to_line()).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let records: Vec<_> = text.lines().map(Record::parse).collect();
        assert_eq!(records, [Some(skip("one")), Some(skip("two"))]);
        assert!(append(Path::new("/proc/none"), "").is_err());
    }

    #[test]
    fn other_lines_are_not_records() {
        for line in
            ["", "SKIP", "SKIP\troot", "RESULT\ta\tok\t1", "DIED\thost\tx\ty", "SKIP\ta\tyes\tb\tc\td\te"]
        {
            assert_eq!(Record::parse(line), None, "{line:?}");
        }
    }
}
