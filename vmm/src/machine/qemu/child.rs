//! The QEMU that a `vmm` starts: a child that ends when the `vmm` ends, whatever the reason.

use super::arguments::{Accelerator, arguments};
use super::images::SharedImages;
use crate::spec::GuestSpec;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Environment variable that names QEMU's program.
pub const QEMU_VARIABLE: &str = "BALLAST_QEMU";
/// The program if the variable names none.
const QEMU: &str = "qemu-system-x86_64";
/// How long a QEMU whose monitor closed may take to end by itself.
const END_DEADLINE: Duration = Duration::from_secs(2);
/// Longest line of its standard error that is kept, characters.
const LINE_CHARS_MAX: usize = 400;

/// Descriptors that the child inherits.
#[derive(Debug, Clone)]
pub(super) struct Descriptors {
    /// The monitor's stream.
    pub monitor: RawFd,
    /// A socket that listens.
    pub channel: Option<RawFd>,
    /// The control port's stream.
    pub port: Option<RawFd>,
    /// Files of images.
    pub images: Vec<RawFd>,
}

impl Descriptors {
    fn all(&self) -> impl Iterator<Item = RawFd> + '_ {
        [Some(self.monitor), self.channel, self.port].into_iter().flatten().chain(self.images.iter().copied())
    }
}

/// A QEMU of this process. Dropping this kills it.
#[derive(Debug)]
pub(super) struct Qemu {
    child: Child,
    last_words: Arc<Mutex<String>>,
}

impl Qemu {
    /// Starts it, and returns it with the number of its virtio devices. To be called by the thread that lives as long
    /// as the process: the kernel kills the child when that thread ends.
    pub(super) fn start(
        spec: &GuestSpec,
        name: &str,
        accelerator: Accelerator,
        descriptors: Descriptors,
        images: &SharedImages,
    ) -> io::Result<(Self, u32)> {
        let (words, devices) = arguments(spec, name, accelerator, &descriptors, images);
        let mut command = Command::new(program());
        command.args(words).stderr(Stdio::piped());
        // SAFETY: getpid has no preconditions.
        let parent = unsafe { libc::getpid() };
        // SAFETY: between fork and exec, only system calls are made, all of them async-signal-safe.
        unsafe { command.pre_exec(move || prepare(parent, &descriptors)) };
        let mut child = command.spawn()?;
        let last_words = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = child.stderr.take() {
            let words = Arc::clone(&last_words);
            std::thread::Builder::new().name("qemu-stderr".into()).spawn(move || listen(stderr, &words))?;
        }
        Ok((Self { child, last_words }, devices))
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Readable once it ended (pidfd_open(2), Linux 5.3); `None` if the kernel does not have this call.
    pub(super) fn end_descriptor(&self) -> Option<OwnedFd> {
        // SAFETY: a plain system call; the result is checked.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid(), 0) };
        let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: a fresh descriptor without another owner.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The last line of its standard error; empty if there was none.
    pub(super) fn last_words(&self) -> String {
        self.last_words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its exit status. It is killed if it does not end within a moment.
    pub(super) fn wait(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + END_DEADLINE;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        self.child.wait().ok()
    }

    /// Ends it at once, as pulling the plug would.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program to start.
pub(super) fn program() -> PathBuf {
    std::env::var_os(QEMU_VARIABLE).filter(|name| !name.is_empty()).map_or_else(|| QEMU.into(), PathBuf::from)
}

/// An exit status as text, with the last line of standard error.
pub(super) fn ended(status: ExitStatus, last_words: &str) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("QEMU ended with exit code {code}"),
        (None, Some(signal)) => format!("QEMU was ended by signal {signal}"),
        (None, None) => "QEMU ended".into(),
    };
    if last_words.is_empty() { how } else { format!("{how}: {last_words}") }
}

/// The child runs this between fork and exec.
///
/// It switches huge pages off: QEMU releases guest memory by pages of 4 KiB, which does not free the huge page around
/// them, and the kernel would fill a huge page again around frames that are in the balloon. The signals that end a
/// `vmm` are blocked in the child already and stay blocked: Ctrl-C reaches both, and the `vmm` decides.
fn prepare(parent: libc::pid_t, descriptors: &Descriptors) -> io::Result<()> {
    let checked = |result: libc::c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: plain system calls with plain arguments.
    unsafe {
        checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        if libc::getppid() != parent {
            // The parent ended before the line above.
            return Err(io::ErrorKind::Interrupted.into());
        }
        checked(libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0))?;
        for descriptor in descriptors.all() {
            checked(libc::fcntl(descriptor, libc::F_SETFD, 0))?;
        }
    }
    Ok(())
}

/// Logs QEMU's standard error, and keeps the last line of it.
fn listen(stderr: ChildStderr, last_words: &Mutex<String>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        // Bounded by one read of the pipe; a line that never ends is cut.
        match io::Read::take(&mut reader, 4096).read_until(b'\n', &mut line) {
            Ok(count) if count > 0 => {}
            _ => return,
        }
        let text: String = String::from_utf8_lossy(&line).trim().chars().take(LINE_CHARS_MAX).collect();
        if !text.is_empty() {
            tracing::warn!("{text}");
            *last_words.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
    }
}
