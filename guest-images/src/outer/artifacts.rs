//! What a command leaves: a tar stream on a raw disk, since a guest can write one without any driver more.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{FileContext, Result};

/// Room for artifacts; a sparse file, so that only what is written costs.
const DISK_BYTES: u64 = 1 << 30;
/// Written by the machine's init script.
const EXIT_CODE: &str = "exit_code";

/// An empty disk in `folder`.
pub(super) fn disk(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("artifacts.tar");
    File::create(&path).and_then(|file| file.set_len(DISK_BYTES)).file("create", &path)?;
    Ok(path)
}

/// Unpacks the files into `folder`; returns the command's exit status, or nothing when the machine ended
/// before it could write the stream.
pub(super) fn unpack(disk: &Path, folder: &Path) -> Result<Option<i32>> {
    let file = File::open(disk).file("open", disk)?;
    let mut archive = tar::Archive::new(file);
    // The stream comes from a machine that hostile guests ran in: `unpack_in` keeps it inside of the folder.
    for entry in archive.entries().file("read", disk)? {
        let Ok(mut entry) = entry else { break };
        if entry.header().entry_type().is_file() || entry.header().entry_type().is_dir() {
            entry.unpack_in(folder).file("unpack", folder)?;
        }
    }
    let code = folder.join(EXIT_CODE);
    Ok(fs::read_to_string(code).ok().and_then(|text| text.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn an_empty_disk_means_no_status() {
        let scratch = Scratch::new("artifacts-empty");
        let disk = disk(scratch.path()).unwrap();
        assert_eq!(unpack(&disk, scratch.path()).unwrap(), None);
    }

    #[test]
    fn files_and_status_come_back() {
        let scratch = Scratch::new("artifacts");
        let disk = disk(scratch.path()).unwrap();
        let mut tar = tar::Builder::new(fs::OpenOptions::new().write(true).open(&disk).unwrap());
        for (path, text) in [("./exit_code", "137\n"), ("./logs/a", "hello")] {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        tar.finish().unwrap();
        let folder = scratch.path().join("out");
        fs::create_dir(&folder).unwrap();
        assert_eq!(unpack(&disk, &folder).unwrap(), Some(137));
        assert_eq!(fs::read_to_string(folder.join("logs/a")).unwrap(), "hello");
    }
}
