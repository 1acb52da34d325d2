//! `vmm`: runs one guest as a container with a memory limit.

use anyhow::Error;
use clap::Parser;
use protocol::run_dir::RunDir;
use std::io::IsTerminal;
use std::process::ExitCode;
use vmm::boot::kernel::LoadError;
use vmm::cli::{Cli, Task};
use vmm::engine::Hypervisor;
use vmm::exit_code;
use vmm::link::NotAdmitted;
use vmm::machine::InputError;
use vmm::machine::kvm::{self, BuildError, StartError};
use vmm::machine::qemu::{self, QemuError};
use vmm::print_notice;
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
        // An error message about a closed standard error would panic.
        .log_internal_errors(false)
        .init();
    ExitCode::from(run(cli))
}

fn run(cli: Cli) -> u8 {
    let run_dir = cli.run_dir.clone();
    if let Some(Task::Attach(spec)) = &cli.task {
        return match qemu::attach(spec, RunDir::new(run_dir)) {
            // The guest belongs to the program that started it again, or it ended.
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
                "merge needs a balancer, but balancer is none: only a balancer knows which guests would share pages",
            ),
            exit_code::USAGE,
        );
    }
    if spec.wait.is_some() && spec.balancer == Some(Balancer::None) {
        return complain(
            &Error::msg(
                "wait needs a balancer, but balancer is none: only a balancer knows when there is memory",
            ),
            exit_code::USAGE,
        );
    }
    let run_dir = (spec.balancer != Some(Balancer::None)).then(|| RunDir::new(run_dir));
    let hypervisor = match Hypervisor::choose(spec.engine) {
        Ok(hypervisor) => hypervisor,
        Err(error) => return complain(&Error::msg(error), exit_code::USAGE),
    };
    let ended = match hypervisor {
        Hypervisor::Kvm => run_on_kvm(spec, run_dir),
        Hypervisor::Qemu(accelerator) => qemu::run(&spec, accelerator, run_dir).map_err(refuse_qemu),
    };
    let end = match ended {
        Ok(end) => end,
        Err(code) => return code,
    };
    match &end {
        End::Crash => print_notice("The guest crashed"),
        End::Kvm(reason) | End::Machine(reason) => print_notice(reason),
        End::ImageStores(_) => print_notice(&format!("The guest was ended: {end}")),
        End::PowerOff | End::Reset | End::Signal(_) => {}
    }
    exit_code::of(&end)
}

fn run_on_kvm(spec: GuestSpec, run_dir: Option<RunDir>) -> Result<End, u8> {
    let mut guest = match kvm::build(spec, run_dir.as_ref()) {
        Ok(guest) => guest,
        Err(error @ BuildError::Load(LoadError::Cmdline(_))) => {
            return Err(complain(&error.into(), exit_code::USAGE));
        }
        Err(error @ BuildError::Input(InputError::ImagesRefused(_))) => {
            return Err(complain(&error.into(), exit_code::REFUSED));
        }
        Err(error) => return Err(complain(&error.into(), exit_code::HOST)),
    };
    guest.register(run_dir).and_then(|()| guest.run()).map_err(|error| match error {
        StartError::Refused(_) | StartError::NotAdmitted(NotAdmitted::Refused(_)) => {
            complain(&error.into(), exit_code::REFUSED)
        }
        StartError::NotAdmitted(NotAdmitted::Signal(number)) => exit_code::of(&End::Signal(number)),
        _ => complain(&error.into(), exit_code::HOST),
    })
}

fn refuse_qemu(error: QemuError) -> u8 {
    let code = match &error {
        QemuError::NotAdmitted(NotAdmitted::Signal(number)) => return exit_code::of(&End::Signal(*number)),
        QemuError::Refused(_)
        | QemuError::NotAdmitted(NotAdmitted::Refused(_))
        | QemuError::Input(InputError::ImagesRefused(_)) => exit_code::REFUSED,
        QemuError::Unsupported { .. } | QemuError::NoKernel | QemuError::Load(LoadError::Cmdline(_)) => {
            exit_code::USAGE
        }
        _ => exit_code::HOST,
    };
    complain(&error.into(), code)
}

/// Prints an error with its causes, once.
fn complain(error: &Error, code: u8) -> u8 {
    print_notice(&format!("{error:#}"));
    code
}
