//! The command line: flags over a spec file.

use crate::exit_code;
use crate::spec::{CPUS_MAX, GuestSpec};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use protocol::place::RUN_DIR_VARIABLE;
use std::path::PathBuf;

/// Run a guest as a container with a memory limit.
///
/// The guest gets --memory of RAM and may hold as much of it as its container's limit allows; a virtio-balloon takes the
/// rest. The limit can be changed while the guest runs: `balancer set /web/a --max 1G`, or PATCH over REST.
#[derive(Debug, Parser)]
#[command(name = "vmm", version, after_long_help = after_help(), after_help = "See --help for examples and exit codes.")]
pub struct Cli {
    /// Spec file (TOML) with the same keys as the flags; flags win
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub guest: GuestSpec,

    /// Folder of the balancer [default: /run/ballast, or $XDG_RUNTIME_DIR/ballast]
    #[arg(long, value_name = "DIR", env = RUN_DIR_VARIABLE)]
    pub run_dir: Option<PathBuf>,
}

fn after_help() -> String {
    format!(
        "Examples:
  vmm --kernel vmlinux --initrd initramfs.gz --memory 512M --container /web/a --container-limit 256M
  vmm --kernel vmlinux --disk root.img --cmdline 'console=ttyS0 root=/dev/vda' --container-limit max=2G,low=512M
  vmm --spec guest.toml --name b --cpus 4

Spec file:
  name = \"a\"
  container = \"/web/a\"
  container-limit = \"max=512M,low=128M\"
  memory = \"1G\"
  cpus = 2
  kernel = \"vmlinux\"
  disk = [\"root.img,ro\", \"data.img\"]

Ctrl-C and SIGTERM end the guest at once, as pulling the plug would.

{}",
        exit_code::HELP
    )
}

impl Cli {
    /// The guest that flags and spec file describe together.
    ///
    /// # Errors
    /// When the spec file cannot be read or says something impossible.
    pub fn guest(self) -> Result<GuestSpec> {
        let Some(path) = self.spec else { return Ok(self.guest) };
        let text = std::fs::read_to_string(&path).with_context(|| format!("Cannot read the spec file {}", path.display()))?;
        let file: GuestSpec = toml::from_str(&text).with_context(|| format!("The spec file {} is wrong", path.display()))?;
        if let Some(cpus) = file.cpus {
            ensure!((1..=CPUS_MAX).contains(&cpus), "cpus is {cpus}, but must be between 1 and {CPUS_MAX}");
        }
        Ok(self.guest.or(file))
    }
}
