//! The last lines of `make test`: what was skipped and what died, each with its reason, and whether that is in order.

use crate::log::Log;
use crate::record::{Death, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What the committed list lets a test run lack.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Allowed {
    abilities: BTreeSet<String>,
    ignored: BTreeSet<String>,
    deaths: BTreeMap<String, usize>,
}

impl Allowed {
    /// Reads the list: `ability NAME`, `ignored TEST` or `deaths KIND NUMBER` on each line, `#` before remarks.
    ///
    /// # Errors
    /// The first line that says something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut allowed = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.split_once(' ').map(|(word, rest)| (word, rest.trim())) {
                Some(("ability", name)) if is_ability(name) => allowed.abilities.insert(name.into()),
                Some(("ignored", test)) => allowed.ignored.insert(test.into()),
                Some(("deaths", rest)) => match rest.split_once(' ').map(|(kind, max)| (kind, max.parse())) {
                    Some((kind, Ok(max))) => allowed.deaths.insert(kind.into(), max).is_none(),
                    _ => return Err(format!("{line:?} is not `deaths KIND NUMBER`")),
                },
                _ => return Err(format!("{line:?} does not name an ability or a test")),
            };
        }
        Ok(allowed)
    }

    fn deaths(&self, death: Death) -> usize {
        self.deaths.get(death.name()).copied().unwrap_or(0)
    }
}

fn is_ability(name: &str) -> bool {
    crate::Ability::ALL.iter().any(|ability| ability.name() == name)
}

/// All that the last lines say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    skips: Vec<String>,
    deaths: Vec<String>,
    faults: Vec<String>,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Summary {
    /// Judges a run: the output of the test programs, the records of skips and deaths, the list, and whether cargo
    /// reported success.
    #[must_use]
    pub fn new(log: &Log, records: &str, allowed: &Allowed, is_success: bool) -> Self {
        let mut summary = Self { passed: log.passed, failed: log.failed, ..Self::default() };
        let mut ignored = log.ignored.clone();
        let mut skipped_tests = BTreeSet::new();
        let mut deaths = BTreeMap::new();
        for line in records.lines() {
            match Record::parse(line) {
                Some(Record::Skip { ability, is_missing, probe, test, place, reason }) => {
                    let judged = judge(allowed, &ability, is_missing);
                    summary.skip(&format!("{test} ({place}) needs {ability}: {reason}; {probe}"), judged);
                    let package = place.split(' ').next().unwrap_or_default().to_owned();
                    if ignored.remove(&test).is_none() && !log.failed_names.contains(&test) {
                        skipped_tests.insert((package, test));
                    }
                }
                Some(Record::Ignored { test, reason }) => {
                    ignored.insert(test, reason);
                }
                Some(Record::Died { death, fault, what }) => {
                    summary.deaths.push(format!("{} of {what}: {fault}", death.name()));
                    *deaths.entry(death.name()).or_insert(0) += 1;
                }
                None => summary.faults.push(format!("{line:?} is not a record of a skip")),
            }
        }
        for (test, reason) in &ignored {
            let judged = match (allowed.ignored.contains(test), reason.is_empty()) {
                (false, _) => Some("is not on the list of tests that may be left out"),
                (true, true) => Some("does not give a reason"),
                (true, false) => None,
            };
            summary.skip(&format!("{test}: {reason}"), judged);
        }
        for death in [Death::Guest, Death::Machine] {
            let (count, max) = (deaths.get(death.name()).copied().unwrap_or(0), allowed.deaths(death));
            if count > max {
                summary.faults.push(format!(
                    "{count} deaths of a {} in the lab, at most {max} are usual",
                    death.name()
                ));
            }
        }
        summary.skipped = log.ignored_count + skipped_tests.len();
        summary.passed -= skipped_tests.len().min(summary.passed);
        summary.programs(log, is_success);
        summary
    }

    fn skip(&mut self, text: &str, fault: Option<&str>) {
        self.skips.push(text.into());
        if let Some(fault) = fault {
            self.faults.push(format!("a skip that {fault}: {text}"));
        }
    }

    /// A program that ended without a result crashed; so did cargo if it fails although each test passed.
    fn programs(&mut self, log: &Log, is_success: bool) {
        if log.ended == 0 || log.passed + log.failed == 0 {
            self.faults.push("no test ran".into());
        }
        if log.ended < log.started {
            let lost = log.started - log.ended;
            self.faults
                .push(format!("{lost} test programs ended without a result: each counts as a failure"));
            self.failed += lost;
        } else if !is_success && log.failed == 0 {
            self.faults.push("cargo test failed although each test passed".into());
        }
    }

    /// Whether the run counts as passed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failed == 0 && self.faults.is_empty()
    }
}

/// What is wrong with a skip for want of an ability.
fn judge(allowed: &Allowed, ability: &str, is_missing: bool) -> Option<&'static str> {
    match (allowed.abilities.contains(ability), is_missing) {
        (false, _) => Some("is not on the list of what this ground cannot run"),
        (true, false) => Some("has no reason, since this machine has what the test needs"),
        (true, true) => None,
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Skips: {}", self.skips.len())?;
        self.skips.iter().try_for_each(|skip| writeln!(f, "  {skip}"))?;
        writeln!(f, "Deaths in the lab: {}", self.deaths.len())?;
        self.deaths.iter().try_for_each(|death| writeln!(f, "  {death}"))?;
        self.faults.iter().try_for_each(|fault| writeln!(f, "FAILED: {fault}"))?;
        // A fault that is not a failed test still has to be seen by a reader of this line alone.
        let failed = if self.is_good() { 0 } else { self.failed.max(1) };
        write!(f, "{} passed, {failed} failed, {} skipped", self.passed, self.skipped)
    }
}

#[cfg(test)]
#[path = "summary_test.rs"]
mod tests;
