//! What can go wrong while images are made or an outer machine runs.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use wait::Missed;

/// A `Result` of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every failure names the file, the value or the command concerned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder operation failed.
    #[error("Cannot {action} {}", path.display())]
    File {
        /// What was tried: "read", "write", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A tool could not be started.
    #[error("Cannot start {program}: run scripts/setup.sh, which installs what is missing")]
    ToolMissing {
        /// The program's name.
        program: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A tool ended with a failure.
    #[error("{program} failed ({status}): {stderr}")]
    Tool {
        /// The program and its arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it printed.
        stderr: String,
    },
    /// The user has no home and named no cache.
    #[error("No cache folder: set BALLAST_CACHE, XDG_CACHE_HOME or HOME")]
    NoCacheFolder,
    /// The machine's apt knows no Debian mirror.
    #[error(
        "No Debian mirror in this machine's apt sources: add Debian's main archive to /etc/apt/sources.list"
    )]
    NoMirror,
    /// A package of ours is not in the archive, or its records are incomplete.
    #[error("Package {package}: {problem}")]
    Package {
        /// The package's name.
        package: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A kernel image is not what the boot protocol says.
    #[error("Not a usable bzImage: {0}")]
    BzImage(String),
    /// A kernel module is missing or unreadable.
    #[error("Kernel module {module}: {problem}")]
    Module {
        /// The module's name, with underscores.
        module: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The connection to a guest's agent failed.
    #[error("Guest agent at {}", path.display())]
    AgentConnect {
        /// The unix socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The agent gave no answer, and nothing moved any more.
    #[error("Guest agent gave no answer to `{command}`")]
    AgentSilent {
        /// The command.
        command: String,
        /// Why the wait ended.
        #[source]
        missed: Missed,
    },
    /// The agent's channel broke.
    #[error("Guest agent's channel broke during `{command}`")]
    AgentChannel {
        /// The command line sent.
        command: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The agent refused or failed a command.
    #[error("Guest agent refused `{command}`: {message}")]
    AgentRefused {
        /// The command line sent.
        command: String,
        /// The agent's words.
        message: String,
    },
    /// An answer lacks a member that this command promises.
    #[error("Guest agent's answer to `{command}` lacks what it promises ({problem}): {reply}")]
    AgentReply {
        /// The command's name.
        command: String,
        /// Which member, and what is wrong with it.
        problem: String,
        /// The whole answer.
        reply: String,
    },
    /// The outer machine was still busy at its deadline.
    #[error("The outer machine was ended at its deadline of {after:?}; its last lines: {tail}")]
    OuterTimeout {
        /// The deadline's length.
        after: Duration,
        /// The last console lines.
        tail: String,
    },
    /// The outer machine hangs.
    #[error("The outer machine hangs: it said nothing for {after:?}; its last lines and its state: {tail}")]
    OuterSilent {
        /// How long it was silent.
        after: Duration,
        /// The last console lines, and what QEMU's monitor says of the machine.
        tail: String,
    },
    /// The outer machine ended without a status of the command.
    #[error(
        "The outer machine ended ({status}) before the command reported a status; its last lines: {tail}"
    )]
    OuterDied {
        /// How QEMU ended.
        status: ExitStatus,
        /// The last console lines.
        tail: String,
    },
}

/// Names the file an I/O error is about.
pub(crate) trait FileContext<T> {
    /// Turns the error into [`Error::File`].
    fn file(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> FileContext<T> for io::Result<T> {
    fn file(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File { action, path: path.to_path_buf(), source })
    }
}
