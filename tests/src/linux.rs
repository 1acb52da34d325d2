//! A Linux guest with its agent.

use crate::guest::Guest;
use crate::host::Host;
use anyhow::{Context, Result};
use guest_images::Agent;
use std::path::PathBuf;

/// Kernels and initramfs of the guests.
#[derive(Debug, Clone)]
pub struct Images {
    /// A folder that holds `6.1/vmlinux`, `6.1/bzimage`, `6.1/initramfs` and the same of other series.
    pub dir: PathBuf,
    /// A store of images, with their digests in a folder `names`, where a test needs it.
    pub library: PathBuf,
    /// The series that guests run unless a test names one.
    pub default: String,
    /// Seed of the stress test.
    pub seed: u64,
}

impl Images {
    /// The same with another seed.
    #[must_use]
    pub fn seeded(&self, seed: u64) -> Self {
        Self { seed, ..self.clone() }
    }

    /// The digest of a layer.
    ///
    /// # Errors
    /// When the library has none of this name.
    pub fn digest(&self, layer: &str) -> Result<String> {
        let path = self.library.join("names").join(layer);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// The images of a root with these layers, lowest first, as `--root` wants them.
    ///
    /// # Errors
    /// When the library lacks one.
    pub fn root(&self, layers: &[&str]) -> Result<String> {
        Ok(layers.iter().map(|layer| self.digest(layer)).collect::<Result<Vec<_>>>()?.join(","))
    }

    fn path(&self, series: &str, file: &str) -> String {
        self.dir.join(series).join(file).display().to_string()
    }
}

/// A Linux guest.
#[derive(Debug)]
pub struct LinuxGuest {
    /// Its `vmm`.
    pub guest: Guest,
    channel: PathBuf,
}

/// What differs from a guest of 512 MiB with one CPU.
#[derive(Debug, Clone)]
pub struct Linux<'a> {
    /// Kernel series; the default one if `None`.
    pub series: Option<&'a str>,
    /// `vmlinux` or `bzimage`.
    pub kernel: &'a str,
    /// RAM.
    pub memory: &'a str,
    /// Virtual CPUs.
    pub cpus: &'a str,
    /// Words for the kernel command line.
    pub cmdline: &'a str,
    /// More flags.
    pub flags: &'a [&'a str],
}

impl Default for Linux<'_> {
    fn default() -> Self {
        Self { series: None, kernel: "vmlinux", memory: "512M", cpus: "1", cmdline: "", flags: &[] }
    }
}

impl Linux<'_> {
    /// Starts the guest and waits for user space.
    ///
    /// # Errors
    /// When it does not come up; with its console in the error.
    pub fn start(&self, host: &Host, images: &Images, name: &str) -> Result<LinuxGuest> {
        let channel = host.path(&format!("{name}.channel"));
        let series = self.series.unwrap_or(&images.default);
        let cmdline = format!("console=ttyS0 quiet reboot=k panic=-1 pci=off {}", self.cmdline);
        let (kernel, initrd) = (images.path(series, self.kernel), images.path(series, "initramfs"));
        let channel_text = channel.display().to_string();
        let mut flags =
            vec!["--kernel", &kernel, "--initrd", &initrd, "--memory", self.memory, "--cpus", self.cpus];
        flags.extend(["--cmdline", &cmdline, "--channel", &channel_text]);
        flags.extend(self.flags);
        let mut guest = host.guest(name, &flags)?;
        guest.wait_for("BALLAST-GUEST ready")?;
        Ok(LinuxGuest { guest, channel })
    }
}

impl LinuxGuest {
    /// The agent in the guest.
    ///
    /// # Errors
    /// When it does not answer; with the console in the error.
    pub fn agent(&self) -> Result<Agent> {
        Agent::connect(&self.channel, self.guest.activity().clone())
            .with_context(|| format!("console:\n{}", self.guest.console()))
    }
}
