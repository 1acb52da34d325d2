//! Where Linux guests run: on this host where its processor virtualizes, elsewhere in the lab, which is a machine with
//! KVM that QEMU emulates. Both run the program `inside`, and its lines come back one by one.

use crate::engine::{ENGINE_VARIABLE, Engine};
use crate::host::program;
use crate::{kvm, library, scenarios};
use anyhow::{Context, Result};
use guest_images::outer::OuterResult;
use guest_images::{Guest, ImageSet, KernelSeries, OuterMachine};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The series that guests run unless a scenario names one.
pub const GUEST: KernelSeries = KernelSeries::V6_1;
/// The series of the outer machine. By `lab boots` with QEMU 10: 50 of 50 boots under 6.12 reached user space on a busy
/// host; under 6.1 about one in twenty-five ended in a triple fault.
pub const OUTER: KernelSeries = KernelSeries::V6_12;
/// Where the outer machine has the images.
const LAB_IMAGES: &str = "/payload/images";
/// Memory of the outer machine unless a scenario asks for other, MiB.
const LAB_MEMORY_MIB: u32 = 6144;
/// CPUs of the outer machine. One: with two, guests whose balloon worked, or the machine itself, died of triple faults
/// now and then (QEMU 10); the cause was not found. With one: 16 of 16 scenarios and 50 of 50 boots, as fast.
const LAB_CPUS: u32 = 1;

/// A ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// This host's KVM.
    Native,
    /// The lab, with this kernel in its outer machine.
    Lab(KernelSeries),
    /// This host, whatever its processor can: guests on QEMU.
    Qemu,
}

impl Ground {
    /// The one that this machine has.
    #[must_use]
    pub fn of_this_machine() -> Self {
        if kvm::virtualizes() { Self::Native } else { Self::Lab(OUTER) }
    }

    /// Runs `inside` with these words and gives each line that it prints to `on_line`. Returns its exit code.
    ///
    /// # Errors
    /// When images, programs or the lab are missing or break, or the deadline passes.
    pub fn run(self, words: &[&str], deadline: Duration, on_line: &mut dyn FnMut(&str)) -> Result<i32> {
        match self {
            Self::Native => native(Engine::Kvm, words, on_line),
            Self::Qemu => native(Engine::Qemu, words, on_line),
            Self::Lab(kernel) => lab(kernel, words, deadline, on_line),
        }
    }
}

impl std::fmt::Display for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Native => write!(f, "on this host's KVM"),
            Self::Qemu => write!(f, "on QEMU, on this host"),
            Self::Lab(kernel) => write!(
                f,
                "in the lab (Linux {kernel} with KVM, emulated by QEMU, since this processor does not virtualize)"
            ),
        }
    }
}

fn files(guest: &Guest) -> [(&'static str, &Path); 3] {
    [("vmlinux", &guest.vmlinux), ("bzimage", &guest.bzimage), ("initramfs", &guest.initramfs)]
}

/// `inside` bounds each of its waits itself; a deadline over all of them is only needed where a machine can hang.
fn native(engine: Engine, words: &[&str], on_line: &mut dyn FnMut(&str)) -> Result<i32> {
    let set = ImageSet::of_user()?;
    let dir = tempfile::Builder::new().prefix("ballast-images-").tempdir()?;
    for series in KernelSeries::ALL {
        let guest = set.ensure(series)?;
        let folder = dir.path().join(series.to_string());
        std::fs::create_dir_all(&folder)?;
        for (file, path) in files(&guest) {
            std::os::unix::fs::symlink(path, folder.join(file))?;
        }
    }
    let library = dir.path().join("library");
    std::fs::create_dir_all(&library)?;
    for (path, name) in library::ensure(&set, words)? {
        let inside = library.join(name);
        std::fs::create_dir_all(inside.parent().context("a file of the library")?)?;
        std::os::unix::fs::symlink(path, inside)?;
    }
    let mut child = Command::new(program("inside"))
        .arg("--images")
        .arg(dir.path())
        .arg("--library")
        .arg(&library)
        .args(["--series", &GUEST.to_string()])
        .args(words)
        .env(ENGINE_VARIABLE, engine.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("Cannot start `inside`: run cargo build --workspace --release")?;
    for line in BufReader::new(child.stdout.take().context("stdout is piped")?).lines() {
        on_line(&line?);
    }
    Ok(child.wait()?.code().unwrap_or(128))
}

fn lab(
    kernel: KernelSeries,
    words: &[&str],
    deadline: Duration,
    on_line: &mut dyn FnMut(&str),
) -> Result<i32> {
    let set = ImageSet::of_user()?;
    let mut payload: Vec<(PathBuf, String)> =
        ["vmm", "balancer", "inside"].iter().map(|name| (program(name), format!("bin/{name}"))).collect();
    for series in KernelSeries::ALL {
        let guest = set.ensure(series)?;
        for (file, path) in files(&guest) {
            payload.push((path.into(), format!("images/{series}/{file}")));
        }
    }
    let library = library::ensure(&set, words)?;
    let memory_mib = words.iter().find_map(|word| scenarios::lab_memory_mib(word)).unwrap_or(LAB_MEMORY_MIB);
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    let artifacts = tempfile::Builder::new().prefix("ballast-lab-").tempdir()?;
    let machine = OuterMachine {
        kernel,
        memory_mib,
        cpus: LAB_CPUS,
        payload,
        library,
        command: format!("inside --emulated --images {LAB_IMAGES} --series {GUEST} {}", words.join(" ")),
        deadline,
        artifacts_dir: artifacts.path().join("files"),
    };
    let OuterResult { exit_code, .. } = machine.run(&set, on_line)?;
    Ok(exit_code)
}

/// A word of a shell's command line.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_word_as_it_is() {
        let word = "what the host's $KERNEL \\ \"finds\" `is` it";
        let output =
            Command::new("sh").args(["-c", &format!("printf %s {}", quoted(word))]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
    }
}
