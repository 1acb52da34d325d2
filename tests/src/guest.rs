//! A guest: its `vmm` process, its console, the end it came to.

use crate::engine::Engine;
use crate::host::Host;
use crate::wait;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::time::Duration;

/// A running guest, killed when it is dropped.
#[derive(Debug)]
pub struct Guest {
    /// Its name.
    pub name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    console: PathBuf,
    errors: PathBuf,
    /// What runs it.
    pub engine: Engine,
}

impl Guest {
    /// Starts `vmm` with these flags.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(host: &Host, name: &str, flags: &[&str]) -> Result<Self> {
        Self::start_with(host, name, flags, &[])
    }

    /// The same, with paths in variables of its environment.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(host: &Host, name: &str, flags: &[&str], variables: &[(&str, &Path)]) -> Result<Self> {
        let (console, errors) = (host.path(&format!("{name}.console")), host.path(&format!("{name}.errors")));
        let mut child = host
            .vmm()
            .args(["--name", name])
            .args(flags)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(fs::File::create(&console)?)
            .stderr(fs::File::create(&errors)?)
            .spawn()
            .context("start vmm")?;
        let stdin = child.stdin.take();
        let named = flags.iter().position(|flag| *flag == "--engine").and_then(|at| flags.get(at + 1));
        let engine = if named == Some(&"qemu") { Engine::Qemu } else { Engine::current() };
        Ok(Self { name: name.into(), child, stdin, console, errors, engine })
    }

    /// What the guest printed so far.
    #[must_use]
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// What `vmm` complained about so far.
    #[must_use]
    pub fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Process id of its `vmm`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the console shows a text.
    ///
    /// # Errors
    /// When it does not in time, or the guest ended without it; with the console in the error.
    pub fn wait_for(&mut self, text: &str, deadline: Duration) -> Result<()> {
        let end = std::time::Instant::now() + deadline;
        loop {
            if self.console().contains(text) {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() && self.console().contains(text) {
                return Ok(());
            }
            if ended.is_some() || std::time::Instant::now() >= end {
                bail!(
                    "{}: no {text:?} within {deadline:?} (ended: {ended:?})\nconsole:\n{}\nvmm: {}",
                    self.name,
                    self.console(),
                    self.errors()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Types on the guest's serial console.
    ///
    /// # Errors
    /// When `vmm` does not read any more.
    pub fn type_keys(&mut self, keys: &str) -> Result<()> {
        Ok(self.stdin.as_mut().context("stdin is open")?.write_all(keys.as_bytes())?)
    }

    /// Waits until `vmm` has ended.
    ///
    /// # Errors
    /// When it does not in time; with the console in the error.
    pub fn wait_end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        let status = wait::until("the guest ends", deadline, || Ok(child.try_wait()?), Option::is_some)
            .with_context(|| {
                format!("{}: console:\n{}\nvmm: {}", self.name, self.console(), self.errors())
            })?;
        status.context("it ended")
    }

    /// Sends a signal to `vmm`.
    pub fn signal(&self, number: i32) {
        // SAFETY: a child that was not waited for yet cannot have given its id to another process.
        unsafe { libc::kill(self.child.id().cast_signed(), number) };
    }

    /// Memory that `vmm` holds by the kernel's count, guest RAM included, and the QEMU that it started; bytes.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        Ok(self.pages()?.0 * 4096)
    }

    /// The QEMU that its `vmm` started.
    #[must_use]
    pub fn machine_pid(&self) -> Option<u32> {
        let own = self.child.id();
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .find(|pid| parent(*pid) == Some(own))
    }

    /// Resident pages of its processes, and those of them that are of files.
    fn pages(&self) -> Result<(u64, u64)> {
        let machine = if self.engine == Engine::Qemu { self.machine_pid() } else { None };
        let mut sums = (0, 0);
        for pid in [Some(self.child.id()), machine].into_iter().flatten() {
            let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
            let mut fields = statm.split_whitespace().skip(1).map(str::parse::<u64>);
            let mut next = || fields.next().context("a count of pages");
            sums.0 += next()??;
            sums.1 += next()??;
        }
        Ok(sums)
    }
}

/// The process that started this one (proc_pid_stat(5), field 4).
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

impl Guest {
    /// Anonymous memory of its processes by the kernel's count: guest RAM, and at most [`Engine::own_frames_max`] beside it. Frames.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn anonymous_frames(&self) -> Result<u64> {
        let (resident, file) = self.pages()?;
        Ok(resident.saturating_sub(file))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
