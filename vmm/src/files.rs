//! Opening files that a user named, if they are of a kind that can be used.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    Regular,
    /// A regular file or a block device.
    Disk,
}

impl Kind {
    fn takes(self, found: FileType) -> bool {
        found.is_file() || self == Self::Disk && found.is_block_device()
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Regular => "must be a regular file",
            Self::Disk => "must be a regular file or a block device",
        }
    }
}

/// Opens a file. A pipe does not block until it has a writer, and is refused like every file of another kind: a
/// directory has a length too, and `/dev/zero` is endless.
///
/// # Errors
/// The system's answer, or that the file is of another kind.
pub fn open(path: &Path, write: bool, kind: Kind) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(write).custom_flags(libc::O_NONBLOCK).open(path)?;
    if kind.takes(file.metadata()?.file_type()) {
        return Ok(file);
    }
    Err(io::Error::new(ErrorKind::InvalidInput, kind.wanted()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_can_be_disks_or_kernels_are_opened() {
        let this = std::env::current_exe().unwrap();
        assert!(open(&this, false, Kind::Regular).is_ok() && open(&this, false, Kind::Disk).is_ok());
        for path in ["/dev/zero", "/dev/null", "/"] {
            for kind in [Kind::Regular, Kind::Disk] {
                let error = open(Path::new(path), false, kind).unwrap_err();
                assert!(error.to_string().contains(kind.wanted()), "{path}: {error}");
            }
        }
    }

    #[test]
    fn a_pipe_without_a_writer_is_refused_at_once() {
        let path = std::env::temp_dir().join(format!("ballast-pipe-{}", std::process::id()));
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        let result = open(&path, false, Kind::Regular);
        std::fs::remove_file(&path).unwrap();
        assert!(result.unwrap_err().to_string().contains("regular"));
    }
}
