//! Starting the user's balancer if there is none, as tmux starts its server. It ends with its last guest.

use protocol::private::PrivateError;
use protocol::run_dir::RunDir;
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
/// Exit code of a balancer that finds another one in its run directory (`balancer --help`).
const TAKEN: i32 = 4;

/// Environment variable that names the balancer's program.
pub const BALANCER_VARIABLE: &str = "BALLAST_BALANCER";

/// Why no balancer runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be made, or another user has access to it.
    #[error(transparent)]
    NotPrivate(#[from] PrivateError),
    /// The log cannot be written.
    #[error("Cannot write {}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The program cannot be started.
    #[error(
        "Cannot start {} (put it next to vmm, or name it in {BALANCER_VARIABLE}, or run with --balancer none)",
        program.display()
    )]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The balancer ended.
    #[error("The balancer ended at once ({status}){}", last_line(log))]
    Ended {
        /// Its exit status.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
    },
    /// The balancer does not answer.
    #[error("The balancer did not answer within {} s{}", START_DEADLINE.as_secs(), last_line(log))]
    Silent {
        /// Its log.
        log: PathBuf,
    },
}

/// The last line of a balancer's log as the end of a sentence; if it is empty, whether the log can be written.
fn last_line(path: &Path) -> String {
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

/// Writes an empty line, to learn whether a balancer could have written its log.
fn write_to(path: &Path) -> io::Result<()> {
    log(path)?.write_all(b"\n")
}

/// Makes sure that a balancer answers in this run directory.
///
/// # Errors
/// When none can be started, or another user has access to the folder.
pub fn ensure_running(run_dir: &RunDir) -> Result<(), StartError> {
    let made = run_dir.make_private()?;
    if answers(run_dir) {
        return Ok(());
    }
    let mut child = start(run_dir).inspect_err(|_| {
        if made {
            clear(run_dir)
        }
    })?;
    let deadline = Instant::now() + START_DEADLINE;
    while Instant::now() < deadline {
        if answers(run_dir) {
            // Waits for the child's end, so that a balancer that ends before this guest does not stay as a zombie.
            std::thread::spawn(move || child.wait());
            return Ok(());
        }
        match child.try_wait() {
            // Two guests that start at once start two balancers; one of them finds the other one and ends.
            Ok(Some(status)) if status.code() != Some(TAKEN) => {
                return Err(StartError::Ended { status, log: run_dir.log() });
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    Err(StartError::Silent { log: run_dir.log() })
}

/// Starts a balancer, without waiting for it.
///
/// # Errors
/// When another user has access to the folder, or the program cannot be started.
fn start(run_dir: &RunDir) -> Result<Child, StartError> {
    run_dir.make_private()?;
    let log = log(&run_dir.log()).map_err(|source| StartError::Log { path: run_dir.log(), source })?;
    let program = program();
    let mut command = Command::new(&program);
    command
        .arg("serve")
        .arg("--run-dir")
        .arg(run_dir.dir())
        .arg("--exit-when-idle")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Its own group: Ctrl-C at this guest's terminal must not end the balancer of other guests.
        .process_group(0);
    host::process::unblock_signals(&mut command);
    command.spawn().map_err(|source| StartError::Spawn { program, source })
}

fn log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Removes the folder that was made for a balancer that cannot be started, and its empty log. Other files stay.
fn clear(run_dir: &RunDir) {
    if fs::metadata(run_dir.log()).is_ok_and(|meta| meta.len() == 0) {
        let _ = fs::remove_file(run_dir.log());
    }
    let _ = fs::remove_dir(run_dir.dir());
}

fn answers(run_dir: &RunDir) -> bool {
    UnixStream::connect(run_dir.api_socket()).is_ok() && run_dir.guest_socket().exists()
}

/// The balancer's program: the one that was named, the one next to this program, or the one on the path.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os(BALANCER_VARIABLE) {
        return named.into();
    }
    let neighbour = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("balancer")));
    neighbour.filter(|path| path.exists()).unwrap_or_else(|| "balancer".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_last_line_of_the_log_or_why_there_is_none() {
        let log = std::env::temp_dir().join(format!("ballast-log-{}", std::process::id()));
        assert!(last_line(&log).ends_with("is empty"), "{}", last_line(&log));
        fs::write(&log, "first\nCannot open the journal\n\n").unwrap();
        assert_eq!(last_line(&log), ": Cannot open the journal");
        fs::remove_file(&log).unwrap();
        let nowhere = last_line(&log.join("log"));
        assert!(nowhere.contains("cannot be written: No such file"), "{nowhere}");
        // Every write to this device fails as on a full disk.
        let full = write_to(Path::new("/dev/full")).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    }
}
