//! A run directory that is held by one balancer.

use protocol::private::PrivateError;
use protocol::run_dir::RunDir;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a run directory cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another balancer lives there.
    #[error("Another balancer serves {dir} already: process {pid}")]
    Taken {
        /// The folder.
        dir: PathBuf,
        /// Its process, as it wrote it down.
        pid: String,
    },
    /// The folder is not this user's alone.
    #[error(transparent)]
    NotPrivate(#[from] PrivateError),
    /// The folder, or a file in it, is not the one that this balancer uses.
    #[error(
        "{path} was removed or replaced while this balancer ran, so it ends: clients and guests find the balancer that \
         is there now, or start one"
    )]
    Lost {
        /// What is not there.
        path: PathBuf,
    },
    /// A file that is not a socket is where a socket has to be.
    #[error("{0} exists and is not a socket: move it away")]
    NoSocket(PathBuf),
    /// The system refused.
    #[error("Cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A run directory and the lock on it, which lasts as long as this.
///
/// The folder may vanish while a balancer runs: at a logout (`/run/user/UID`), or by a cleaner of `/tmp`. Then another
/// balancer can lock the folder that takes its place. So each file is known by its inode, and not by its name alone.
#[derive(Debug)]
pub struct Owned {
    run_dir: RunDir,
    /// Open as long as this: the kernel drops the lock with the process, however that ends.
    lock: File,
    /// The journal, once it is open.
    journal: Option<Inode>,
    /// The sockets that were bound.
    sockets: Vec<(PathBuf, Inode)>,
}

/// A file, whatever its name is: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode(u64, u64);

impl Inode {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }

    /// The file that has this name; `None` if there is none, or none that can be seen.
    fn at(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().as_ref().map(Self::of)
    }
}

impl Owned {
    /// Makes the folder, locks it, and removes sockets that a killed balancer left.
    ///
    /// # Errors
    /// When another balancer lives there or the folder cannot be used.
    pub fn take(run_dir: &RunDir) -> Result<Self, RunDirError> {
        run_dir.make_private()?;
        let lock = lock(run_dir)?;
        let owned = Self { run_dir: run_dir.clone(), lock, journal: None, sockets: vec![] };
        owned.remove_stale()?;
        Ok(owned)
    }

    /// Removes sockets that no process serves: the lock is ours.
    fn remove_stale(&self) -> Result<(), RunDirError> {
        for socket in [self.run_dir.api_socket(), self.run_dir.guest_socket()] {
            match fs::symlink_metadata(&socket) {
                Ok(meta) if meta.file_type().is_socket() => {
                    fs::remove_file(&socket)
                        .map_err(|source| failed("remove the stale socket", &socket, source))?;
                }
                Ok(_) => return Err(RunDirError::NoSocket(socket)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed("inspect", &socket, source)),
            }
        }
        Ok(())
    }

    /// The journal is open: from now on it has to stay where it is.
    pub fn has_journal(&mut self) {
        self.journal = fs::metadata(self.run_dir.journal()).ok().as_ref().map(Inode::of);
    }

    /// Binds a socket in the folder with `bind`.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn bind<T>(
        &mut self,
        path: PathBuf,
        bind: impl FnOnce(&Path) -> io::Result<T>,
    ) -> Result<T, RunDirError> {
        let bound = bind(&path).map_err(|source| failed("bind", &path, source))?;
        self.sockets.retain(|(known, _)| *known != path);
        let inode = Inode::at(&path).ok_or_else(|| RunDirError::Lost { path: path.clone() })?;
        self.sockets.push((path, inode));
        Ok(bound)
    }

    /// Makes sure that the folder is still this balancer's. True if its sockets are gone and have to be bound again.
    ///
    /// # Errors
    /// When the lock or the journal is another file by now, or none.
    pub fn check(&self) -> Result<bool, RunDirError> {
        let locked = self.lock.metadata().ok().as_ref().map(Inode::of);
        let journal = self.run_dir.journal();
        let files = [
            (self.run_dir.lock(), locked, Inode::at(&self.run_dir.lock())),
            (journal.clone(), self.journal, fs::metadata(&journal).ok().as_ref().map(Inode::of)),
        ];
        if let Some((path, ..)) = files.into_iter().find(|(_, own, found)| own.is_some() && own != found) {
            let gone = !self.run_dir.dir().exists();
            return Err(RunDirError::Lost { path: if gone { self.run_dir.dir().into() } else { path } });
        }
        if self.sockets.iter().all(|(path, own)| Inode::at(path) == Some(*own)) {
            return Ok(false);
        }
        self.remove_stale()?;
        Ok(true)
    }

    /// Removes the sockets that this balancer bound: a client that connects then gets an error at once instead of
    /// waiting. Sockets of another balancer are not removed.
    pub fn clear(&self) {
        for (socket, own) in &self.sockets {
            if Inode::at(socket) != Some(*own) {
                tracing::warn!(socket = %socket.display(), "this balancer's socket is gone already");
            } else if let Err(error) = fs::remove_file(socket) {
                tracing::warn!(socket = %socket.display(), %error, "cannot remove");
            }
        }
    }
}

fn lock(run_dir: &RunDir) -> Result<File, RunDirError> {
    let path = run_dir.lock();
    let io = |doing| {
        let path = path.clone();
        move |source| failed(doing, &path, source)
    };
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(io("open the lock"))?;
    if let Err(error) = file.try_lock() {
        if let TryLockError::Error(error) = error {
            return Err(io("lock")(error));
        }
        let mut pid = String::new();
        file.read_to_string(&mut pid).map_err(io("read"))?;
        let pid = if pid.trim().is_empty() { "not known yet".into() } else { pid.trim().to_owned() };
        return Err(RunDirError::Taken { dir: run_dir.dir().into(), pid });
    }
    let write = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(io("write"))?;
    Ok(file)
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> RunDirError {
    RunDirError::Io { doing, path: path.into(), source }
}
