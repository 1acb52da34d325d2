//! The run directory of a balancer: one folder that holds its sockets, its journal and its log.

use crate::private::{self, PrivateError};
use std::path::{Path, PathBuf};

/// Environment variable that names the folder.
pub const RUN_DIR_VARIABLE: &str = "BALLAST_RUN_DIR";

/// The run directory of one balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// The folder that was named, or the user's own: `/run/ballast` for root, `$XDG_RUNTIME_DIR/ballast` for others.
    /// It is `/tmp/ballast-UID` where that variable is unset, is not an absolute path (XDG Base Directory
    /// Specification), or names a folder of another user (`su` keeps the variable of the user before). Root of a user
    /// namespace that does not own `/run` gets the folder of its user outside of the namespace. An empty
    /// [`RUN_DIR_VARIABLE`] counts as unset.
    #[must_use]
    pub fn new(named: Option<PathBuf>) -> Self {
        Self(
            named
                .or_else(|| std::env::var_os(RUN_DIR_VARIABLE).map(PathBuf::from))
                .filter(|dir| !dir.as_os_str().is_empty())
                .unwrap_or_else(Self::of_user),
        )
    }

    fn of_user() -> PathBuf {
        if rustix::process::geteuid().is_root() && private::owns(Path::new("/run")) {
            return "/run/ballast".into();
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Self::of(private::user_outside(), runtime, private::owns)
    }

    fn of(uid: u32, runtime: Option<PathBuf>, owns: impl Fn(&Path) -> bool) -> PathBuf {
        match runtime.filter(|dir| dir.is_absolute() && owns(dir)) {
            Some(dir) => dir.join("ballast"),
            None => PathBuf::from(format!("/tmp/ballast-{uid}")),
        }
    }

    /// Makes sure that the folder exists and belongs to this user alone. True if it was made.
    ///
    /// # Errors
    /// When it cannot be made, or other users may have changed it.
    pub fn make_private(&self) -> Result<bool, PrivateError> {
        private::make(&self.0, &self.lock())
    }

    /// The folder itself; mode 0700.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Unix stream socket of the REST API.
    #[must_use]
    pub fn api_socket(&self) -> PathBuf {
        self.0.join("api.sock")
    }

    /// Unix seqpacket socket at which guests register.
    #[must_use]
    pub fn guest_socket(&self) -> PathBuf {
        self.0.join("guests.sock")
    }

    /// The journal: every container and its limits.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal.redb")
    }

    /// Locked by the one balancer that uses this folder.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("balancer.lock")
    }

    /// Log of a balancer that was started by a `vmm`.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("balancer.log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_folder_that_is_not_an_absolute_path_of_this_user_is_ignored() {
        let owns = |dir: &Path| dir == Path::new("/run/user/7") || !dir.is_absolute();
        let of = |runtime: Option<&str>| RunDir::of(7, runtime.map(PathBuf::from), owns);
        assert_eq!(of(Some("/run/user/7")), PathBuf::from("/run/user/7/ballast"));
        for runtime in [None, Some(""), Some("run"), Some("/run/user/0")] {
            assert_eq!(of(runtime), PathBuf::from("/tmp/ballast-7"));
        }
        assert_ne!(RunDir::new(Some(PathBuf::new())).dir(), Path::new(""));
    }
}
