//! Prints the last lines of `make test` and ends with 1 unless all is in order.

#![forbid(unsafe_code)]

use skip::{Allowed, Log, Summary};
use std::fs;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::from(u8::from(!summary.is_good()))
        }
        Err(why) => {
            println!("FAILED: {why}\n0 passed, 1 failed");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<Summary, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [log, records, allowed, status] = arguments.as_slice() else {
        return Err(
            "Usage: test-summary LOG-OF-CARGO-TEST RECORDS-OF-SKIPS LIST-OF-WHAT-MAY-LACK STATUS-OF-CARGO"
                .into(),
        );
    };
    let read = |path: &String| fs::read(path).map_err(|error| format!("{path}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let allowed = Allowed::parse(&text(read(allowed)?))?;
    // The file of skips is there only if something was skipped.
    let records = fs::read(records).map(text).unwrap_or_default();
    Ok(Summary::new(&Log::parse(&text(read(log)?)), &records, &allowed, status == "0"))
}
