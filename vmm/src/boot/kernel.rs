//! Loading a kernel, its initrd and its command line into guest RAM.

use super::check::{self, CheckError};
use super::cmdline::CmdlineError;
use crate::files;
use crate::layout;
use crate::memory::HOLE_START;
use devices::GuestRam;
use linux_loader::cmdline::Cmdline;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader, load_cmdline};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, ReadVolatile};

/// Why a guest cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be opened or read.
    #[error("Cannot read {what} {}", path.display())]
    Read {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Neither an ELF file nor a bzImage.
    #[error("{} is no kernel: neither an ELF file (vmlinux) nor a bzImage", path.display())]
    NoKernel {
        /// The file.
        path: PathBuf,
    },
    /// It says something impossible of itself.
    #[error("Cannot load the kernel {}", path.display())]
    Check {
        /// The file.
        path: PathBuf,
        /// What.
        source: CheckError,
    },
    /// The loader refused it.
    #[error("Cannot load the kernel {}: {reason}", path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Why. The loader's errors repeat their causes in their text, so this is all of it.
        reason: String,
    },
    /// An initrd without a byte.
    #[error("The initrd {} is empty", path.display())]
    EmptyInitrd {
        /// The file.
        path: PathBuf,
    },
    /// Kernel and initrd do not fit into RAM.
    #[error("The kernel and the initrd need {needed} bytes of RAM below 3 GiB, --memory gives {ram}")]
    DoesNotFit {
        /// Bytes needed.
        needed: u64,
        /// Bytes of RAM.
        ram: u64,
    },
    /// The command line.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// The loader refused the command line.
    #[error("Cannot load the kernel command line: {0}")]
    LoadCmdline(String),
}

/// A kernel in RAM.
#[derive(Debug)]
pub struct Kernel {
    /// 64-bit entry point.
    pub entry: u64,
    /// First byte behind it.
    pub end: u64,
    /// The boot header of a bzImage.
    pub header: Option<setup_header>,
}

/// Offset of the 64-bit entry point in a bzImage (Documentation/arch/x86/boot.rst, "64-bit boot protocol").
const BZIMAGE_ENTRY: u64 = 0x200;

/// Loads an ELF kernel or a bzImage.
///
/// # Errors
/// When the file is missing, no kernel, or larger than RAM.
pub fn load_kernel(ram: &GuestRam, path: &Path) -> Result<Kernel, LoadError> {
    let read = |source| LoadError::Read { what: "kernel", path: path.into(), source };
    let refused = |source| LoadError::Check { path: path.into(), source };
    let failed = |error: linux_loader::loader::Error| LoadError::Kernel {
        path: path.into(),
        reason: error.to_string(),
    };
    let mut file = files::open(path, false, files::Kind::Regular).map_err(read)?;
    let at = Some(GuestAddress(layout::KERNEL));
    match kind(&mut file).map_err(read)? {
        Some(Kind::Elf) => {
            check::elf(&file, ram).map_err(refused)?;
            let loaded = Elf::load(ram, None, &mut file, at).map_err(failed)?;
            Ok(Kernel { entry: loaded.kernel_load.raw_value(), end: loaded.kernel_end, header: None })
        }
        Some(Kind::BzImage) => {
            check::bzimage(&file).map_err(refused)?;
            let loaded = BzImage::load(ram, at, &mut file, at).map_err(failed)?;
            let header = loaded.setup_header;
            // A bzImage unpacks itself at its preferred address and needs `init_size` bytes there.
            let unpacked = header.as_ref().map_or(Ok(0), check::bzimage_header).map_err(refused)?;
            let end = loaded.kernel_end.max(unpacked);
            let low_end = low_ram_end(ram);
            if end > low_end {
                return Err(LoadError::DoesNotFit { needed: end, ram: low_end });
            }
            Ok(Kernel { entry: loaded.kernel_load.raw_value() + BZIMAGE_ENTRY, end, header })
        }
        None => Err(LoadError::NoKernel { path: path.into() }),
    }
}

enum Kind {
    Elf,
    BzImage,
}

fn kind(file: &mut File) -> io::Result<Option<Kind>> {
    let mut head = Vec::new();
    file.by_ref().take(0x206).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(if head.starts_with(b"\x7fELF") {
        Some(Kind::Elf)
    } else if head.get(0x202..0x206) == Some(b"HdrS") {
        Some(Kind::BzImage)
    } else {
        None
    })
}

/// Loads an initrd at the top of RAM below 3 GiB and returns its address and length.
///
/// # Errors
/// When the file is missing or does not fit above `floor`, the end of the kernel.
pub fn load_initrd(ram: &GuestRam, path: &Path, floor: u64) -> Result<(u64, u64), LoadError> {
    let read = |source| LoadError::Read { what: "initrd", path: path.into(), source };
    let mut file = files::open(path, false, files::Kind::Regular).map_err(read)?;
    let bytes = file.metadata().map_err(read)?.len();
    if bytes == 0 {
        return Err(LoadError::EmptyInitrd { path: path.into() });
    }
    let low_end = low_ram_end(ram);
    let does_not_fit = || LoadError::DoesNotFit { needed: floor.saturating_add(bytes), ram: low_end };
    let address = low_end
        .checked_sub(bytes)
        .map(|at| at & !0xfff)
        .filter(|at| *at >= floor)
        .ok_or_else(does_not_fit)?;
    let length = usize::try_from(bytes).map_err(|_| does_not_fit())?;
    let mut slice = ram.get_slice(GuestAddress(address), length).map_err(|_| does_not_fit())?;
    file.read_exact_volatile(&mut slice).map_err(|error| read(io::Error::other(error)))?;
    Ok((address, bytes))
}

/// First byte that is not RAM below the hole for devices.
fn low_ram_end(ram: &GuestRam) -> u64 {
    (ram.last_addr().raw_value() + 1).min(HOLE_START)
}

/// Writes the command line, which was checked ([`super::cmdline::check`]).
///
/// # Errors
/// When the loader refuses it.
pub fn write_cmdline(ram: &GuestRam, text: &str) -> Result<(), LoadError> {
    let refused = |error: &dyn std::fmt::Display| LoadError::LoadCmdline(error.to_string());
    let mut line = Cmdline::new(layout::CMDLINE_BYTES_MAX).map_err(|error| refused(&error))?;
    if !text.is_empty() {
        line.insert_str(text).map_err(|error| refused(&error))?;
    }
    load_cmdline(ram, GuestAddress(layout::CMDLINE), &line).map_err(|error| refused(&error))
}

#[cfg(test)]
#[path = "kernel_test.rs"]
mod tests;
