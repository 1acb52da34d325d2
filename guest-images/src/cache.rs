//! The user's cache folder: every image is made under another name and renamed into place, so that
//! a crash leaves either the whole image or none.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, FileContext, Result};

/// A folder that holds what can be made again.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$BALLAST_CACHE`, else `$XDG_CACHE_HOME/ballast`, else `$HOME/.cache/ballast`.
    pub fn of_user() -> Result<Cache> {
        let named = |key| env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = named("BALLAST_CACHE")
            .or_else(|| named("XDG_CACHE_HOME").map(|folder| folder.join("ballast")))
            .or_else(|| named("HOME").map(|folder| folder.join(".cache/ballast")))
            .ok_or(Error::NoCacheFolder)?;
        Cache::at(root)
    }

    /// The cache in the folder `root`, which is made when missing.
    pub fn at(root: impl Into<PathBuf>) -> Result<Cache> {
        let root = root.into();
        fs::create_dir_all(&root).file("create", &root)?;
        let root = root.canonicalize().file("find", &root)?;
        Ok(Cache { root })
    }

    /// The path of an entry.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Waits until no other process builds in this cache; the lock ends with the value (or the process).
    pub fn lock(&self) -> Result<CacheLock> {
        let path = self.path("lock");
        let file = File::create(&path).file("create", &path)?;
        file.lock().file("lock", &path)?;
        Ok(CacheLock { _file: file })
    }
}

/// Exclusive use of a cache.
#[derive(Debug)]
pub struct CacheLock {
    _file: File,
}

/// A file or folder in the making: [`Staged::commit`] renames it into place, dropping it removes it.
#[derive(Debug)]
pub(crate) struct Staged {
    path: PathBuf,
    wanted: PathBuf,
}

impl Staged {
    /// A place next to `wanted` for making it. Remains of an interrupted run are removed: the caller
    /// holds the cache's lock.
    pub fn next_to(wanted: &Path) -> Result<Staged> {
        let mut name = wanted.file_name().unwrap_or_default().to_os_string();
        name.push(".part");
        let path = wanted.with_file_name(name);
        if let Some(parent) = wanted.parent() {
            fs::create_dir_all(parent).file("create", parent)?;
        }
        remove(&path)?;
        Ok(Staged { path, wanted: wanted.to_path_buf() })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the finished entry into place, replacing an older one.
    pub fn commit(self) -> Result<()> {
        sync_all(&self.path).file("write", &self.path)?;
        if self.path.is_dir() {
            remove(&self.wanted)?;
        }
        fs::rename(&self.path, &self.wanted).file("create", &self.wanted)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After `commit` nothing is there any more. A failure here leaves a `.part` that the next run removes.
        let _ = remove(&self.path);
    }
}

/// Writes a whole file, or leaves what was there.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let staged = Staged::next_to(path)?;
    let mut file = File::create(staged.path()).file("create", staged.path())?;
    file.write_all(content).file("write", staged.path())?;
    staged.commit()
}

/// Removes a file or a folder with its content; one that is not there is not an error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).file("remove", path),
        _ => Ok(()),
    }
}

/// Flushes a file, or every file below a folder, so that the rename never overtakes the content.
fn sync_all(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            sync_all(&entry?.path())?;
        }
    }
    File::open(path)?.sync_all()
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256_file(path: &Path) -> Result<String> {
    let file = File::open(path).file("open", path)?;
    sha256_read(file).map(|hash| hex(&hash)).file("read", path)
}

/// SHA-256 of all that can be read.
pub(crate) fn sha256_read(mut content: impl Read) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// SHA-256 over several inputs, each preceded by its length so that no two lists collide.
pub(crate) fn sha256_of<'a>(inputs: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update((input.len() as u64).to_le_bytes());
        hash.update(input);
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "cache_test.rs"]
mod tests;
