//! Starting the user's balancer when there is none, as tmux starts its server. It ends with its last guest.

use protocol::place::Place;
use protocol::private::PrivateError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a balancer may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Exit code of a balancer that finds another in its place (`balancer --help`).
const TAKEN: i32 = 4;

/// Environment variable that names the balancer's program.
pub const BALANCER_VARIABLE: &str = "BALLAST_BALANCER";

/// Why no balancer runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be made or is not this user's alone.
    #[error(transparent)]
    NotPrivate(#[from] PrivateError),
    /// The log cannot be made.
    #[error("Cannot write {}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The program cannot be started.
    #[error("Cannot start {} (put it beside vmm, or name it in {BALANCER_VARIABLE}, or run with --balancer none)", program.display())]
    Spawn {
        /// What was tried.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It ended.
    #[error("The balancer ended at once ({status}){}", told(log))]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
    },
    /// It does not answer.
    #[error("The balancer did not answer within {} s{}", START_DEADLINE.as_secs(), told(log))]
    Silent {
        /// Its log.
        log: PathBuf,
    },
}

/// The last words of a balancer; without any, what the system says of writing where they would be.
fn told(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let last: String =
        text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().chars().take(300).collect();
    if !last.is_empty() {
        return format!(": {last}");
    }
    match write_to(path) {
        Ok(()) => format!(", and its log {} is empty", path.display()),
        Err(error) => format!(", and its log {} cannot be written: {error}", path.display()),
    }
}

/// Writes an empty line, which says nothing, to learn whether a balancer could have said anything.
fn write_to(path: &Path) -> io::Result<()> {
    log(path)?.write_all(b"\n")
}

/// Makes sure that a balancer answers in this place.
///
/// # Errors
/// When none can be started, or the place is not this user's alone.
pub fn ensure_running(place: &Place) -> Result<(), StartError> {
    let made = place.make_private()?;
    if answers(place) {
        return Ok(());
    }
    let mut child = start(place).inspect_err(|_| {
        if made {
            clear(place)
        }
    })?;
    let deadline = Instant::now() + START_DEADLINE;
    while Instant::now() < deadline {
        if answers(place) {
            // Waits for the child's end, so that no zombie stays of a balancer that ends before this guest.
            std::thread::spawn(move || child.wait());
            return Ok(());
        }
        match child.try_wait() {
            // Two guests that start at once start two balancers; one of them finds the place taken and ends.
            Ok(Some(status)) if status.code() != Some(TAKEN) => {
                return Err(StartError::Ended { status, log: place.log() });
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    Err(StartError::Silent { log: place.log() })
}

/// Starts a balancer, without waiting for it.
///
/// # Errors
/// When the place is not this user's alone or the program cannot be started.
fn start(place: &Place) -> Result<Child, StartError> {
    place.make_private()?;
    let log = log(&place.log()).map_err(|source| StartError::Log { path: place.log(), source })?;
    let program = program();
    let mut command = Command::new(&program);
    command
        .arg("serve")
        .arg("--run-dir")
        .arg(place.dir())
        .arg("--exit-when-idle")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Its own group: Ctrl-C at this guest's terminal must not end the balancer of the others.
        .process_group(0);
    // SAFETY: between fork and exec, only `pthread_sigmask` is called, which is async-signal-safe.
    unsafe { command.pre_exec(unblock_signals) };
    command.spawn().map_err(|source| StartError::Spawn { program, source })
}

/// A `vmm` blocks the signals that end it, and a child inherits what is blocked.
fn unblock_signals() -> io::Result<()> {
    let none = vmm_sys_util::signal::create_sigset(&[])?;
    // SAFETY: a valid pointer to an initialized set.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Leaves nothing behind of a folder that was made for a balancer that cannot be started. What is not empty stays.
fn clear(place: &Place) {
    if fs::metadata(place.log()).is_ok_and(|meta| meta.len() == 0) {
        let _ = fs::remove_file(place.log());
    }
    let _ = fs::remove_dir(place.dir());
}

fn answers(place: &Place) -> bool {
    UnixStream::connect(place.api_socket()).is_ok() && place.guest_socket().exists()
}

/// The balancer's program: named, beside this one, or on the path.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os(BALANCER_VARIABLE) {
        return named.into();
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("balancer")));
    beside.filter(|path| path.exists()).unwrap_or_else(|| "balancer".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_balancer_are_told_or_why_there_are_none() {
        let log = std::env::temp_dir().join(format!("ballast-log-{}", std::process::id()));
        assert!(told(&log).ends_with("is empty"), "{}", told(&log));
        fs::write(&log, "first\nCannot open the journal\n\n").unwrap();
        assert_eq!(told(&log), ": Cannot open the journal");
        fs::remove_file(&log).unwrap();
        let nowhere = told(&log.join("log"));
        assert!(nowhere.contains("cannot be written: No such file"), "{nowhere}");
        // Everything that is written to this device fails as on a full disk.
        let full = write_to(Path::new("/dev/full")).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    }
}
