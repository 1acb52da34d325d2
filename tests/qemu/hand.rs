//! A QEMU as a person or a script starts it, with a monitor for others.

use anyhow::{Context, Result, ensure};
use e2e::Host;
use e2e::wait::{self, Activity};
use guest_images::{ImageSet, KernelSeries};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A QEMU without a `vmm`. It ends with this value.
pub struct Hand {
    child: Child,
    pub qmp: PathBuf,
}

impl Hand {
    /// Starts a Linux guest of 512 MiB that holds `load_mib`, with these additional devices, and waits until it is up.
    pub fn start(host: &Host, program: Option<&Path>, load_mib: u64, devices: &[&str]) -> Result<Self> {
        let images = ImageSet::of_user()?.ensure(KernelSeries::V6_1)?;
        let (qmp, console) = (host.path("hand.qmp"), host.path("hand.console"));
        let child = Command::new(program.unwrap_or(Path::new("qemu-system-x86_64")))
            .args(["-nodefaults", "-display", "none", "-M", "q35", "-m", "512"])
            .args(["-accel", "tcg,tb-size=64", "-cpu", "max,la57=off"])
            .arg("-kernel")
            .arg(&images.vmlinux)
            .arg("-initrd")
            .arg(&images.initramfs)
            .arg("-append")
            .arg(format!("console=ttyS0 quiet no_timer_check ballast.load={load_mib}M"))
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", qmp.display()))
            .args(devices)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start QEMU by hand")?;
        let activity = Activity::of(child.id()).with_file(&console);
        host.follow(&activity);
        let hand = Self { child, qmp };
        let said = || Ok(std::fs::read_to_string(&console).unwrap_or_default());
        wait::until("the guest is up", &activity, said, |text| text.contains("BALLAST-GUEST ready"))?;
        Ok(hand)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True while it runs.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Asks its monitor, which must be free.
    pub fn ask(&self, command: &str, arguments: &Value) -> Result<Value> {
        let stream = UnixStream::connect(&self.qmp)?;
        stream.set_read_timeout(Some(wait::QUIET_MAX))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        lines.next().context("a greeting")??;
        let mut answer = Value::Null;
        for (command, arguments) in [("qmp_capabilities", &json!({})), (command, arguments)] {
            writeln!(&stream, "{}", json!({ "execute": command, "arguments": arguments }))?;
            loop {
                answer = serde_json::from_str(&lines.next().context("an answer")??)?;
                if answer["event"].is_null() {
                    break;
                }
            }
        }
        ensure!(answer["error"].is_null(), "{command}: {answer}");
        Ok(answer["return"].clone())
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
