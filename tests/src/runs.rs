//! The scenarios as tests: all of them run in one go on a ground, each is then reported by itself.

use crate::engine::Engine;
use crate::ground::Ground;
use crate::scenarios::{ALL, cannot, lab_memory_mib};
use libtest_mimic::{Failed, Trial};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The whole run, guests of all scenarios one after the other.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Environment variable that names another seed of the stress test.
const SEED_VARIABLE: &str = "BALLAST_STRESS_SEED";

/// Machines that are used up at most.
const TURNS: u32 = 3;

/// What became of a scenario.
#[derive(Clone)]
enum Outcome {
    Done(Result<(), String>),
    /// The engine cannot show it, and why.
    Cannot,
}

type Outcomes = HashMap<String, Outcome>;

/// A test of each scenario, without running any.
#[must_use]
pub fn list(prefix: &str) -> Vec<Trial> {
    ALL.iter().map(|(name, _)| Trial::test(format!("{prefix}{name}"), || Ok(()))).collect()
}

/// Runs the scenarios whose names, with the prefix, have these words in them. One test of each.
#[must_use]
pub fn trials(ground: Ground, prefix: &str, filter: &str) -> Vec<Trial> {
    let chosen = chosen(prefix, filter);
    let ran = run(ground, &chosen);
    chosen.iter().map(|name| trial(prefix, name, ran.clone())).collect()
}

/// The same, beside other tests: the scenarios begin now, and each test waits for its own.
#[must_use]
pub fn trials_beside(ground: Ground, prefix: &str, filter: &str) -> Vec<Trial> {
    let chosen = chosen(prefix, filter);
    let ran = Arc::new(OnceLock::new());
    let done = Arc::clone(&ran);
    let names = chosen.clone();
    std::thread::spawn(move || done.get_or_init(|| run(ground, &names)).is_ok());
    let wait = |name: &&'static str| {
        let (ran, name) = (Arc::clone(&ran), *name);
        let ignored = ground == Ground::Qemu && cannot(Engine::Qemu, name).is_some();
        let test = move || ran.wait().as_ref().map_err(Failed::from)?.of(name).map_err(Failed::from);
        Trial::test(format!("{prefix}{name}"), test).with_ignored_flag(ignored)
    };
    chosen.iter().map(wait).collect()
}

fn chosen(prefix: &str, filter: &str) -> Vec<&'static str> {
    ALL.iter().map(|(name, _)| *name).filter(|name| format!("{prefix}{name}").contains(filter)).collect()
}

/// That the ground is not there is a failure of the test command, not a skip.
fn trial(prefix: &str, name: &'static str, ran: Result<Ran, String>) -> Trial {
    let is_ignored = ran.as_ref().is_ok_and(|ran| matches!(ran.outcomes.get(name), Some(Outcome::Cannot)));
    let test = move || ran.map_err(Failed::from)?.of(name).map_err(Failed::from);
    Trial::test(format!("{prefix}{name}"), test).with_ignored_flag(is_ignored)
}

/// What became of all of them, and what ended the run early if something did.
#[derive(Clone)]
struct Ran {
    outcomes: Outcomes,
    broke: String,
}

impl Ran {
    fn of(&self, name: &str) -> Result<(), String> {
        match self.outcomes.get(name) {
            Some(Outcome::Cannot) => Ok(()),
            Some(Outcome::Done(result)) => result.clone(),
            None => Err(format!("the run ended before this scenario did: {}", self.broke)),
        }
    }
}

fn run(ground: Ground, chosen: &[&str]) -> Result<Ran, String> {
    let mut ran = Ran { outcomes: Outcomes::new(), broke: String::new() };
    if chosen.is_empty() {
        return Ok(ran);
    }
    println!("Linux guests run {ground}");
    let mut machines: BTreeMap<Option<u32>, Vec<&str>> = BTreeMap::new();
    for name in chosen {
        let memory_mib = lab_memory_mib(name).filter(|_| matches!(ground, Ground::Lab(_)));
        machines.entry(memory_mib).or_default().push(name);
    }
    // A machine of the lab has one processor: they run beside each other.
    std::thread::scope(|scope| {
        let running: Vec<_> =
            machines.values().map(|alike| scope.spawn(move || together(ground, alike))).collect();
        for machine in running {
            let Ran { outcomes, broke } = machine.join().map_err(|_| "a machine's run panicked")??;
            ran.outcomes.extend(outcomes);
            ran.broke += &broke;
        }
        Ok(ran)
    })
}

/// Runs scenarios that want the same machine on one.
fn together(ground: Ground, alike: &[&str]) -> Result<Ran, String> {
    let mut ran = Ran { outcomes: Outcomes::new(), broke: String::new() };
    let seed = std::env::var(SEED_VARIABLE).unwrap_or_else(|_| "1".into());
    for turn in 1..=TURNS {
        let left = alike.iter().filter(|name| !ran.outcomes.contains_key(**name));
        let words: Vec<&str> = ["scenarios", "--seed", &seed].into_iter().chain(left.copied()).collect();
        match ground.run(&words, DEADLINE, &mut |line| hear(line, &mut ran.outcomes)) {
            Ok(0 | 1) => break,
            Ok(code) => ran.broke = format!("it ended with exit code {code}"),
            // An emulated processor is no real one: now and then the machine around the guests dies. What ran before
            // counts, the rest runs in a new one, and that is said.
            Err(error) if turn < TURNS => println!("RETRY {turn} of {}: {error:#}", TURNS - 1),
            Err(error) if ran.outcomes.is_empty() => {
                return Err(format!("Linux guests do not run: {error:#}"));
            }
            Err(error) => ran.broke = format!("{error:#}"),
        }
    }
    Ok(ran)
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
