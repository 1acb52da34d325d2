//! The command line: `serve` runs a balancer, `image` and `simulate` need none, every other command is a thin client of
//! one.

#![forbid(unsafe_code)]

mod args;
mod attach;
mod charge;
mod events;
mod exit;
mod explain;
mod image;
mod markers;
mod policy;
mod pool;
mod preview;
mod print;
mod ps;
mod record;
mod serve;
mod set;
mod simulate;
mod values;

pub use markers::into_markers;

use crate::client::ClientError;
use args::{Arguments, Command};
use clap::Parser;
use print::print_error;
use std::process::ExitCode;

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let run_dir = protocol::run_dir::RunDir::new(arguments.run_dir);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&format!("Cannot start the runtime: {error}"));
            return exit::REFUSED.into();
        }
    };
    let client = crate::client::Client::new(&run_dir.api_socket());
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Serve(command) => serve::run(run_dir, command).await,
            Command::Ps(command) => ps::run(&client, command.json).await,
            Command::Set(command) => set::set(&client, &command).await,
            Command::Attach(command) => attach::attach(&client, &command).await,
            Command::Detach(command) => attach::detach(&client, &command).await,
            Command::Move(command) => charge::move_guest(&client, &command).await,
            Command::Charge(command) => charge::charge(&client, &command).await,
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
    // A task on another thread must not delay the end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Refused for several reasons: a line each.
            match error.downcast_ref() {
                Some(ClientError::Refused(problem)) if problem.errors.len() > 1 => {
                    problem.errors.iter().for_each(|reason| print_error(&reason.detail));
                }
                _ => print_error(&format!("{error:#}")),
            }
            exit::code(&error).into()
        }
    }
}
