//! One QEMU process: started, read line by line, ended on every path.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use wait::{Activity, Counted, Limits, Missed, Progress, Waiting};

use crate::error::{FileContext, Result};
use crate::tool;

/// The plainest CPU model with SVM. `max` emulates more, is slower, and hung now and then.
const CPU: &str = "EPYC,+svm";
/// `no_timer_check`: the kernel otherwise counts timer ticks for 10 ms at boot, and ends up without a timer when
/// a busy host did not let the emulator run in that time. `nohz=off highres=off`: a timer that fires by itself again
/// and again. One that is armed for each event was lost now and then while a guest ran, and the machine slept for ever.
const CMDLINE: &str = "console=ttyS0 panic=-1 quiet no_timer_check nohz=off highres=off";
/// Lines kept for error messages.
const TAIL_LINES: usize = 20;
/// A machine that lives prints to its console every few seconds (`init/outer.sh`). One that is silent for this long
/// hangs; a busy host alone does not keep it silent that long.
const SILENT_MAX: Duration = Duration::from_secs(90);
/// How long one wait for a line may take, before progress is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What the monitor is asked about a machine that hangs.
const QUESTIONS: &str = "info registers\ninfo lapic\ninfo pic\n";
/// How long the monitor may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What to start.
pub(super) struct Machine<'a> {
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    pub memory_mib: u32,
    pub cpus: u32,
    /// Raw images, and what the machine may do with each.
    pub disks: &'a [(&'a Path, Access)],
    /// Gets what the kernel prints.
    pub console: &'a Path,
    /// Socket of QEMU's monitor.
    pub monitor: &'a Path,
}

/// What a machine may do with a disk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    /// Read it.
    Read,
    /// Write to its file.
    Write,
    /// Write to it, and the file stays as it is: what was written ends with the machine.
    Scratch,
}

/// How a machine came to its end.
pub(super) enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// Its time passed, or it had ended its output and did not end.
    Deadline,
    /// It hangs: how long it printed nothing, and its state by the monitor.
    Silent(Duration, String),
}

/// A running QEMU; dropping it ends it.
pub(super) struct Qemu {
    child: Child,
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
    console: PathBuf,
    monitor: PathBuf,
}

impl Qemu {
    pub fn start(machine: &Machine<'_>) -> Result<Qemu> {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                CPU,
                "-nodefaults",
                "-no-reboot",
                "-display",
                "none",
            ])
            .args(["-smp", &machine.cpus.to_string(), "-m", &format!("{}M", machine.memory_mib)])
            .arg("-kernel")
            .arg(machine.kernel)
            .arg("-initrd")
            .arg(machine.initramfs)
            .args(["-append", CMDLINE])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
            .args(["-monitor", &format!("unix:{},server=on,wait=off", option(machine.monitor))])
            .args(["-serial", &format!("file:{}", option(machine.console)), "-serial", "stdio"]);
        for (number, (path, access)) in machine.disks.iter().enumerate() {
            let mode = match access {
                Access::Read => "readonly=on",
                Access::Write => "readonly=off",
                Access::Scratch => "snapshot=on",
            };
            let path = option(path);
            command
                .arg("-drive")
                .arg(format!("file={path},if=none,id=d{number},format=raw,cache=unsafe,{mode}"))
                .args(["-device", &format!("nvme,serial=d{number},drive=d{number}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        end_with_this_process(&mut command);
        let mut child = command.spawn().map_err(|source| tool::missing(&command, source))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = mpsc::channel();
        let reader = thread::spawn(move || read_lines(stdout, &sender));
        let (console, monitor) = (machine.console.to_path_buf(), machine.monitor.to_path_buf());
        Ok(Qemu { child, lines, reader: Some(reader), console, monitor })
    }

    /// Gives each line to `on_line` until QEMU ends, `total` has passed or the machine hangs.
    pub fn lines(&mut self, total: Duration, on_line: &mut dyn FnMut(&str)) -> Result<Ended> {
        // Not its CPU time: a machine that hangs may spin.
        let console = Activity::default().with_file(&self.console);
        let mut lines = 0;
        let mut waiting = Waiting::begin(Limits { quiet: SILENT_MAX, total }, &console);
        loop {
            match self.lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => {
                    lines += 1;
                    on_line(&line);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            match waiting.go_on(&Counted(|| console.count() + lines)) {
                Ok(_) => {}
                Err(Missed::Total(_)) => return Ok(Ended::Deadline),
                Err(Missed::Quiet(quiet, _)) => {
                    return Ok(Ended::Silent(quiet, self.examine().unwrap_or_default()));
                }
            }
        }
        let qemu = Activity::of(self.child.id());
        let mut waiting = Waiting::begin(Limits::default(), &qemu);
        loop {
            if let Some(status) = self.child.try_wait().file("wait for", Path::new("qemu-system-x86_64"))? {
                return Ok(Ended::Exited(status));
            }
            match waiting.go_on(&qemu) {
                Ok(pause) => thread::sleep(pause),
                Err(_) => return Ok(Ended::Deadline),
            }
        }
    }

    /// The machine's state by the monitor.
    fn examine(&self) -> io::Result<String> {
        let mut monitor = UnixStream::connect(&self.monitor)?;
        monitor.set_read_timeout(Some(ANSWER_WITHIN))?;
        monitor.write_all(QUESTIONS.as_bytes())?;
        let mut answer = Vec::new();
        // It goes on listening: what has come by the timeout is all there is.
        let _ = monitor.read_to_end(&mut answer);
        Ok(String::from_utf8_lossy(&answer).replace('\r', ""))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            // The pipe is closed now, so the thread ends; its panic would have been printed.
            let _ = reader.join();
        }
    }
}

/// Ctrl-C, a panic or a kill of this process: the outer machine never outlives it.
#[expect(unsafe_code, reason = "the standard library has no other way to do something between fork and exec")]
fn end_with_this_process(command: &mut Command) {
    let die = || Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec, only `prctl` is called, which is async-signal-safe.
    unsafe { command.pre_exec(die) };
}

fn read_lines(stdout: ChildStdout, sender: &mpsc::Sender<String>) {
    let mut stdout = BufReader::new(stdout);
    let mut line = Vec::new();
    while let Ok(1..) = stdout.read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_string();
        line.clear();
        if sender.send(text).is_err() {
            return;
        }
    }
}

/// A path inside an option of QEMU, where a comma is doubled.
fn option(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The last lines of a machine's output.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    pub fn push(&mut self, line: &str) {
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.into());
    }

    /// These lines, and the last ones of the kernel's console: why a machine died stands there.
    pub fn with_console(mut self, console: &Path) -> String {
        let text = fs::read(console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let mut out = Vec::from(std::mem::take(&mut self.lines));
        out.push("console:".into());
        out.extend(lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| line.to_string()));
        out.join("\n")
    }
}
