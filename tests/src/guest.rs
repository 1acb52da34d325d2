//! A guest: its `vmm` process, its console, and how it ended.

use crate::engine::Engine;
use crate::host::Host;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use wait::{Activity, Progress};

/// A running guest, killed when it is dropped.
#[derive(Debug)]
pub struct Guest {
    /// Its name.
    pub name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    console: PathBuf,
    errors: PathBuf,
    activity: Activity,
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
        let activity = Activity::of(child.id()).with_file(&console).with_file(&errors);
        host.follow(&activity);
        Ok(Self { name: name.into(), child, stdin, console, errors, activity, engine })
    }

    /// What the guest printed so far.
    #[must_use]
    pub fn console(&self) -> String {
        read(&self.console)
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
    /// When the guest ended without it, or nothing moves any more; with the console in the error.
    pub fn wait_for(&mut self, text: &str) -> Result<()> {
        let what = format!("{text:?} on the console of {}", self.name);
        let (child, console, activity) = (&mut self.child, &self.console, &self.activity);
        let look = || {
            // In this order: what it printed before it ended is on the console.
            let ended = child.try_wait()?;
            Ok((read(console).contains(text), ended))
        };
        let seen = wait::until(&what, activity, look, |(shown, ended)| *shown || ended.is_some());
        match seen.with_context(|| self.output())? {
            (true, _) => Ok(()),
            (false, ended) => bail!("{what}: it ended without it ({ended:?})\n{}", self.output()),
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
    /// When it does not, and nothing moves any more; with the console in the error.
    pub fn wait_end(&mut self) -> Result<ExitStatus> {
        let (child, activity) = (&mut self.child, &self.activity);
        let status = wait::until("the guest ends", activity, || Ok(child.try_wait()?), Option::is_some);
        status.with_context(|| self.output())?.context("it ended")
    }

    /// What the guest and its `vmm` do.
    #[must_use]
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// What the guest printed, and what its `vmm` complained about.
    fn output(&self) -> String {
        format!("{}: console:\n{}\nvmm: {}", self.name, self.console(), self.errors())
    }

    /// Sends a signal to `vmm`, which was not waited for yet.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(self.child.id(), signal)
    }

    /// True if no thread of `vmm` runs or is ready to.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn is_asleep(&self) -> Result<bool> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let stat = fs::read_to_string(thread?.path().join("stat"))?;
            if stat.rsplit_once(") ").context("a name")?.1.starts_with('R') {
                return Ok(false);
            }
        }
        Ok(true)
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

fn read(console: &Path) -> String {
    String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned()
}

/// Sends a signal to a process that the caller knows to be there.
///
/// # Errors
/// When there is no such process.
pub fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid.cast_signed()).context("a process id")?;
    rustix::process::kill_process(pid, signal).with_context(|| format!("send {signal:?} to {pid:?}"))
}

/// The process that started this one (proc_pid_stat(5), field 4).
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

impl Guest {
    /// Anonymous memory of its processes by the kernel's count: guest RAM, and at most [`Engine::own_frames_max`] more.
    /// Frames.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn anonymous_frames(&self) -> Result<u64> {
        let (resident, file) = self.pages()?;
        Ok(resident.saturating_sub(file))
    }
}

impl Progress for Guest {
    fn count(&self) -> u64 {
        self.activity.count()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
