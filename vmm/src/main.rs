//! `vmm`: runs one guest as a container with a memory limit.

use anyhow::Error;
use clap::Parser;
use protocol::place::Place;
use std::io::IsTerminal;
use std::process::ExitCode;
use vmm::boot::kernel::LoadError;
use vmm::cli::Cli;
use vmm::exit_code;
use vmm::machine::{self, BuildError, StartError};
use vmm::say;
use vmm::spec::Balancer;
use vmm::vcpu::End;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("BALLAST_LOG").unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Complaining on standard error that nothing can be written there would panic.
        .log_internal_errors(false)
        .init();
    ExitCode::from(run(cli))
}

fn run(cli: Cli) -> u8 {
    let run_dir = cli.run_dir.clone();
    let spec = match cli.guest() {
        Ok(spec) => spec,
        Err(error) => return complain(&error, exit_code::USAGE),
    };
    if spec.kernel.is_none() {
        return complain(
            &Error::msg("No kernel: give --kernel FILE, or kernel = \"FILE\" in the spec file"),
            exit_code::USAGE,
        );
    }
    if spec.merge && spec.balancer == Some(Balancer::None) {
        return complain(
            &Error::msg(
                "merge is asked for without a balancer (balancer is none): nobody could say with whom pages would be shared",
            ),
            exit_code::USAGE,
        );
    }
    if spec.wait.is_some() && spec.balancer == Some(Balancer::None) {
        return complain(
            &Error::msg(
                "wait is given without a balancer (balancer is none): nobody could say when there is memory",
            ),
            exit_code::USAGE,
        );
    }
    let place = (spec.balancer != Some(Balancer::None)).then(|| Place::new(run_dir));
    let mut machine = match machine::build(spec, place.as_ref()) {
        Ok(machine) => machine,
        Err(error @ BuildError::Load(LoadError::Cmdline)) => {
            return complain(&error.into(), exit_code::USAGE);
        }
        Err(error @ BuildError::ImagesRefused(_)) => return complain(&error.into(), exit_code::REFUSED),
        Err(error) => return complain(&error.into(), exit_code::HOST),
    };
    let end = match machine.register(place).and_then(|()| machine.run()) {
        Ok(end) => end,
        Err(error @ StartError::Refused(_)) => return complain(&error.into(), exit_code::REFUSED),
        Err(StartError::Ended(number)) => return exit_code::of(&End::Signal(number)),
        Err(error) => return complain(&error.into(), exit_code::HOST),
    };
    match &end {
        End::Crash => say("The guest crashed (triple fault)"),
        End::Kvm(reason) => say(reason),
        End::ImageStores(_) => say(&format!("The guest was ended: {end}")),
        End::PowerOff | End::Reset | End::Signal(_) => {}
    }
    exit_code::of(&end)
}

/// Prints an error with its causes, once.
fn complain(error: &Error, code: u8) -> u8 {
    say(&format!("{error:#}"));
    code
}
