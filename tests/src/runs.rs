//! The scenarios as tests: all of them run in one go on a ground, each is then reported by itself.

use crate::ground::Ground;
use crate::scenarios::ALL;
use anyhow::Result;
use libtest_mimic::{Failed, Trial};
use std::collections::HashMap;
use std::time::Duration;

/// The whole run, guests of all scenarios one after the other.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Environment variable that names another seed of the stress test.
const SEED_VARIABLE: &str = "BALLAST_STRESS_SEED";

/// Machines that are used up at most.
const TURNS: u32 = 3;

/// What became of a scenario.
enum Outcome {
    Done(std::result::Result<(), String>),
    /// The engine cannot show it, and why.
    Cannot,
}

type Outcomes = HashMap<String, Outcome>;

/// A test of each scenario, without running any.
#[must_use]
pub fn list(prefix: &str) -> Vec<Trial> {
    ALL.iter().map(|(name, _)| Trial::test(format!("{prefix}{name}"), || Ok(()))).collect()
}

/// Runs the scenarios whose names, with the prefix, have these words in them. One test of each. That the ground is not there is a
/// failure of the test command, not a skip.
#[must_use]
pub fn trials(ground: Ground, prefix: &str, filter: &str) -> Vec<Trial> {
    run(ground, prefix, filter).unwrap_or_else(|error| {
        let text = format!("{error:#}");
        vec![Trial::test(format!("{prefix}linux guests run"), move || Err(Failed::from(text)))]
    })
}

fn run(ground: Ground, prefix: &str, filter: &str) -> Result<Vec<Trial>> {
    let is_chosen = |name: &&str| format!("{prefix}{name}").contains(filter);
    let chosen: Vec<&str> = ALL.iter().map(|(name, _)| *name).filter(is_chosen).collect();
    if chosen.is_empty() {
        return Ok(vec![]);
    }
    println!("Linux guests run {ground}");
    let seed = std::env::var(SEED_VARIABLE).unwrap_or_else(|_| "1".into());
    let mut results = Outcomes::new();
    let mut broke = String::new();
    for turn in 1..=TURNS {
        let left = chosen.iter().filter(|name| !results.contains_key(**name));
        let words: Vec<&str> = ["scenarios", "--seed", &seed].into_iter().chain(left.copied()).collect();
        match ground.run(&words, DEADLINE, &mut |line| hear(line, &mut results)) {
            Ok(0 | 1) => break,
            Ok(code) => broke = format!("it ended with exit code {code}"),
            // An emulated processor is no real one: now and then the machine around the guests dies. What ran before
            // counts, the rest runs in a new one, and that is said.
            Err(error) if turn < TURNS => println!("RETRY {turn} of {}: {error:#}", TURNS - 1),
            Err(error) if results.is_empty() => return Err(error),
            Err(error) => broke = format!("{error:#}"),
        }
    }
    let trial = |name: &&str| {
        let full = format!("{prefix}{name}");
        match results.get(*name) {
            Some(Outcome::Cannot) => Trial::test(full, || Ok(())).with_ignored_flag(true),
            Some(Outcome::Done(result)) => {
                let result = result.clone();
                Trial::test(full, move || result.map_err(Failed::from))
            }
            None => {
                let text = format!("the run ended before this scenario did: {broke}");
                Trial::test(full, move || Err(Failed::from(text)))
            }
        }
    };
    Ok(chosen.iter().map(trial).collect())
}

/// One line of the runner.
fn hear(line: &str, results: &mut Outcomes) {
    let fields: Vec<&str> = line.trim_end_matches(['\r', '\n']).split('\t').collect();
    match fields.as_slice() {
        ["RESULT", name, "ok", ms] => {
            println!("  {name}: ok, {ms} ms");
            results.insert((*name).into(), Outcome::Done(Ok(())));
        }
        ["RESULT", name, "FAILED", ms] => {
            println!("  {name}: FAILED, {ms} ms");
            results.insert((*name).into(), Outcome::Done(Err(String::new())));
        }
        ["CANNOT", name, why] => {
            println!("  {name}: SKIPPED, {why}");
            results.insert((*name).into(), Outcome::Cannot);
        }
        ["DETAIL", name, detail] => {
            if let Some(Outcome::Done(Err(text))) = results.get_mut(*name) {
                text.push_str(detail);
                text.push('\n');
            }
        }
        _ => println!("  {line}"),
    }
}
