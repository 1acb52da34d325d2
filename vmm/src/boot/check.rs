//! What a kernel file says of itself, checked before anything is loaded by it.
//!
//! The loader would catch some of this, in words that name no segment, and would let pass what only shows once the
//! guest runs: a segment over the page tables, an entry point in the middle of nowhere, a header that asks for more RAM
//! than there is.

use crate::layout;
use devices::GuestRam;
use linux_loader::loader::bootparam::setup_header;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// Why a file is not a kernel that can be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// It ends before something that it says it has.
    #[error("it is cut short: it has {found} bytes, its {what} ends at {end}")]
    CutShort {
        /// What is missing, or a part of it.
        what: String,
        /// Bytes of the file.
        found: u64,
        /// Where that would end.
        end: u64,
    },
    /// A field with a value that cannot be.
    #[error("{field} is {value}, but must be {bound}")]
    Field {
        /// The field by its name in the format.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it would have to be.
        bound: &'static str,
    },
    /// A segment that would overwrite what the guest finds in its memory at start.
    #[error(
        "segment {index} starts at {start:#x}, among the boot structures: kernels start at {:#x} or above",
        layout::KERNEL
    )]
    Boot {
        /// Number of the program header.
        index: u16,
        /// Its physical address.
        start: u64,
    },
    /// A segment outside RAM.
    #[error("segment {index} at {start:#x} of {bytes} bytes does not lie in RAM")]
    OutsideRam {
        /// Number of the program header.
        index: u16,
        /// Its physical address.
        start: u64,
        /// Its length in memory.
        bytes: u64,
    },
}

/// Bytes of `Elf64_Ehdr` and `Elf64_Phdr`.
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const ELFCLASS64: u8 = 2;
const ELFDATA2LSB: u8 = 1;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;

/// Checks an ELF kernel against RAM.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn elf(file: &File, ram: &GuestRam) -> Result<(), CheckError> {
    let found = file.metadata()?.len();
    let header: [u8; HEADER_BYTES] = read(file, found, 0, || "ELF header".into())?;
    if (header[4], header[5], u16_at(&header, 18)) != (ELFCLASS64, ELFDATA2LSB, EM_X86_64) {
        let value = format!("class {}, data {}, machine {}", header[4], header[5], u16_at(&header, 18));
        return Err(CheckError::Field {
            field: "the ELF header",
            value,
            bound: "64 bits, little endian, x86-64",
        });
    }
    let (entry, table, size, count) =
        (u64_at(&header, 24), u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    if usize::from(size) != PROGRAM_HEADER_BYTES {
        return Err(CheckError::Field { field: "e_phentsize", value: size.to_string(), bound: "56" });
    }
    let mut entered = false;
    for index in 0..count {
        let at = table.saturating_add(u64::from(index) * PROGRAM_HEADER_BYTES as u64);
        let header: [u8; PROGRAM_HEADER_BYTES] = read(file, found, at, || format!("program header {index}"))?;
        let (offset, start, in_file, bytes) =
            (u64_at(&header, 8), u64_at(&header, 24), u64_at(&header, 32), u64_at(&header, 40));
        if u32_at(&header, 0) != PT_LOAD || bytes == 0 {
            continue;
        }
        let end = offset.saturating_add(in_file);
        if end > found {
            return Err(CheckError::CutShort { what: format!("segment {index}"), found, end });
        }
        if in_file > bytes {
            let value = format!("{in_file} in segment {index}");
            return Err(CheckError::Field { field: "p_filesz", value, bound: "at most p_memsz" });
        }
        if start < layout::KERNEL {
            return Err(CheckError::Boot { index, start });
        }
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        if start.checked_add(bytes).is_none()
            || !GuestMemoryBackend::check_range(ram, GuestAddress(start), length)
        {
            return Err(CheckError::OutsideRam { index, start, bytes });
        }
        entered |= (start..start + bytes).contains(&entry);
    }
    if entered {
        return Ok(());
    }
    Err(CheckError::Field {
        field: "e_entry",
        value: format!("{entry:#x}"),
        bound: "inside a loaded segment",
    })
}

/// First version of the boot protocol with a 64-bit entry point, and the bit of `xloadflags` that says that there is
/// one (Documentation/arch/x86/boot.rst).
const BOOT_PROTOCOL_MIN: u16 = 0x20c;
const XLF_KERNEL_64: u16 = 1;
const SECTOR_BYTES: u64 = 512;
/// Where the header ends that this version of the protocol has.
const BOOT_HEADER_END: u64 = 0x268;

/// Checks that a bzImage is as long as its header; the rest is [`bzimage_header`]'s, once the loader has read that.
///
/// # Errors
/// When it is shorter.
pub fn bzimage(file: &File) -> Result<(), CheckError> {
    let found = file.metadata()?.len();
    let sectors: [u8; 1] = read(file, found, 0x1f1, || "boot header".into())?;
    // 0 means 4, for the oldest of kernels.
    let setup = (u64::from(if sectors[0] == 0 { 4 } else { sectors[0] }) + 1) * SECTOR_BYTES;
    for (what, end) in [("boot header", BOOT_HEADER_END), ("real-mode part", setup + 1)] {
        if found < end {
            return Err(CheckError::CutShort { what: what.into(), found, end });
        }
    }
    Ok(())
}

/// Checks what a bzImage's header asks for, and returns the first byte behind the RAM that it unpacks itself into.
///
/// # Errors
/// The first field that is out of its bound.
pub fn bzimage_header(header: &setup_header) -> Result<u64, CheckError> {
    let (version, flags) = (header.version, header.xloadflags);
    if version < BOOT_PROTOCOL_MIN {
        return Err(CheckError::Field {
            field: "version",
            value: format!("{version:#x}"),
            bound: "at least 0x20c",
        });
    }
    if flags & XLF_KERNEL_64 == 0 {
        let value = format!("{flags:#x}");
        return Err(CheckError::Field {
            field: "xloadflags",
            value,
            bound: "odd: a kernel with a 64-bit entry point",
        });
    }
    let start = header.pref_address;
    start.checked_add(u64::from(header.init_size)).filter(|_| start >= layout::KERNEL).ok_or_else(|| {
        CheckError::Field {
            field: "pref_address",
            value: format!("{start:#x}"),
            bound: "at least 0x100000, and below the end of memory by init_size",
        }
    })
}

fn read<const N: usize>(
    file: &File,
    found: u64,
    at: u64,
    what: impl FnOnce() -> String,
) -> Result<[u8; N], CheckError> {
    let end = at.saturating_add(N as u64);
    if end > found {
        return Err(CheckError::CutShort { what: what(), found, end });
    }
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
