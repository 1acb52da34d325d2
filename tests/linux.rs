//! The scenarios with Linux guests: on this host where its processor virtualizes, in the lab elsewhere.

use anyhow::{Context, Result};
use e2e::host::program;
use e2e::linux::{Images, LAB_IMAGES};
use e2e::scenarios::ALL;
use e2e::kvm;
use guest_images::outer::OuterResult;
use guest_images::{ImageSet, KernelSeries, OuterMachine};
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The whole run, guests of all scenarios one after the other.
const DEADLINE: Duration = Duration::from_secs(15 * 60);
/// The series that guests run unless a scenario names one, and the outer machine's.
const DEFAULT: KernelSeries = KernelSeries::V6_1;

/// What became of a scenario.
type Results = HashMap<String, std::result::Result<(), String>>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        let trials = ALL.iter().map(|(name, _)| Trial::test(*name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let ground = if kvm::virtualizes() { native() } else { lab(arguments.filter.as_deref()) };
    let trials = match ground {
        Ok(trials) => trials,
        // The lab was expected to run: that it did not is a failure of the test command, not a skip.
        Err(error) => {
            let text = format!("{error:?}");
            vec![Trial::test("the lab runs", move || Err(Failed::from(text)))]
        }
    };
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials).exit_code()
}

fn native() -> Result<Vec<Trial>> {
    println!("Linux guests run on this host's KVM");
    let set = ImageSet::of_user()?;
    let dir = tempfile::Builder::new().prefix("ballast-images-").tempdir()?.keep();
    for series in KernelSeries::ALL {
        let guest = set.ensure(series)?;
        let folder = dir.join(series.to_string());
        std::fs::create_dir_all(&folder)?;
        for (file, path) in files(&guest) {
            std::os::unix::fs::symlink(path, folder.join(file))?;
        }
    }
    let images = Images { dir, default: DEFAULT.to_string() };
    let trial = |(name, scenario): &(&'static str, fn(&Images) -> Result<()>)| {
        let (images, scenario) = (images.clone(), *scenario);
        Trial::test(*name, move || scenario(&images).map_err(|error| Failed::from(format!("{error:?}"))))
    };
    Ok(ALL.iter().map(trial).collect())
}

fn files(guest: &guest_images::Guest) -> [(&'static str, &Path); 3] {
    [("vmlinux", &guest.vmlinux), ("bzimage", &guest.bzimage), ("initramfs", &guest.initramfs)]
}

/// Runs all scenarios in one boot of the outer machine.
fn lab(filter: Option<&str>) -> Result<Vec<Trial>> {
    println!("Linux guests run in the lab: this processor does not virtualize");
    let chosen: Vec<&str> = ALL.iter().map(|(name, _)| *name).filter(|name| filter.is_none_or(|f| name.contains(f))).collect();
    let results = run_outer(filter)?;
    Ok(chosen.into_iter().map(|name| {
        let result = results.get(name).cloned().unwrap_or_else(|| Err("the lab ended before this scenario did".into()));
        Trial::test(name, move || result.map_err(Failed::from))
    }).collect())
}

fn run_outer(filter: Option<&str>) -> Result<Results> {
    let set = ImageSet::of_user()?;
    let mut payload: Vec<(PathBuf, String)> =
        ["vmm", "balancer", "scenarios"].iter().map(|name| (program(name), format!("bin/{name}"))).collect();
    for series in KernelSeries::ALL {
        let guest = set.ensure(series)?;
        for (file, path) in files(&guest) {
            payload.push((path.into(), format!("images/{series}/{file}")));
        }
    }
    let filter = filter.map(|text| format!(" '{}'", text.replace('\'', ""))).unwrap_or_default();
    let machine = OuterMachine {
        kernel: DEFAULT,
        memory_mib: 6144,
        cpus: 2,
        payload,
        command: format!("scenarios {LAB_IMAGES} {DEFAULT}{filter}"),
        deadline: DEADLINE,
        artifacts_dir: std::env::temp_dir().join(format!("ballast-lab-{}", std::process::id())),
    };
    let mut results = Results::new();
    let run = machine.run(&set, &mut |line| hear(line, &mut results));
    match run {
        Ok(OuterResult { took, .. }) => println!("The lab ran for {:.0} s", took.as_secs_f64()),
        // What ran before the hang counts; the rest is reported as not run, with the reason.
        Err(error) if !results.is_empty() => println!("{:?}", anyhow::Error::from(error)),
        Err(error) => return Err(error).context("the lab did not run"),
    }
    Ok(results)
}

/// One line of the runner.
fn hear(line: &str, results: &mut Results) {
    let fields: Vec<&str> = line.trim_end().split('\t').collect();
    match fields.as_slice() {
        ["RESULT", name, "ok", ms] => {
            println!("  {name}: ok, {ms} ms in the lab");
            results.insert((*name).into(), Ok(()));
        }
        ["RESULT", name, "FAILED", ms] => {
            println!("  {name}: FAILED, {ms} ms in the lab");
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
