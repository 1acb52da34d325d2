//! Starting the user's balancer when there is none, as tmux starts its server. It ends with its last guest.

use protocol::place::Place;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a balancer may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Environment variable that names the balancer's program.
pub const BALANCER_VARIABLE: &str = "BALLAST_BALANCER";

/// Why no balancer runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder or the log cannot be made.
    #[error("Cannot make {}", path.display())]
    Place {
        /// Which.
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
    /// It ended or does not answer.
    #[error("The balancer did not start; its log is {}", log.display())]
    Silent {
        /// Its log.
        log: PathBuf,
    },
}

/// Makes sure that a balancer answers in this place.
///
/// # Errors
/// When none can be started.
pub fn ensure_running(place: &Place) -> Result<(), StartError> {
    if answers(place) {
        return Ok(());
    }
    let cannot = |path: PathBuf| move |source| StartError::Place { path, source };
    fs::create_dir_all(place.dir()).map_err(cannot(place.dir().into()))?;
    let log = OpenOptions::new().create(true).append(true).open(place.log()).map_err(cannot(place.log()))?;
    let program = program();
    let mut child = Command::new(&program)
        .arg("serve")
        .arg("--run-dir")
        .arg(place.dir())
        .arg("--exit-when-idle")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Its own group: Ctrl-C at this guest's terminal must not end the balancer of the others.
        .process_group(0)
        .spawn()
        .map_err(|source| StartError::Spawn { program, source })?;
    let deadline = Instant::now() + START_DEADLINE;
    while Instant::now() < deadline {
        if answers(place) {
            return Ok(());
        }
        // Two guests that start at once start two balancers; one of them finds the place taken and ends.
        let _ = child.try_wait();
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(StartError::Silent { log: place.log() })
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
