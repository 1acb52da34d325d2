//! The kernel proper out of a bzImage.
//!
//! A bzImage is a real-mode part with the setup header, then a small program with the compressed ELF
//! kernel in it. Guests boot the ELF file: no guest spends seconds on unpacking what the host can unpack once.
//! Offsets: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".

use std::io::Read;

use crate::error::{Error, Result};

const SETUP_SECTS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR_BYTES: usize = 512;

const LZ4_LEGACY_MAGIC: &[u8] = &[0x02, 0x21, 0x4c, 0x18];
/// Decompressed bytes of every block but the last (lz4's "legacy frame").
const LZ4_LEGACY_BLOCK_BYTES: usize = 8 << 20;
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
pub(crate) const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// The ELF kernel inside `image`.
pub fn vmlinux(image: &[u8]) -> Result<Vec<u8>> {
    let (payload, unpacked_bytes) = payload(image)?;
    let elf = if let Some(blocks) = payload.strip_prefix(LZ4_LEGACY_MAGIC) {
        lz4_legacy(blocks)?
    } else if payload.starts_with(ZSTD_MAGIC) {
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(payload).map_err(bad)?;
        read_all(&mut decoder)?
    } else if payload.starts_with(XZ_MAGIC) {
        read_all(&mut lzma_rust2::XzReader::new(payload, false))?
    } else if payload.starts_with(GZIP_MAGIC) {
        read_all(&mut flate2::read::GzDecoder::new(payload))?
    } else {
        return Err(bad(format!("payload starts with {:02x?}, no known compression", payload.get(..6))));
    };
    if elf.len() != unpacked_bytes {
        return Err(bad(format!("payload unpacks to {} bytes, promised are {unpacked_bytes}", elf.len())));
    }
    if !elf.starts_with(ELF_MAGIC) {
        return Err(bad("the payload is not an ELF file"));
    }
    Ok(elf)
}

/// The compressed payload, and the bytes it unpacks to: the kernel's build appends that number to it.
fn payload(image: &[u8]) -> Result<(&[u8], usize)> {
    if image.get(HEADER_MAGIC..HEADER_MAGIC + 4) != Some(b"HdrS") {
        return Err(bad("no setup header"));
    }
    let u32_at = |offset: usize| -> Result<usize> {
        let bytes = image.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(|bytes| u32::from_le_bytes(bytes) as usize).ok_or_else(|| bad("the header is cut off"))
    };
    let start = (usize::from(image[SETUP_SECTS]) + 1) * SECTOR_BYTES + u32_at(PAYLOAD_OFFSET)?;
    let end = start + u32_at(PAYLOAD_LENGTH)?;
    if end > image.len() || end - start < 4 {
        return Err(bad(format!("payload {start:#x}..{end:#x} is outside of the {} bytes", image.len())));
    }
    Ok((&image[start..end - 4], u32_at(end - 4)?))
}

fn lz4_legacy(mut blocks: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((head, rest)) = blocks.split_first_chunk::<4>() {
        let packed_bytes = u32::from_le_bytes(*head) as usize;
        let packed = rest.get(..packed_bytes).ok_or_else(|| bad("an LZ4 block is cut off"))?;
        out.extend(lz4_flex::block::decompress(packed, LZ4_LEGACY_BLOCK_BYTES).map_err(bad)?);
        blocks = &rest[packed_bytes..];
    }
    Ok(out)
}

fn read_all(reader: &mut dyn Read) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.read_to_end(&mut out).map_err(bad)?;
    Ok(out)
}

fn bad(problem: impl ToString) -> Error {
    Error::BzImage(problem.to_string())
}

#[cfg(test)]
#[path = "bzimage_test.rs"]
mod tests;
