//! A guest: its `vmm` process, its console, the end it came to.

use crate::host::Host;
use crate::wait;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
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
}

impl Guest {
    /// Starts `vmm` with these flags.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(host: &Host, name: &str, flags: &[&str]) -> Result<Self> {
        let (console, errors) = (host.path(&format!("{name}.console")), host.path(&format!("{name}.errors")));
        let mut child = host
            .vmm()
            .args(["--name", name])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(fs::File::create(&console)?)
            .stderr(fs::File::create(&errors)?)
            .spawn()
            .context("start vmm")?;
        let stdin = child.stdin.take();
        Ok(Self { name: name.into(), child, stdin, console, errors })
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

    /// Memory that `vmm` holds by the kernel's count, guest RAM included, bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages: u64 = statm.split_whitespace().nth(1).context("resident pages")?.parse()?;
        Ok(pages * 4096)
    }
}

/// Frames that a `vmm` holds beside guest RAM at most: its heap, stacks and tables.
pub const VMM_FRAMES_MAX: u64 = 1024;

impl Guest {
    /// Anonymous memory of `vmm` by the kernel's count: guest RAM, and at most [`VMM_FRAMES_MAX`] beside it. Frames.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn anonymous_frames(&self) -> Result<u64> {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages = |nth| -> Result<u64> {
            Ok(statm.split_whitespace().nth(nth).context("a count of pages")?.parse()?)
        };
        Ok(pages(1)?.saturating_sub(pages(2)?))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
