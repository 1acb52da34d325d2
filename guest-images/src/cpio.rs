//! Writer for the cpio format of an initramfs ("newc"; Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, Write};

/// `st_mode` of a folder.
const S_IFDIR: u32 = 0o040_000;
/// `st_mode` of a regular file.
const S_IFREG: u32 = 0o100_000;
/// `st_mode` of a symbolic link.
const S_IFLNK: u32 = 0o120_000;
/// `st_mode` of a character device.
const S_IFCHR: u32 = 0o020_000;

/// Builds an archive; owner is root and the time is 0, so that equal input makes equal bytes.
pub(crate) struct Cpio<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Cpio<W> {
    pub fn new(out: W) -> Cpio<W> {
        Cpio { out, inode: 0 }
    }

    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, S_IFDIR | 0o755, (0, 0), b"")
    }

    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, S_IFREG | permissions, (0, 0), content)
    }

    pub fn symlink(&mut self, path: &str, to: &str) -> io::Result<()> {
        self.entry(path, S_IFLNK | 0o777, (0, 0), to.as_bytes())
    }

    pub fn char_device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.entry(path, S_IFCHR | 0o600, (major, minor), b"")
    }

    /// Ends the archive and returns the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), b"")?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        let bytes = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_bytes = path.len() as u32 + 1;
        self.inode += 1;
        let links = if mode & 0o170_000 == S_IFDIR { 2 } else { 1 };
        // inode, mode, uid, gid, links, time, bytes, device of the file system, device of the node, name, checksum
        let head = [self.inode, mode, 0, 0, links, 0, bytes, 0, 0, device.0, device.1, name_bytes, 0];
        let mut text = String::from("070701");
        head.iter().for_each(|field| text += &format!("{field:08x}"));
        text += path;
        text.push('\0');
        self.padded(text.as_bytes())?;
        self.padded(content)
    }

    /// Header with name, and content, each end on a multiple of four bytes.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.write_all(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_the_archive_ends() {
        let mut cpio = Cpio::new(Vec::new());
        cpio.folder("bin").unwrap();
        cpio.file("bin/a", 0o755, b"hello").unwrap();
        cpio.symlink("bin/b", "a").unwrap();
        cpio.char_device("console", 5, 1).unwrap();
        let archive = cpio.finish().unwrap();
        assert_eq!(archive.len() % 4, 0);
        assert!(archive.starts_with(b"07070100000001000041ed"));
        let text = String::from_utf8_lossy(&archive).into_owned();
        let at = text.find("bin/a").unwrap();
        // 110 bytes of header, the name with its NUL, padding to four bytes.
        assert_eq!(&text[(at + 6).next_multiple_of(4)..][..5], "hello");
        assert!(text.contains("TRAILER!!!"));
        assert!(text.contains("0000000500000001"));
    }
}
