//! The command line: `serve` runs a balancer, everything else is a thin client of one.

mod args;
mod attach;
mod events;
mod exit;
mod explain;
mod image;
mod markers;
mod pay;
mod plan;
mod policy;
mod pool;
mod ps;
mod record;
mod serve;
mod set;
mod simulate;
mod values;

pub use markers::into_markers;

use crate::client::ClientError;
use anyhow::Context;
use args::{Arguments, Command};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let place = protocol::place::Place::new(arguments.run_dir);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("Cannot start the runtime: {error}"));
            return exit::REFUSED.into();
        }
    };
    let client = crate::client::Client::new(&place.api_socket());
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Serve(command) => serve::run(place, command).await,
            Command::Ps(command) => ps::run(&client, command.json).await,
            Command::Set(command) => set::set(&client, &command).await,
            Command::Attach(command) => attach::attach(&client, &command).await,
            Command::Detach(command) => attach::detach(&client, &command).await,
            Command::Move(command) => pay::move_guest(&client, &command).await,
            Command::Charge(command) => pay::charge(&client, &command).await,
            Command::Pool(command) => pool::show(&client, command.json).await,
            Command::Bind(command) => pool::bind(&client, &command).await,
            Command::Unbind(command) => pool::unbind(&client, &command).await,
            Command::Rm(command) => set::remove(&client, &command).await,
            Command::Policy(command) => policy::run(&client, &command).await,
            Command::Explain(command) => explain::run(&client, &command).await,
            Command::Record(command) => record::run(&client, &command).await,
            Command::Simulate(command) => simulate::run(&command),
            Command::Image(command) => image::run(&client, command).await,
            Command::Events(command) => events::run(&client, &command).await,
        }
    });
    // A client that was told to count frames on another thread must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Refused for several reasons: a line each.
            match error.downcast_ref() {
                Some(ClientError::Refused(problem)) if problem.errors.len() > 1 => {
                    problem.errors.iter().for_each(|reason| say(&reason.detail));
                }
                _ => say(&format!("{error:#}")),
            }
            exit::code(&error).into()
        }
    }
}

/// Writes what was asked for. False once nobody reads any more, which is no error (`balancer ps | head`); a full disk is.
fn print(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("Cannot write to standard output"),
    }
}

/// One line on standard error, if anything can be written there: the exit code says the rest.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "balancer: {text}");
}
