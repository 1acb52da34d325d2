//! `balancer`: the daemon and its command line.

fn main() -> std::process::ExitCode {
    balancer::cli::run()
}
