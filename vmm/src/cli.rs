//! The command line: flags over a spec file.

use crate::exit_code;
use crate::machine::qemu::AttachSpec;
use crate::spec::GuestSpec;
use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};
use protocol::run_dir::RUN_DIR_VARIABLE;
use std::path::PathBuf;

/// Run a guest as a container with a memory limit.
///
/// The guest gets --memory of RAM and may hold as much of it as its container's limit allows; the rest is in a
/// virtio-balloon. The limit can be changed while the guest runs: `balancer set /web/a --max 1G`, or PATCH over REST.
#[derive(Debug, Parser)]
#[command(name = "vmm", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "See --help for examples and exit codes.", after_long_help = after_help())]
pub struct Cli {
    /// Spec file (TOML) with the same keys as the flags; flags win
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub guest: GuestSpec,

    /// Run directory of the balancer [default: /run/ballast for root, else $XDG_RUNTIME_DIR/ballast or
    /// /tmp/ballast-UID]
    #[arg(long, value_name = "DIR", env = RUN_DIR_VARIABLE, global = true)]
    pub run_dir: Option<PathBuf>,

    /// Another task than running a guest
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// Tasks of a `vmm` other than running a guest of its own.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Keep a QEMU guest that another program started under the balancer; `balancer attach` starts this
    ///
    /// It ends when the guest ends or is detached, or by SIGTERM, and restores the guest's balloon and its polling
    /// interval. If it is killed, it does not restore them, but the next one that attaches the same QEMU will.
    Attach(AttachSpec),
}

fn after_help() -> String {
    format!(
        "Examples:
  vmm --kernel vmlinux --initrd initramfs.gz --memory 512M --container /web/a --container-limit 256M
  vmm --kernel vmlinux --disk root.img --cmdline 'console=ttyS0 root=/dev/vda' --container-limit max=2G,low=512M
  vmm --kernel vmlinux --container /web/b --container-limit 512M,max-vcpus=4,max-threads=20
  vmm --engine qemu --kernel vmlinux --initrd initramfs.gz --container /web/d --container-limit 512M
  vmm --kernel vmlinux --initrd initramfs.gz --root sha256:3f1c09aa...,./app.erofs --container /web/c
  vmm --kernel vmlinux --initrd initramfs.gz --container /web/d --wait=60
  vmm --spec guest.toml --name b --cpus 4 --may-charge /tenants

Control port (with --may-charge): a program in the guest writes a line and reads ok, or error WHY:
  charge /tenants/a    pages that the guest touches from now on are charged to that container
  charge -             they are charged to the guest's own container again

Spec file:
  name = \"a\"
  container = \"/web/a\"
  container-limit = \"max=512M,low=128M\"
  memory = \"1G\"
  cpus = 2
  kernel = \"vmlinux\"
  disk = [\"root.img,ro\", \"data.img\"]
  root = [\"sha256:3f1c09aa...\", \"./app.erofs\"]
  merge = true

Engine qemu: the guest runs on a qemu-system-x86_64 (7.2 or newer) that this program starts and ends. The machine is \
q35, so the guest needs the driver virtio_pci. In the guest's command line this program removes pci=off and adds \
no_timer_check; it also adds swiotlb=noforce if there is no swiotlb word, because Linux would reserve 64M of the \
guest. The limit also covers the memory of QEMU itself, about 145M. --merge and images of a managed pool are not \
supported. Frames without host memory are unknown, because QEMU does not report which memory it released.

Environment:
  BALLAST_ENGINE     engine of guests that name none: auto, kvm or qemu
  BALLAST_QEMU       program of the engine qemu [default: qemu-system-x86_64]
  BALLAST_BALANCER   program of the balancer [default: balancer, next to this program or on the path]
  BALLAST_RUN_DIR    run directory of the balancer
  BALLAST_LOG        level of the log on standard error: warn, info or debug [default: warn]

SIGTERM and SIGINT end the guest at once, like a power cut; Ctrl-C does so until the guest runs. A guest whose \
console is on a terminal gets its keys, Ctrl-C too, and Ctrl-A x ends it (Ctrl-A twice is one for the guest).

{}",
        exit_code::HELP
    )
}

impl Cli {
    /// The guest that flags and spec file describe together.
    ///
    /// # Errors
    /// When the spec file cannot be read or has an impossible value.
    pub fn guest(self) -> Result<GuestSpec> {
        let Some(path) = self.spec else { return Ok(self.guest) };
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("Cannot read the spec file {}", path.display()))?;
        let file: GuestSpec = toml::from_str(&text).map_err(|error| {
            anyhow!("The spec file {} is wrong: {}", path.display(), one_line(&error, &text))
        })?;
        Ok(self.guest.or(file))
    }
}

/// An error of the parser in one line, with the line that is wrong.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return error.message().into();
    };
    let index = before.matches('\n').count();
    let line: String = text.lines().nth(index).unwrap_or_default().trim().chars().take(80).collect();
    format!("line {}, {line:?}: {}", index + 1, error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_wrong_spec_file_is_one_line_and_has_the_wrong_line() {
        for (text, words) in [
            ("memory = \"1G\"\nfoo = 1\n", ["line 2", "unknown field `foo`"]),
            ("memory = 5", ["line 1, \"memory = 5\"", "expected a string"]),
            ("cpus = 300", ["line 1", "cpus is 300, but must be between 1 and 16"]),
            ("cpus = 0", ["line 1", "cpus is 0, but must be between 1 and 16"]),
            ("cpus = -1", ["line 1", "cpus is -1, but must be between 1 and 16"]),
            ("kernel = \"\"", ["line 1", "the path is missing"]),
            ("channel = \"\"", ["line 1", "the path is missing"]),
            ("container-limit = \"min=2G,max=1G\"", ["min_bytes is 2147483648", "at most max_bytes"]),
            ("kernel = ", ["line 1", "quoted"]),
            ("memory=\"128M\"\nmemory=\"1G\"", ["line 2", "duplicate key"]),
        ] {
            let error = toml::from_str::<GuestSpec>(text).unwrap_err();
            let line = one_line(&error, text);
            assert!(words.iter().all(|word| line.contains(word)) && !line.contains('\n'), "{text:?}: {line}");
        }
    }
}
