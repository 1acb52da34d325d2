//! The command line: flags over a spec file.

use crate::exit_code;
use crate::qemu::AttachSpec;
use crate::spec::GuestSpec;
use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};
use protocol::place::RUN_DIR_VARIABLE;
use std::path::PathBuf;

/// Run a guest as a container with a memory limit.
///
/// The guest gets --memory of RAM and may hold as much of it as its container's limit allows; a virtio-balloon takes the
/// rest. The limit can be changed while the guest runs: `balancer set /web/a --max 1G`, or PATCH over REST.
#[derive(Debug, Parser)]
#[command(name = "vmm", version, args_conflicts_with_subcommands = true, after_long_help = after_help(), after_help = "See --help for examples and exit codes.")]
pub struct Cli {
    /// Spec file (TOML) with the same keys as the flags; flags win
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub guest: GuestSpec,

    /// Folder of the balancer [default: /run/ballast for root, else $XDG_RUNTIME_DIR/ballast or /tmp/ballast-UID]
    #[arg(long, value_name = "DIR", env = RUN_DIR_VARIABLE, global = true)]
    pub run_dir: Option<PathBuf>,

    /// Something else than running a guest
    #[command(subcommand)]
    pub other: Option<Other>,
}

/// What a `vmm` does beside running a guest of its own.
#[derive(Debug, Subcommand)]
pub enum Other {
    /// Keep a QEMU guest that somebody else started under the balancer; `balancer attach` starts this
    ///
    /// Ends when the guest does, when it is detached, or by SIGTERM; the guest's balloon and its polling interval are left as they
    /// were found. One that is killed leaves them; the next one that attaches the same QEMU knows how they were.
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

Control port (with --may-charge): a program in the guest writes a line and reads the answer, ok or error WHY:
  charge /tenants/a    what the guest touches from now on is charged to that container
  charge -             to the guest's own again

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

Engine qemu: the guest runs on a qemu-system-x86_64 (7.2 or newer) that this program starts and ends, machine q35, so the guest needs the
driver virtio_pci; the word pci=off is taken out of its command line, no_timer_check put in, and swiotlb=noforce where it says nothing of swiotlb, or
Linux sets 64M of the guest aside. A limit also covers what QEMU takes beside guest RAM, about 145M. It has no --merge, and no images of a managed pool. Frames without host memory are unknown, since QEMU does not tell what it gave back.

Environment:
  BALLAST_ENGINE     engine of guests that name none: auto, kvm or qemu
  BALLAST_QEMU       program of the engine qemu [default: qemu-system-x86_64]
  BALLAST_BALANCER   program that is started where no balancer runs [default: balancer, beside this program or on the path]
  BALLAST_RUN_DIR    folder of the balancer
  BALLAST_LOG        what is told on standard error: warn, info, debug [default: warn]

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
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("Cannot read the spec file {}", path.display()))?;
        let file: GuestSpec = toml::from_str(&text).map_err(|error| {
            anyhow!("The spec file {} is wrong: {}", path.display(), one_line(&error, &text))
        })?;
        Ok(self.guest.or(file))
    }
}

/// A refusal of the parser in one line, with the line that it refuses.
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
    fn a_wrong_spec_file_is_told_in_one_line_with_the_line_that_is_wrong() {
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
            let told = one_line(&error, text);
            assert!(words.iter().all(|word| told.contains(word)) && !told.contains('\n'), "{text:?}: {told}");
        }
    }
}
