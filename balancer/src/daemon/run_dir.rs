//! A run directory that is held by one balancer.

use protocol::private::PrivateError;
use protocol::run_dir::RunDir;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
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
#[derive(Debug)]
pub struct Owned {
    run_dir: RunDir,
    /// Never read again, but open: the kernel drops the lock with the process, however that ends.
    _lock: File,
}

impl Owned {
    /// Makes the folder, locks it, and removes sockets that a killed balancer left.
    ///
    /// # Errors
    /// When another balancer lives there or the folder cannot be used.
    pub fn take(run_dir: &RunDir) -> Result<Self, RunDirError> {
        run_dir.make_private()?;
        let lock = lock(run_dir)?;
        let owned = Self { run_dir: run_dir.clone(), _lock: lock };
        for socket in [run_dir.api_socket(), run_dir.guest_socket()] {
            match fs::symlink_metadata(&socket) {
                // The lock is ours, so no process listens there any more.
                Ok(meta) if meta.file_type().is_socket() => {
                    fs::remove_file(&socket)
                        .map_err(|source| failed("remove the stale socket", &socket, source))?;
                }
                Ok(_) => return Err(RunDirError::NoSocket(socket)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed("inspect", &socket, source)),
            }
        }
        Ok(owned)
    }

    /// Removes the sockets, so that a client sees at once that there is no balancer.
    pub fn clear(&self) {
        for socket in [self.run_dir.api_socket(), self.run_dir.guest_socket()] {
            if let Err(error) = fs::remove_file(&socket) {
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
