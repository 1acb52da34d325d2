//! The QEMU that a `vmm` starts: a child that ends when the `vmm` ends, whatever the reason.

use super::arguments::{Accelerator, arguments};
use super::images::SharedImages;
use crate::spec::GuestSpec;
use protocol::sync::MutexExt;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
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
        // The signals that end a `vmm` are blocked in the child already and stay blocked: Ctrl-C reaches both, and the
        // `vmm` decides.
        host::process::bind_machine(&mut command, descriptors.all().collect());
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
        host::process::end_of(self.pid()).ok()
    }

    /// The last line of its standard error; empty if there was none.
    pub(super) fn last_words(&self) -> String {
        self.last_words.acquire().clone()
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
            *last_words.acquire() = text;
        }
    }
}
