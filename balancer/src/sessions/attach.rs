//! Guests on a QEMU that was started by someone else: each is served by a helper of its own, `vmm attach`, which
//! registers as every `vmm` does. A monitor that is hostile or hangs affects only that helper, and a balancer that is
//! killed leaves it running.

use crate::objects::GuestObject;
use crate::state::{Balancer, StateError};
use protocol::run_dir::RunDir;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Environment variable that names the helper's program.
pub const VMM_VARIABLE: &str = "BALLAST_VMM";
/// How long a helper may take until the guest is registered: it bounds each of its own waits by less.
const ATTACH_DEADLINE: Duration = Duration::from_secs(12);
/// How long it may take to leave a guest as it was found.
const DETACH_DEADLINE: Duration = Duration::from_secs(10);
/// How long the driver of a guest may take to report something until the guest is shown as one without: it is asked
/// once a second.
const DRIVER_DEADLINE: Duration = Duration::from_secs(3);
/// What is shown of a helper's error text, bytes.
const ERROR_BYTES_MAX: u64 = 4096;

/// A guest to be attached.
#[derive(Debug, Clone)]
pub struct Attach {
    /// Socket of its QMP monitor.
    pub qmp: PathBuf,
    /// Its name here.
    pub name: String,
    /// The container, as the helper's `--container` takes it.
    pub container: Option<String>,
    /// Limits, as the helper's `--container-limit` takes them.
    pub limit: Option<String>,
}

/// Attaches a guest that runs on a QEMU which was started by someone else.
///
/// # Errors
/// When it cannot be attached, with the helper's words. It is left as it was.
pub async fn attach(balancer: &Balancer, attach: Attach) -> Result<GuestObject, StateError> {
    if let Ok(guest) = balancer.guest(&attach.name) {
        let why = format!("There is a guest {:?} already: its vmm is process {}", guest.name, guest.pid);
        return Err(StateError::Attach { qmp: attach.qmp, why });
    }
    let (name, qmp) = (attach.name.clone(), attach.qmp.clone());
    let refused = |why: String| StateError::Attach { qmp: qmp.clone(), why };
    let run_dir =
        balancer.run_dir().cloned().ok_or_else(|| refused("this balancer has no run directory".into()))?;
    let started = tokio::task::spawn_blocking(move || start(&run_dir, &attach)).await;
    started.map_err(|error| refused(error.to_string()))?.map_err(refused)?;
    // Whether it can be made to release memory shows once its driver reported something.
    let (registered, mut events) = (Instant::now(), balancer.watch_events());
    loop {
        let guest = balancer.guest(&name)?;
        let is_known = !guest.has_balloon || guest.balloon.driver_ready;
        let left = DRIVER_DEADLINE.saturating_sub(registered.elapsed());
        if is_known || tokio::time::timeout(left, events.changed()).await.is_err() {
            return Ok(guest);
        }
    }
}

/// Leaves a guest as it was found, and forgets it. Returns what its helper reported about that.
///
/// # Errors
/// When there is no such guest, it was not attached, or its helper does not answer in time.
pub async fn detach(balancer: &Balancer, name: &str) -> Result<String, StateError> {
    let (guest, since) = balancer.ask_to_detach(name)?;
    let asked = Instant::now();
    let mut events = balancer.watch_events();
    while balancer.has_guest(guest) {
        let left = DETACH_DEADLINE.saturating_sub(asked.elapsed());
        if tokio::time::timeout(left, events.changed()).await.is_err() {
            let waited_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
            return Err(StateError::DetachDeadline { name: name.to_owned(), waited_ms });
        }
    }
    let gone = balancer.events_since(since).into_iter();
    let mut gone = gone.filter(|event| event.kind == "guest_gone" && event.guest.as_deref() == Some(name));
    Ok(gone.next_back().map_or_else(|| "It is gone".into(), |event| event.detail))
}

