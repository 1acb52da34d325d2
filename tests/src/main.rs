//! `scenarios FOLDER SERIES [FILTER]`: runs the scenarios with Linux guests on this host's KVM.
//!
//! One line each, tab separated: `RESULT`, name, `ok` or `FAILED`, milliseconds. What went wrong follows in lines that
//! start with `DETAIL`.

use e2e::linux::Images;
use e2e::scenarios::ALL;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, default, filter @ ..] = arguments.as_slice() else {
        eprintln!("usage: scenarios FOLDER SERIES [FILTER]");
        return ExitCode::from(2);
    };
    let images = Images { dir: dir.into(), default: default.clone() };
    let mut failed = false;
    for (name, scenario) in ALL.iter().filter(|(name, _)| filter.iter().all(|word| name.contains(word.as_str()))) {
        let started = Instant::now();
        let result = scenario(&images);
        let took = started.elapsed().as_millis();
        match result {
            Ok(()) => println!("RESULT\t{name}\tok\t{took}"),
            Err(error) => {
                failed = true;
                println!("RESULT\t{name}\tFAILED\t{took}");
                for line in format!("{error:?}").lines() {
                    println!("DETAIL\t{name}\t{line}");
                }
            }
        }
    }
    ExitCode::from(u8::from(failed))
}
