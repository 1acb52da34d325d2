//! `vmm`: runs one guest as a container with a memory limit.

use anyhow::Error;
use clap::Parser;
use protocol::place::Place;
use std::io::IsTerminal;
use std::process::ExitCode;
use vmm::boot::kernel::LoadError;
use vmm::cli::{Cli, Other};
use vmm::engine::Engine;
use vmm::exit_code;
use vmm::link::NotTaken;
use vmm::machine::{self, BuildError, StartError};
use vmm::qemu::{self, QemuError};
use vmm::say;
use vmm::spec::{Balancer, GuestSpec};
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
    if let Some(Other::Attach(spec)) = &cli.other {
        return match qemu::attach(spec, Place::new(run_dir)) {
            // It was somebody else's before and is so again, or it is gone.
            Ok(_) => exit_code::OK,
            Err(error) => refuse_qemu(error),
        };
    }
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
    let engine = match Engine::choose(spec.engine) {
        Ok(engine) => engine,
        Err(error) => return complain(&Error::msg(error), exit_code::USAGE),
    };
    let ended = match engine {
        Engine::Kvm => run_on_kvm(spec, place),
        Engine::Qemu(accelerator) => qemu::run(&spec, accelerator, place).map_err(refuse_qemu),
    };
    let end = match ended {
        Ok(end) => end,
        Err(code) => return code,
    };
    match &end {
        End::Crash => say("The guest crashed"),
        End::Kvm(reason) | End::Machine(reason) => say(reason),
        End::ImageStores(_) => say(&format!("The guest was ended: {end}")),
        End::PowerOff | End::Reset | End::Signal(_) => {}
    }
    exit_code::of(&end)
}

fn run_on_kvm(spec: GuestSpec, place: Option<Place>) -> Result<End, u8> {
    let mut machine = match machine::build(spec, place.as_ref()) {
        Ok(machine) => machine,
        Err(error @ BuildError::Load(LoadError::Cmdline)) => {
            return Err(complain(&error.into(), exit_code::USAGE));
        }
        Err(error @ BuildError::ImagesRefused(_)) => return Err(complain(&error.into(), exit_code::REFUSED)),
        Err(error) => return Err(complain(&error.into(), exit_code::HOST)),
    };
    machine.register(place).and_then(|()| machine.run()).map_err(|error| match error {
        StartError::Refused(_) | StartError::NotTaken(NotTaken::Refused(_)) => {
            complain(&error.into(), exit_code::REFUSED)
        }
        StartError::NotTaken(NotTaken::Ended(number)) => exit_code::of(&End::Signal(number)),
        _ => complain(&error.into(), exit_code::HOST),
    })
}

fn refuse_qemu(error: QemuError) -> u8 {
    let code = match &error {
        QemuError::NotTaken(NotTaken::Ended(number)) => return exit_code::of(&End::Signal(*number)),
        QemuError::Refused(_)
        | QemuError::NotTaken(NotTaken::Refused(_))
        | QemuError::File(BuildError::ImagesRefused(_)) => exit_code::REFUSED,
        QemuError::CannotDo { .. } | QemuError::NoKernel => exit_code::USAGE,
        _ => exit_code::HOST,
    };
    complain(&error.into(), code)
}

/// Prints an error with its causes, once.
fn complain(error: &Error, code: u8) -> u8 {
    say(&format!("{error:#}"));
    code
}
