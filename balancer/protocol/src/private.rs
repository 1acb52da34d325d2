//! A folder that belongs to one user alone. A process that could put a socket into it could be taken for the balancer.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// True if this process's user owns a folder. In a user namespace, root does not own `/run` and `/var/lib`: they are
/// those of the host's root.
#[must_use]
pub fn owns(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw())
}

/// The number of this process's user outside of its user namespace, if it is in one. `/proc/self/uid_map` has lines of
/// three numbers: the first user inside, the first outside, and how many.
#[must_use]
pub fn user_outside() -> u32 {
    let own = rustix::process::geteuid().as_raw();
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(&map, own).unwrap_or(own)
}

fn outside(map: &str, own: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let at = own.checked_sub(inside).filter(|at| *at < count)?;
        outside.checked_add(at)
    })
}

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// It belongs to another user, or is a symbolic link of another user.
    #[error(
        "The folder {dir} belongs to user {uid}, not to you: name another. In a user namespace, folders of users that \
         it does not have seem to belong to user 65534"
    )]
    Foreign {
        /// The folder.
        dir: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Other users may read or write it, and it holds files that may not be ours.
    #[error(
        "The folder {dir} is open to others (mode {mode:o}) and holds files: name another, or make it yours (chmod 700)"
    )]
    Open {
        /// The folder.
        dir: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A socket in it would have a path that is too long for the kernel.
    #[error(
        "The folder's path {dir} has {bytes} bytes, but must have at most {DIR_BYTES_MAX} for the sockets in it"
    )]
    TooLong {
        /// The folder.
        dir: PathBuf,
        /// Length of its path.
        bytes: usize,
    },
    /// The system refused.
    #[error("Cannot {doing} {dir}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Longest path of a folder: a socket's address has 108 bytes (unix(7)), of which `/guests.sock` and a NUL take 13.
pub const DIR_BYTES_MAX: usize = 108 - 13;

/// Makes sure that `dir` exists and belongs to this user alone: it is made with mode 0700, or is owned by this user and
/// closed to others. An open folder is closed if it is empty, or if it holds the file `known` and only its owner may
/// write into it: `--run-dir /tmp` must not lock other users out of `/tmp`. Returns true if the folder was made.
///
/// # Errors
/// When it cannot be made, or other users may have changed it.
pub fn make(dir: &Path, known: &Path) -> Result<bool, PrivateError> {
    let failed = |doing| move |source| PrivateError::Io { doing, dir: dir.into(), source };
    let bytes = dir.as_os_str().as_bytes().len();
    if bytes > DIR_BYTES_MAX {
        return Err(PrivateError::TooLong { dir: dir.into(), bytes });
    }
    let made = fs::symlink_metadata(dir).is_err();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("make the folder"))?;
    let own = rustix::process::geteuid().as_raw();
    // Any user may have made `/tmp/ballast-UID`, as a folder or as a link. A link of root is trusted.
    let link = fs::symlink_metadata(dir).map_err(failed("read the attributes of"))?;
    let meta = fs::metadata(dir).map_err(failed("read the attributes of"))?;
    let foreign = |meta: &Metadata| Err(PrivateError::Foreign { dir: dir.into(), uid: meta.uid() });
    if meta.uid() != own {
        return foreign(&meta);
    }
    if link.is_symlink() && link.uid() != own && link.uid() != 0 {
        return foreign(&link);
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(made);
    }
    let ours = mode & 0o022 == 0 && known.exists();
    if !ours && fs::read_dir(dir).map_err(failed("list"))?.next().is_some() {
        return Err(PrivateError::Open { dir: dir.into(), mode });
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed("make private"))?;
    // Another process may have put a file into it meanwhile.
    if !ours && fs::read_dir(dir).map_err(failed("list"))?.next().is_some() {
        return Err(PrivateError::Open { dir: dir.into(), mode });
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("ballast-{name}-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }

        fn make(&self, name: &str) -> Result<bool, PrivateError> {
            let dir = self.0.join(name);
            make(&dir, &dir.join("known"))
        }

        fn mode(&self, name: &str) -> u32 {
            fs::metadata(self.0.join(name)).unwrap().mode() & 0o7777
        }

        fn folder(&self, name: &str, mode: u32, file: Option<&str>) {
            let dir = self.0.join(name);
            fs::create_dir(&dir).unwrap();
            if let Some(file) = file {
                fs::write(dir.join(file), "").unwrap();
            }
            fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_folder_is_made_private_or_closed_while_it_is_empty_or_known() {
        let scratch = Scratch::new("closed");
        assert!(scratch.make("new/deeper").unwrap());
        assert_eq!(scratch.mode("new/deeper"), 0o700);
        assert!(!scratch.make("new/deeper").unwrap());
        scratch.folder("empty", 0o777, None);
        scratch.folder("known", 0o755, Some("known"));
        for name in ["empty", "known"] {
            assert!(!scratch.make(name).unwrap());
            assert_eq!(scratch.mode(name), 0o700);
        }
    }

    #[test]
    fn a_folder_that_other_users_may_have_changed_stays_as_it_is() {
        let scratch = Scratch::new("open");
        scratch.folder("readable", 0o755, Some("other"));
        scratch.folder("writable", 0o1777, Some("known"));
        for (name, mode) in [("readable", 0o755), ("writable", 0o1777)] {
            let error = scratch.make(name).unwrap_err().to_string();
            assert!(error.contains(&format!("mode {mode:o}")) && error.contains(name), "{error}");
            assert_eq!(scratch.mode(name), mode);
        }
        fs::write(scratch.0.join("file"), "").unwrap();
        assert!(matches!(scratch.make("file"), Err(PrivateError::Io { .. })));
        assert!(matches!(scratch.make(&"x".repeat(100)), Err(PrivateError::TooLong { .. })));
        assert!(!scratch.0.join("x".repeat(100)).exists());
    }

    #[test]
    fn the_user_outside_of_a_namespace_is_known_by_its_map() {
        let all = "         0          0 4294967295\n";
        let rootless = "0 1000 1\n1 100000 65536\n";
        assert_eq!((outside(all, 7), outside(rootless, 0)), (Some(7), Some(1000)));
        assert_eq!(
            (outside(rootless, 2), outside(rootless, 70000), outside("", 0)),
            (Some(100_001), None, None)
        );
        assert!(owns(&std::env::temp_dir().join(".")) || rustix::process::geteuid().as_raw() != 0);
        assert!(!owns(Path::new("/nowhere")) && !owns(Path::new("/proc/self/status")));
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        let own = rustix::process::geteuid().as_raw();
        let scratch = Scratch::new("foreign");
        let theirs = if own == 0 {
            scratch.folder("theirs", 0o700, None);
            std::os::unix::fs::chown(scratch.0.join("theirs"), Some(1), None).unwrap();
            std::os::unix::fs::symlink("ours", scratch.0.join("link")).unwrap();
            scratch.folder("ours", 0o700, None);
            std::os::unix::fs::lchown(scratch.0.join("link"), Some(1), None).unwrap();
            assert!(matches!(scratch.make("link"), Err(PrivateError::Foreign { uid: 1, .. })));
            scratch.0.join("theirs")
        } else {
            "/".into()
        };
        assert!(matches!(make(&theirs, &theirs.join("known")), Err(PrivateError::Foreign { .. })));
    }
}
