//! The scenarios as tests: all of them run in one go on a ground, each is then reported by itself.

use crate::engine::Engine;
use crate::faults::Fault;
use crate::ground::Ground;
use crate::scenarios::{ALL, cannot, lab_memory_mib};
use libtest_mimic::{Failed, Trial};
use skip::{Death, Record};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use wait::TOTAL_MAX;

/// Environment variable that names another seed of the stress test.
const SEED_VARIABLE: &str = "BALLAST_STRESS_SEED";

/// Machines of the lab that one run uses at most.
const MACHINES_MAX: u32 = 3;

/// What a guest died of in a scenario that ran once more (`inside`).
const GUEST_FAULT: &str = "triple fault on the emulated CPU";

/// What became of a scenario.
#[derive(Clone)]
enum Outcome {
    Done(Result<(), String>),
    /// The engine cannot show it, and why.
    Cannot(String),
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

/// The same while other tests run: the scenarios begin now, and each test waits for its own.
#[must_use]
pub fn trials_meanwhile(ground: Ground, prefix: &str, filter: &str) -> Vec<Trial> {
    let chosen = chosen(prefix, filter);
    let ran = Arc::new(OnceLock::new());
    let done = Arc::clone(&ran);
    let names = chosen.clone();
    std::thread::spawn(move || done.get_or_init(|| run(ground, &names)).is_ok());
    let wait = |name: &&'static str| {
        let (ran, name) = (Arc::clone(&ran), *name);
        let reason = cannot(Engine::Qemu, name).filter(|_| ground == Ground::Qemu);
        let test = move || ran.wait().as_ref().map_err(Failed::from)?.of(name).map_err(Failed::from);
        named(prefix, name, reason, test)
    };
    chosen.iter().map(wait).collect()
}

fn chosen(prefix: &str, filter: &str) -> Vec<&'static str> {
    ALL.iter().map(|(name, _)| *name).filter(|name| format!("{prefix}{name}").contains(filter)).collect()
}

/// That the ground is not there is a failure of the test command, not a skip.
fn trial(prefix: &str, name: &'static str, ran: Result<Ran, String>) -> Trial {
    let reason = match ran.as_ref().map(|ran| ran.outcomes.get(name)) {
        Ok(Some(Outcome::Cannot(reason))) => Some(reason.clone()),
        _ => None,
    };
    let test = move || ran.map_err(Failed::from)?.of(name).map_err(Failed::from);
    named(prefix, name, reason.as_deref(), test)
}

/// A test, left out where there is a reason for it, which is recorded.
fn named(
    prefix: &str,
    name: &str,
    reason: Option<&str>,
    test: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let name = format!("{prefix}{name}");
    if let Some(reason) = reason {
        skip::ignored(&name, reason);
    }
    Trial::test(name, test).with_ignored_flag(reason.is_some())
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
            Some(Outcome::Cannot(_)) => Ok(()),
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
    // A machine of the lab has one CPU: several of them run at the same time.
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
    for machine in 1..=MACHINES_MAX {
        let left: Vec<&str> =
            alike.iter().filter(|name| !ran.outcomes.contains_key(**name)).copied().collect();
        let words: Vec<&str> = ["scenarios", "--seed", &seed].iter().chain(&left).copied().collect();
        // A machine that hangs is found by its silence, a scenario that hangs by its waits: this is for what neither
        // sees, on a host of any speed.
        let deadline = TOTAL_MAX * u32::try_from(1 + left.len()).unwrap_or(u32::MAX);
        let mut printed = String::new();
        let end = ground.run(&words, deadline, &mut |line| {
            printed.push_str(line);
            printed.push('\n');
            receive(line, &mut ran.outcomes);
        });
        match after(&end, &printed, machine) {
            After::Done => break,
            After::Again(fault) => {
                let number = ran.outcomes.len();
                skip::died(Death::Machine, fault.name(), &format!("the lab after {number} scenarios"));
                println!("RETRY: machine {machine} of at most {MACHINES_MAX} died: {}", fault.name());
            }
            After::Failed(why) if ran.outcomes.is_empty() => {
                return Err(format!("Linux guests do not run: {why}"));
            }
            After::Failed(why) => {
                ran.broke = why;
                break;
            }
        }
    }
    Ok(ran)
}

/// What follows from the end of a machine.
#[derive(Debug, PartialEq, Eq)]
enum After {
    /// All that was asked for ran.
    Done,
    /// The machine died of a known fault of the lab: what ran before counts, the rest runs in a new machine.
    Again(Fault),
    /// Every other end. What did not run has failed.
    Failed(String),
}

fn after(end: &anyhow::Result<i32>, printed: &str, machine: u32) -> After {
    match end {
        Ok(0 | 1) => After::Done,
        Ok(code) => After::Failed(format!("it ended with exit code {code}")),
        Err(error) => match Fault::of(error, printed) {
            Some(fault) if machine < MACHINES_MAX => After::Again(fault),
            _ => After::Failed(format!("{error:#}")),
        },
    }
}

/// One line of `inside`.
fn receive(line: &str, results: &mut Outcomes) {
    if skip::is_record(line) {
        // A machine of the lab cannot write to this host's file.
        return match Record::parse(line) {
            Some(record) => skip::record(&record),
            None => println!("  {line}"),
        };
    }
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
            println!("  {name}: left out, {why}");
            results.insert((*name).into(), Outcome::Cannot((*why).into()));
        }
        ["RETRY", what] => {
            println!("  RETRY: {what}");
            let name = what.split(':').next().unwrap_or_default();
            skip::died(Death::Guest, GUEST_FAULT, name);
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

#[cfg(test)]
mod tests {
    use super::*;
    use guest_images::Error;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn died(tail: &str) -> anyhow::Result<i32> {
        let status = ExitStatus::from_raw(0);
        Err(Error::OuterDied { status, tail: tail.into() }.into())
    }

    #[test]
    fn a_machine_that_dies_of_a_known_fault_is_replaced_twice() {
        assert_eq!(after(&died(""), "", 1), After::Again(Fault::TripleFault));
        assert_eq!(after(&died(""), "", 2), After::Again(Fault::TripleFault));
        assert!(matches!(after(&died(""), "", 3), After::Failed(_)));
    }

    #[test]
    fn a_machine_that_dies_of_anything_else_has_failed() {
        assert!(matches!(after(&died("Kernel panic - not syncing"), "", 1), After::Failed(_)));
        assert!(matches!(after(&died(""), "panicked at balancer/src/main.rs", 1), After::Failed(_)));
        assert!(matches!(after(&Ok(139), "", 1), After::Failed(_)), "a signal ended `inside`");
        assert_eq!(after(&Ok(1), "", 1), After::Done);
    }

    #[test]
    fn what_qemu_does_not_show_is_on_the_list_of_what_may_be_left_out() {
        let list = include_str!("../skip/allowed.txt");
        for (name, _) in ALL.iter().filter(|(name, _)| cannot(Engine::Qemu, name).is_some()) {
            let line = format!("ignored qemu: {name}");
            assert!(list.lines().any(|known| known == line), "tests/skip/allowed.txt lacks {line:?}");
        }
    }
}
