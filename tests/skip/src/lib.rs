//! Skipped tests, counted.
//!
//! A test that cannot run here calls [`skip!`] with the [`Ability`] that this machine lacks. libtest swallows what a
//! passing test prints, so the skip is appended to the file that the variable `BALLAST_SKIPS` names. `make test` sets
//! the variable; at the end the program `test-summary` reads the file, prints each skip with its reason and fails for
//! a skip that this machine does not justify. Without the variable a skip is printed and nothing else happens.
//!
//! Each [`Ability`] has a probe of its own. It runs at the moment of the skip, in the process of the test: a test that
//! skips although its ability is there does not pass unnoticed.

#![forbid(unsafe_code)]

mod ability;
mod log;
mod record;
mod summary;

use std::cell::RefCell;

pub use ability::Ability;
pub use log::Log;
pub use record::{Death, Record, SKIPS_VARIABLE, is_record, record};
pub use summary::{Allowed, Summary};

thread_local! {
    static TEST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Records that the test that runs on this thread is skipped, or a part of it: the caller returns, or goes on without
/// that part.
///
/// ```no_run
/// if !std::path::Path::new("/sys/kernel/mm/ksm").exists() {
///     skip::skip!(Ksm, "this kernel does not merge pages");
/// }
/// ```
#[macro_export]
macro_rules! skip {
    ($ability:ident, $($reason:tt)+) => {
        $crate::skipped(
            $crate::Ability::$ability,
            concat!(env!("CARGO_PKG_NAME"), " ", file!(), ":", line!()),
            &format!($($reason)+),
        )
    };
}

/// What [`skip!`] calls.
pub fn skipped(ability: Ability, place: &str, reason: &str) {
    let missing = ability.missing();
    record(&Record::Skip {
        ability: ability.name().into(),
        is_missing: missing.is_some(),
        probe: missing.unwrap_or_else(|| ability.present().into()),
        test: current_test().unwrap_or_else(|| place.into()),
        place: place.into(),
        reason: reason.into(),
    });
}

/// Records that a test is left out on purpose, and why. It must be on the list by its name.
pub fn ignored(test: &str, reason: &str) {
    record(&Record::Ignored { test: test.into(), reason: reason.into() });
}

/// Records that a guest or a machine of the lab died of a known fault of the lab.
pub fn died(death: Death, fault: &str, what: &str) {
    record(&Record::Died { death, fault: fault.into(), what: what.into() });
}

/// Runs a test of a suite that does not name its threads; its skips carry this name.
pub fn named<T>(test: &str, run: impl FnOnce() -> T) -> T {
    let before = TEST.replace(Some(test.into()));
    let result = run();
    TEST.set(before);
    result
}

/// libtest names the thread of a test after it.
fn current_test() -> Option<String> {
    let named = TEST.with_borrow(Clone::clone);
    named.or_else(|| std::thread::current().name().filter(|name| *name != "main").map(Into::into))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_attributed_to_the_test_that_runs() {
        assert_eq!(current_test().as_deref(), Some("tests::a_skip_is_attributed_to_the_test_that_runs"));
        assert_eq!(named("a guest boots", current_test).as_deref(), Some("a guest boots"));
        assert_eq!(current_test().as_deref(), Some("tests::a_skip_is_attributed_to_the_test_that_runs"));
    }
}
