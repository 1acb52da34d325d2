//! Files of other programs' disk formats, told from raw ones by their first bytes.
//!
//! A guest that got such a file as a raw disk would find no file system on it, and could destroy the file. A raw disk
//! may begin with any bytes, for a guest writes what it likes: `--disk PATH,raw` does not look.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where the first bytes of a format are, what they are, the format's name and what `qemu-img` calls it.
const FORMATS: [(u64, &[u8], &str, &str); 9] = [
    (0, b"QFI\xfb", "qcow2", "qcow2"),
    (0, b"QED\0", "QED", "qed"),
    (0, b"vhdxfile", "VHDX", "vhdx"),
    (0, b"conectix", "VHD", "vpc"),
    (0, b"KDMV", "VMDK", "vmdk"),
    (0, b"COWD", "VMDK", "vmdk"),
    (0, b"# Disk DescriptorFile", "VMDK", "vmdk"),
    // VBOX_IMAGE_SIGNATURE, little-endian.
    (64, b"\x7f\x10\xda\xbe", "VDI", "vdi"),
    (0, b"WithouFreSpacExt", "Parallels", "parallels"),
];

/// The format of a file, if it is one of these: its name and what `qemu-img` calls it.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn of(file: &File) -> io::Result<Option<(&'static str, &'static str)>> {
    let mut head = [0; 128];
    let mut length = 0;
    while length < head.len() {
        match file.read_at(&mut head[length..], length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    let begins = |(at, bytes, _, _): &&(u64, &[u8], &str, &str)| {
        head[..length].get(*at as usize..).is_some_and(|rest| rest.starts_with(bytes))
    };
    Ok(FORMATS.iter().find(begins).map(|(_, _, name, qemu)| (*name, *qemu)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn found(bytes: &[u8]) -> Option<&'static str> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        of(&file).unwrap().map(|(name, _)| name)
    }

    #[test]
    fn other_formats_are_found_and_raw_disks_are_not() {
        assert_eq!(found(b"QFI\xfb\0\0\0\x03"), Some("qcow2"));
        let mut vdi = b"<<< Oracle VM VirtualBox Disk Image >>>\n".to_vec();
        vdi.resize(64, 0);
        vdi.extend(b"\x7f\x10\xda\xbe");
        assert_eq!(found(&vdi), Some("VDI"));
        assert_eq!(found(b"# Disk DescriptorFile\nversion=1\n"), Some("VMDK"));
        // A boot sector, an empty file, a file of which the bytes are elsewhere, compressed data.
        for raw in [&b"\xeb\x63\x90"[..], b"", b"QF", b"\0QFI\xfb", b"\x1f\x8b\x08"] {
            assert_eq!(found(raw), None, "{raw:?}");
        }
    }
}
