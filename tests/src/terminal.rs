//! A user at the console of a guest: `vmm` on a terminal that script(1) makes.

use crate::host::Host;
use crate::wait::{self, Activity};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

/// A `vmm` on a terminal.
pub struct Terminal {
    script: Child,
    keys: ChildStdin,
    screen: PathBuf,
    activity: Activity,
}

impl Terminal {
    /// Starts `vmm` with these flags, none of which may have an apostrophe.
    ///
    /// # Errors
    /// When script(1) cannot be started.
    pub fn start(host: &Host, flags: &[&str]) -> Result<Self> {
        let (screen, vmm) = (host.path("screen"), host.vmm());
        let mut line = vmm.get_program().to_owned();
        for flag in flags {
            line.push(OsString::from(format!(" '{flag}'")));
        }
        let mut script = Command::new("script")
            .args(["--quiet", "--return", "--flush", "--command"])
            .arg(&line)
            .arg(&screen)
            .envs(vmm.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("start script")?;
        let keys = script.stdin.take().context("stdin is a pipe")?;
        let activity = Activity::of(script.id()).with_file(&screen);
        host.follow(&activity);
        Ok(Self { script, keys, screen, activity })
    }

    /// Types keys.
    ///
    /// # Errors
    /// When nothing reads them any more.
    pub fn type_keys(&mut self, keys: &str) -> Result<()> {
        Ok(self.keys.write_all(keys.as_bytes())?)
    }

    /// Waits until the screen has shown some words so many times.
    ///
    /// # Errors
    /// When it does not, and nothing moves any more; with the screen in the error.
    pub fn wait_for(&self, words: &str, times: usize) -> Result<()> {
        let look = || Ok(String::from_utf8_lossy(&fs::read(&self.screen).unwrap_or_default()).into_owned());
        wait::until(words, &self.activity, look, |text| text.matches(words).count() >= times).map(drop)
    }

    /// Waits until `vmm` has ended, and returns its exit code.
    ///
    /// # Errors
    /// When it does not end, and nothing moves any more.
    pub fn wait_end(&mut self) -> Result<Option<i32>> {
        let script = &mut self.script;
        let status = wait::until("vmm ends", &self.activity, || Ok(script.try_wait()?), Option::is_some)?;
        Ok(status.and_then(|status| status.code()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its terminal goes with it, and that is a hang-up for `vmm`.
        self.script.kill().ok();
        self.script.wait().ok();
    }
}
