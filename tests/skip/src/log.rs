//! What the test programs printed: numbers of tests, and names of those that did not pass.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// The output of `cargo test`, both streams in one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Tests that passed, those that skipped themselves included.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Names of the tests that failed.
    pub failed_names: BTreeSet<String>,
    /// Names of tests that were not run, and the reason in their attribute (empty where there is none).
    pub ignored: BTreeMap<String, String>,
    /// Tests that were not run.
    pub ignored_count: usize,
    /// Test programs that started.
    pub started: usize,
    /// Test programs that reported a result.
    pub ended: usize,
}

impl Log {
    /// Reads the output.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines().map(str::trim_end) {
            if let Some(result) = line.strip_prefix("test result: ") {
                log.ended += 1;
                log.passed += count(result, "passed");
                log.failed += count(result, "failed");
                log.ignored_count += count(result, "ignored");
            } else if let Some(test) = line.strip_prefix("test ") {
                log.test(test);
            } else if is_start(line) {
                log.started += 1;
            }
        }
        log
    }

    fn test(&mut self, line: &str) {
        let Some((name, outcome)) = line.rsplit_once(" ... ") else { return };
        let name = name.trim().to_owned();
        if outcome == "FAILED" {
            self.failed_names.insert(name);
        } else if let Some(reason) = outcome.strip_prefix("ignored") {
            self.ignored.insert(name, reason.trim_start_matches(", ").to_owned());
        }
    }
}

/// Cargo's line before it starts a test program, or the tests in the documentation of a crate.
fn is_start(line: &str) -> bool {
    line.starts_with("     Running ") && line.ends_with(')') || line.starts_with("   Doc-tests ")
}

/// The number before a word, as in `3 passed; 1 failed`.
fn count(result: &str, word: &str) -> usize {
    let words: Vec<&str> = result.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
    words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
   Compiling skip v0.1.0 (/x/tests/skip)
     Running unittests src/lib.rs (target/x86_64-unknown-linux-gnu/release/deps/skip-1)

running 3 tests
test a::passes ... ok
test a::needs_three_minutes ... ignored, makes the host stall
test a::b ... FAILED

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running baremetal/main.rs (target/x86_64-unknown-linux-gnu/release/deps/baremetal-1)
test a guest boots, speaks     ... ok
test qemu: the same with 7.2   ... ignored

test result: ok. 20 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s

   Doc-tests skip
";

    #[test]
    fn results_of_all_programs_are_added_up() {
        let log = Log::parse(TEXT);
        assert_eq!((log.passed, log.failed, log.ignored_count), (21, 1, 2));
        assert_eq!((log.started, log.ended), (3, 2));
    }

    #[test]
    fn tests_that_did_not_pass_are_known_by_name() {
        let log = Log::parse(TEXT);
        assert_eq!(log.failed_names, BTreeSet::from(["a::b".to_owned()]));
        let ignored: Vec<_> = log.ignored.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
        assert_eq!(
            ignored,
            [("a::needs_three_minutes", "makes the host stall"), ("qemu: the same with 7.2", ""),]
        );
    }
}
