//! The files that the outer machine gets, as an ext4 image made without root and without mounting.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Cache, Staged};
use crate::error::{Error, FileContext, Result};
use crate::scratch::Scratch;
use crate::tool;

/// Where mke2fs is when the user's PATH has no administration folders.
const MKE2FS: [&str; 2] = ["/usr/sbin/mke2fs", "/sbin/mke2fs"];
/// ext4's own need: inode tables and bitmaps.
const OVERHEAD_BYTES: u64 = 8 << 20;
/// Images kept; each build of the product makes a new one, a library stays.
const KEPT: usize = 4;

/// The image of these files, made unless the cache has one of the same content; with free space of `free` times what is
/// on it.
pub(super) fn ensure(cache: &Cache, files: &[(PathBuf, String)], free: u64) -> Result<PathBuf> {
    check(files)?;
    let _lock = cache.lock()?;
    let mut inputs = vec![free.to_string()];
    for (path, inside) in files {
        inputs.extend([inside.clone(), cache::sha256_file(path)?, format!("{:o}", mode(path)?)]);
    }
    let key = cache::sha256_of(inputs.iter().map(String::as_bytes));
    let folder = cache.path("payload");
    let wanted = folder.join(format!("{}.ext4", &key[..16]));
    if wanted.exists() {
        // Marks it as used, for `forget_old`.
        File::open(&wanted)
            .and_then(|file| file.set_modified(std::time::SystemTime::now()))
            .file("touch", &wanted)?;
        return Ok(wanted);
    }
    let tree = Scratch::new("payload");
    for (path, inside) in files {
        let to = tree.path().join(inside);
        let parent = to.parent().expect("a path below the scratch folder");
        fs::create_dir_all(parent).file("create", parent)?;
        fs::copy(path, &to).file("copy", path)?;
    }
    let staged = Staged::next_to(&wanted)?;
    make_ext4(staged.path(), tree.path(), free)?;
    staged.commit()?;
    forget_old(&folder)?;
    Ok(wanted)
}

/// The command's text on a disk of its own, padded with newlines to whole sectors: it changes with every run
/// and must not make a new payload.
pub(super) fn command_disk(folder: &Path, command: &str) -> Result<PathBuf> {
    let path = folder.join("command");
    let mut text = command.as_bytes().to_vec();
    text.push(b'\n');
    text.resize(text.len().next_multiple_of(4096), b'\n');
    fs::write(&path, text).file("write", &path)?;
    Ok(path)
}

/// Paths inside must be relative and stay below the payload's folder.
pub(super) fn check(files: &[(PathBuf, String)]) -> Result<()> {
    for (_, inside) in files {
        let inner = |part| matches!(part, Component::Normal(_));
        if inside.is_empty() || !Path::new(inside).components().all(inner) {
            let problem = "is not a relative path inside the payload".into();
            return Err(Error::Package { package: format!("payload {inside:?}"), problem });
        }
    }
    Ok(())
}

fn mode(path: &Path) -> Result<u32> {
    Ok(path.metadata().file("read", path)?.mode())
}

fn make_ext4(image: &Path, tree: &Path, free: u64) -> Result<()> {
    let bytes = tree_bytes(tree)? * (1 + free);
    let image_bytes = bytes + bytes / 16 + OVERHEAD_BYTES;
    // No journal: the file system is read, or lives as long as its machine.
    mke2fs(image, image_bytes, &["-O".as_ref(), "^has_journal".as_ref(), "-d".as_ref(), tree.as_ref()])
}

/// Makes an empty ext4 file system of this length: a disk for a guest.
pub fn ext4(image: &Path, bytes: u64) -> Result<()> {
    mke2fs(image, bytes, &[])
}

fn mke2fs(image: &Path, bytes: u64, more: &[&OsStr]) -> Result<()> {
    File::create(image).and_then(|file| file.set_len(bytes)).file("create", image)?;
    let program = MKE2FS.into_iter().find(|path| Path::new(path).exists()).unwrap_or("mke2fs");
    let mut command = Command::new(program);
    command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"]).args(more);
    tool::output(command.arg(image)).map(|_| ())
}

fn tree_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).file("read", folder)? {
        let entry = entry.file("read", folder)?;
        let metadata = entry.metadata().file("read", &entry.path())?;
        bytes += match metadata.is_dir() {
            true => 4096 + tree_bytes(&entry.path())?,
            false => metadata.len().next_multiple_of(4096),
        };
    }
    Ok(bytes)
}

/// Removes all but the images used last.
fn forget_old(folder: &Path) -> Result<()> {
    let mut images = Vec::new();
    for entry in fs::read_dir(folder).file("read", folder)? {
        let entry = entry.file("read", folder)?;
        let used = entry.metadata().and_then(|metadata| metadata.modified()).file("read", &entry.path())?;
        images.push((used, entry.path()));
    }
    images.sort();
    let surplus = images.len().saturating_sub(KEPT);
    // A running machine has its image open: removing the name takes nothing from it.
    images[..surplus].iter().try_for_each(|(_, path)| cache::remove(path))
}
