//! The scenarios with Linux guests on KVM: on this host where its processor virtualizes, in the lab elsewhere.
//!
//! All scenarios that need the same machine run in one boot of the outer machine; each is then reported as a test.

use e2e::ground::Ground;
use e2e::runs;
use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, runs::list("")).exit_code();
    }
    let trials = runs::trials(Ground::of_this_machine(), "", arguments.filter.as_deref().unwrap_or_default());
    libtest_mimic::run(&Arguments { filter: None, test_threads: Some(1), ..arguments }, trials).exit_code()
}
