//! All files of a folder, read through: how many bytes, which checksum, how much of it by DAX.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::pattern::Checksum;
use crate::reply::Reply;
use crate::stats;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Folders within folders at most: a link cannot lead in a circle here, a file system from elsewhere can.
const DEPTH_MAX: u32 = 64;

/// What was read.
#[derive(Debug, Default)]
struct Sum {
    files: u64,
    bytes: u64,
    dax_files: u64,
    dax_bytes: u64,
    checksum: Checksum,
}

/// Reads every regular file below `path`, in order of their names, on this file system only. Returns `files`, `bytes`,
/// `checksum`, how many of them the kernel serves by DAX (`dax_files`, `dax_bytes`), and what the guest's page cache
/// held before and after (`cached_before_bytes`, `cached_after_bytes`).
pub fn read(path: &str) -> io::Result<Reply> {
    let before = stats::cached_bytes()?;
    let mut sum = Sum::default();
    let device = fs::symlink_metadata(path)?.dev();
    visit(Path::new(path), device, DEPTH_MAX, &mut vec![0; CHUNK_BYTES], &mut sum)?;
    Ok(Reply::new()
        .number("files", sum.files)
        .number("bytes", sum.bytes)
        .text("checksum", &sum.checksum.hex())
        .number("dax_files", sum.dax_files)
        .number("dax_bytes", sum.dax_bytes)
        .number("cached_before_bytes", before)
        .number("cached_after_bytes", stats::cached_bytes()?))
}

fn visit(path: &Path, device: u64, depth_left: u32, buffer: &mut [u8], sum: &mut Sum) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_file() {
        return read_file(path, buffer, sum);
    }
    // A file in an overlay has the device of its layer, a folder that of the overlay.
    if !metadata.is_dir() || metadata.dev() != device {
        return Ok(());
    }
    let depth_left =
        depth_left.checked_sub(1).ok_or_else(|| io::Error::other(format!("{DEPTH_MAX} folders deep")))?;
    let mut entries: Vec<_> =
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    entries.sort();
    entries.iter().try_for_each(|entry| visit(entry, device, depth_left, buffer, sum))
}

fn read_file(path: &Path, buffer: &mut [u8], sum: &mut Sum) -> io::Result<()> {
    let mut file = File::open(path)?;
    let (mut checksum, mut bytes) = (Checksum::default(), 0);
    loop {
        let n = crate::file::read_full(&mut file.by_ref(), buffer)?;
        checksum.update(&buffer[..n]);
        bytes += n as u64;
        if n < buffer.len() {
            break;
        }
    }
    // Sixteen digits: a multiple of 8, as the checksum wants.
    sum.checksum.update(checksum.hex().as_bytes());
    sum.files += 1;
    sum.bytes += bytes;
    if is_dax(path)? {
        sum.dax_files += 1;
        sum.dax_bytes += bytes;
    }
    Ok(())
}

/// Whether the kernel maps the device's pages into programs instead of copies in its page cache (statx(2)).
fn is_dax(path: &Path) -> io::Result<bool> {
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::DAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::line;

    #[test]
    fn every_file_counts_once_and_changes_show() {
        let folder = std::env::temp_dir().join(format!("workload-{}-tree", std::process::id()));
        fs::create_dir_all(folder.join("b/c")).unwrap();
        fs::write(folder.join("a"), [1; 300_000]).unwrap();
        fs::write(folder.join("b/c/d"), "text").unwrap();
        std::os::unix::fs::symlink("a", folder.join("link")).unwrap();
        std::os::unix::fs::symlink(&folder, folder.join("circle")).unwrap();
        let read = || line(1, &read(folder.to_str().unwrap()).map_err(|error| error.to_string()));
        let before = read();
        assert!(before.contains("\"files\":2,\"bytes\":300004,"), "{before}");
        assert!(before.contains("\"dax_files\":0,\"dax_bytes\":0,\"cached_before_bytes\":"), "{before}");
        let checksum = |line: &str| line.split("\"checksum\":\"").nth(1).unwrap()[..16].to_string();
        assert_eq!(checksum(&before), checksum(&read()));
        fs::write(folder.join("b/c/d"), "texT").unwrap();
        assert_ne!(checksum(&before), checksum(&read()));
        fs::remove_dir_all(&folder).unwrap();
        assert!(super::read(folder.to_str().unwrap()).is_err());
    }
}
