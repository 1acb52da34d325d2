//! One QEMU process: started, read line by line, ended on every path.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{FileContext, Result};
use crate::tool;

/// The plainest CPU model with SVM. `max` emulates more, is slower, and hung now and then.
const CPU: &str = "EPYC,+svm";
/// `no_timer_check`: the kernel otherwise counts timer ticks for 10 ms at boot, and ends up without a timer when
/// a busy host did not let the emulator run in that time.
const CMDLINE: &str = "console=ttyS0 panic=-1 quiet no_timer_check";
/// Lines kept for error messages.
const TAIL_LINES: usize = 20;
/// How long QEMU may take to end after its output has ended.
const END_WITHIN: Duration = Duration::from_secs(10);

/// What to start.
pub(super) struct Machine<'a> {
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    pub memory_mib: u32,
    pub cpus: u32,
    /// Raw images, and whether each is read-only.
    pub disks: &'a [(&'a Path, bool)],
    /// Gets what the kernel prints.
    pub console: &'a Path,
}

/// A running QEMU; dropping it ends it.
pub(super) struct Qemu {
    child: Child,
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
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
            .args(["-serial", &format!("file:{}", option(machine.console)), "-serial", "stdio"]);
        for (number, (path, read_only)) in machine.disks.iter().enumerate() {
            let read_only = if *read_only { "on" } else { "off" };
            let path = option(path);
            command
                .arg("-drive")
                .arg(format!("file={path},if=none,id=d{number},format=raw,cache=unsafe,readonly={read_only}"))
                .args(["-device", &format!("nvme,serial=d{number},drive=d{number}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // SAFETY: between fork and exec, only `prctl` is called, which is async-signal-safe.
        unsafe { command.pre_exec(end_with_parent) };
        let mut child = command.spawn().map_err(|source| tool::missing(&command, source))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = mpsc::channel();
        let reader = thread::spawn(move || read_lines(stdout, &sender));
        Ok(Qemu { child, lines, reader: Some(reader) })
    }

    /// Gives each line to `on_line` until QEMU ends; `None` when `end` came first.
    pub fn lines(&mut self, end: Instant, on_line: &mut dyn FnMut(&str)) -> Result<Option<ExitStatus>> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => on_line(&line),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let end = Instant::now() + END_WITHIN;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().file("wait for", Path::new("qemu-system-x86_64"))? {
                return Ok(Some(status));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(None)
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
fn end_with_parent() -> io::Result<()> {
    // SAFETY: a constant request about the calling process; no memory is involved.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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
