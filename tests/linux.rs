//! The scenarios with Linux guests: on this host where its processor virtualizes, in the lab elsewhere.
//!
//! All that want the same machine run in one go (one boot of the outer machine); each is then reported as a test of its own.

use anyhow::Result;
use e2e::ground::Ground;
use e2e::scenarios::{ALL, lab_memory_mib};
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

/// The whole run, guests of all scenarios one after the other.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Environment variable that names another seed of the stress test.
const SEED_VARIABLE: &str = "BALLAST_STRESS_SEED";

/// Machines that are used up at most.
const TURNS: u32 = 3;

/// What became of a scenario.
type Results = HashMap<String, std::result::Result<(), String>>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        let trials = ALL.iter().map(|(name, _)| Trial::test(*name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let trials = match run(arguments.filter.as_deref().unwrap_or_default()) {
        Ok(trials) => trials,
        // The ground was expected to be there: that it is not is a failure of the test command, not a skip.
        Err(error) => {
            let text = format!("{error:#}");
            vec![Trial::test("linux guests run", move || Err(Failed::from(text)))]
        }
    };
    libtest_mimic::run(&Arguments { filter: None, test_threads: Some(1), ..arguments }, trials).exit_code()
}

fn run(filter: &str) -> Result<Vec<Trial>> {
    let ground = Ground::of_this_machine();
    println!("Linux guests run {ground}");
    let seed = std::env::var(SEED_VARIABLE).unwrap_or_else(|_| "1".into());
    let chosen: Vec<&str> = ALL.iter().map(|(name, _)| *name).filter(|name| name.contains(filter)).collect();
    let (mut results, mut broke) = (Results::new(), String::new());
    let mut machines: Vec<Option<u32>> = chosen.iter().map(|name| lab_memory_mib(name)).collect();
    machines.sort();
    machines.dedup();
    for memory_mib in machines {
        let alike: Vec<&str> =
            chosen.iter().copied().filter(|name| lab_memory_mib(name) == memory_mib).collect();
        broke += &together(ground, &seed, &alike, &mut results)?;
    }
    let trial = |name: &&str| {
        let result = results.get(*name).cloned();
        let result =
            result.unwrap_or_else(|| Err(format!("the run ended before this scenario did: {broke}")));
        Trial::test(*name, move || result.map_err(Failed::from))
    };
    Ok(chosen.iter().map(trial).collect())
}

/// Runs these on one machine. Returns why not all of them ran, if they did not.
fn together(ground: Ground, seed: &str, chosen: &[&str], results: &mut Results) -> Result<String> {
    let mut broke = String::new();
    for turn in 1..=TURNS {
        let left: Vec<&str> = chosen.iter().copied().filter(|name| !results.contains_key(*name)).collect();
        let words: Vec<&str> = ["scenarios", "--seed", seed].into_iter().chain(left).collect();
        match ground.run(&words, DEADLINE, &mut |line| hear(line, results)) {
            Ok(0 | 1) => break,
            Ok(code) => broke = format!("it ended with exit code {code}"),
            // An emulated processor is no real one: now and then the machine around the guests dies. What ran before
            // counts, the rest runs in a new one, and that is said.
            Err(error) if turn < TURNS => println!("RETRY {turn} of {}: {error:#}", TURNS - 1),
            Err(error) if results.is_empty() => return Err(error),
            Err(error) => broke = format!("{error:#}"),
        }
    }
    Ok(broke)
}

/// One line of the runner.
fn hear(line: &str, results: &mut Results) {
    let fields: Vec<&str> = line.trim_end_matches(['\r', '\n']).split('\t').collect();
    match fields.as_slice() {
        ["RESULT", name, "ok", ms] => {
            println!("  {name}: ok, {ms} ms");
            results.insert((*name).into(), Ok(()));
        }
        ["RESULT", name, "FAILED", ms] => {
            println!("  {name}: FAILED, {ms} ms");
            results.insert((*name).into(), Err(String::new()));
        }
        ["DETAIL", name, detail] => {
            if let Some(Err(text)) = results.get_mut(*name) {
                text.push_str(detail);
                text.push('\n');
            }
        }
        _ => println!("  {line}"),
    }
}
