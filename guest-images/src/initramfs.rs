//! The first file system of a guest and of the outer machine: busybox, modules, `workload`, an init script.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cache::{self, Cache, Staged};
use crate::cpio::Cpio;
use crate::error::{FileContext, Result};

/// The program inside the guest, built with this crate.
pub(crate) const WORKLOAD: &[u8] = include_bytes!(env!("WORKLOAD_PROGRAM"));

/// Counts up when the same parts are to be put together differently.
const RECIPE: &[u8] = b"1";
const FOLDERS: [&str; 12] =
    ["bin", "dev", "etc", "lib", "mnt", "proc", "root", "run", "sys", "tmp", "payload", "library"];
/// What every machine loads.
const MODULES: &str = "lib/modules";
/// What a guest loads when its root is made of images, and removes otherwise.
const ROOT_MODULES: &str = "lib/modules/root";
/// The commands of busybox that have a name in `/bin`.
const APPLETS: [&str; 56] = [
    "ash", "awk", "basename", "blockdev", "cat", "chmod", "cp", "cut", "date", "dd", "df", "dirname",
    "dmesg", "du", "echo", "env", "expr", "find", "free", "grep", "head", "hexdump", "hostname", "id",
    "ifconfig", "insmod", "ip", "kill", "ln", "ls", "lsmod", "mkdir", "mknod", "mount", "mv", "od", "ps",
    "readlink", "rm", "rmmod", "sed", "seq", "setsid", "sh", "sleep", "sort", "stty", "sync", "tail", "tar",
    "test", "timeout", "touch", "true", "umount", "uname",
];

/// What an initramfs is made of.
pub(crate) struct Parts<'a> {
    pub busybox: &'a [u8],
    /// In load order.
    pub modules: &'a [(String, Vec<u8>)],
    /// In load order, after those: loaded by a guest whose root is made of images.
    pub root_modules: &'a [(String, Vec<u8>)],
    /// The script that runs as the first process.
    pub init: &'a str,
}

/// The initramfs of these parts, made unless the cache has it.
pub(crate) fn ensure(cache: &Cache, name: &str, parts: &Parts<'_>) -> Result<PathBuf> {
    let mut inputs = vec![RECIPE, parts.busybox, parts.init.as_bytes(), WORKLOAD];
    for modules in [parts.modules, parts.root_modules] {
        inputs.push(MODULES.as_bytes());
        inputs.extend(modules.iter().flat_map(|(name, elf)| [name.as_bytes(), elf]));
    }
    let key = cache::sha256_of(inputs);
    let path = cache.path("initramfs").join(format!("{name}-{}.cpio", &key[..16]));
    if !path.exists() {
        let staged = Staged::next_to(&path)?;
        write(staged.path(), parts).file("write", staged.path())?;
        staged.commit()?;
    }
    Ok(path)
}

/// The archive stays uncompressed: unpacking costs an emulated guest more than copying costs its host.
fn write(path: &Path, parts: &Parts<'_>) -> io::Result<()> {
    let mut cpio = Cpio::new(io::BufWriter::new(fs::File::create(path)?));
    for folder in FOLDERS {
        cpio.folder(folder)?;
    }
    // The kernel opens it for the first process before anything is mounted.
    cpio.char_device("dev/console", 5, 1)?;
    cpio.file("init", 0o755, parts.init.as_bytes())?;
    cpio.file("bin/busybox", 0o755, parts.busybox)?;
    for applet in APPLETS {
        cpio.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    cpio.file("bin/workload", 0o755, WORKLOAD)?;
    for command in ["poweroff", "reboot"] {
        cpio.symlink(&format!("bin/{command}"), "workload")?;
    }
    add_modules(&mut cpio, MODULES, parts.modules)?;
    add_modules(&mut cpio, ROOT_MODULES, parts.root_modules)?;
    cpio.finish()?.flush()
}

/// A folder of modules, with their names in load order.
fn add_modules(cpio: &mut Cpio<impl Write>, folder: &str, modules: &[(String, Vec<u8>)]) -> io::Result<()> {
    cpio.folder(folder)?;
    let mut order = String::new();
    for (name, elf) in modules {
        cpio.file(&format!("{folder}/{name}.ko"), 0o644, elf)?;
        order += &format!("{name}\n");
    }
    cpio.file(&format!("{folder}/order"), 0o644, order.as_bytes())
}