/// Starts a helper and waits until its guest is registered.
fn start(run_dir: &RunDir, attach: &Attach) -> Result<(), String> {
    let program = program();
    let cannot = |error: std::io::Error| format!("Cannot start {}: {error}", program.display());
    // A file without a name: what the helper writes later takes no place on a disk for ever, and does not block the
    // helper.
    let mut errors = tempfile::tempfile().map_err(cannot)?;
    let mut command = Command::new(&program);
    command.arg("attach");
    // Flag and value in one: a value that begins with a dash is not a flag.
    let flag = |flag: &str, value: &OsStr| {
        let mut argument = OsString::from(flag);
        argument.push(value);
        argument
    };
    command.args([
        flag("--qmp=", attach.qmp.as_os_str()),
        flag("--name=", attach.name.as_ref()),
        flag("--run-dir=", run_dir.dir().as_os_str()),
    ]);
    for (name, value) in [("--container=", &attach.container), ("--container-limit=", &attach.limit)] {
        command.args(value.as_ref().map(|value| flag(name, value.as_ref())));
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors.try_clone().map_err(cannot)?)
        // It outlives this process, and Ctrl-C at its terminal.
        .process_group(0);
    let mut child = command.spawn().map_err(cannot)?;
    let stdout = child.stdout.take().expect("it is piped");
    let (sender, ready) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout.take(64)).read_line(&mut line);
        // The receiver is gone when it took too long.
        let _ = sender.send(read.is_ok_and(|count| count > 0));
    });
    match ready.recv_timeout(ATTACH_DEADLINE) {
        Ok(true) => {
            // So that it does not stay as a zombie.
            std::thread::spawn(move || child.wait());
            Ok(())
        }
        Ok(false) => {
            let _ = child.wait();
            Err(last_error(&mut errors))
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            end(child);
            Err(format!("Its helper did not register it within {} s", ATTACH_DEADLINE.as_secs()))
        }
    }
}

/// Ends a helper that takes too long. It leaves the guest as it found it, if it can.
fn end(mut child: Child) {
    host::process::terminate(&child).ok();
    std::thread::spawn(move || {
        std::thread::sleep(DETACH_DEADLINE);
        let _ = child.kill();
        child.wait()
    });
}

/// The last error of a helper; or what its command line refused, which comes before the advice to read its help.
fn last_error(errors: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = errors.rewind().and_then(|()| errors.take(ERROR_BYTES_MAX).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let refused = text.lines().find_map(|line| line.strip_prefix("error: "));
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    match (read, refused.or(last.strip_prefix("vmm: ")).unwrap_or(last)) {
        (Ok(_), last) if !last.is_empty() => last.into(),
        _ => "Its helper ended without an error text".into(),
    }
}

/// The program that is named, or the one next to this program, or the one on the path.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os(VMM_VARIABLE) {
        return named.into();
    }
    let sibling = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("vmm")));
    sibling.filter(|path| path.exists()).unwrap_or_else(|| "vmm".into())
}

/// A name for a guest whose socket is here: `/run/legacy/db.qmp` is `db`. Empty where no character of it can be in a
/// name.
#[must_use]
pub fn name_of(qmp: &Path) -> String {
    let stem = qmp.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let plain: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    plain.trim_start_matches('-').chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_names_its_guest() {
        let names = ["/run/db.qmp", "monitor", "/x/a b.sock", "/", "/x/ü x.qmp", "--help.qmp", "/x/ü.qmp"]
            .map(|path| name_of(Path::new(path)));
        assert_eq!(names, ["db", "monitor", "a-b", "", "x", "help", ""]);
    }

    #[test]
    fn the_last_line_of_a_helpers_errors_is_shown() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(last_error(&mut file), "Its helper ended without an error text");
        writeln!(file, " WARN something\nvmm: QEMU closed its monitor\n").unwrap();
        assert_eq!(last_error(&mut file), "QEMU closed its monitor");
        // What clap says of a wrong argument ends with where to read more.
        let mut file = tempfile::tempfile().unwrap();
        writeln!(
            file,
            "error: invalid value 'x/y' for '--name <NAME>': no name\n\nFor more information, try '--help'."
        )
        .unwrap();
        assert_eq!(last_error(&mut file), "invalid value 'x/y' for '--name <NAME>': no name");
    }
}
