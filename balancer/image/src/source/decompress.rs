//! Layers as streams: plain, gzip, zstd or xz, with the digest of the bytes that were read.

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest, Sha256};
use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

/// Bytes of the buffers on both sides of a decompressor.
const BUFFER_BYTES: usize = 1 << 16;
/// Most memory of the decompressor of xz, KiB: what files of `xz -9` need.
const XZ_KIB_MAX: u32 = 68 << 10;

/// Files that are not tars, by their first bytes, and what to do with them.
const OTHERS: [(&[u8], &str); 12] = [
    (b"BZh", "compressed with bzip2: unpack it with bunzip2"),
    (b"\x04\x22\x4d\x18", "compressed with lz4: unpack it with lz4 -d"),
    (b"LZIP", "compressed with lzip: unpack it with lzip -d"),
    (b"\x1f\x9d", "compressed with compress: unpack it with gzip -d"),
    (b"PK\x03\x04", "a zip file: unpack it into a folder"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file: unpack it into a folder"),
    (b"hsqs", "a file system of squashfs: unpack it with unsquashfs"),
    (
        b"QFI\xfb",
        "a disk image of QEMU (qcow2): give it to a guest with --disk, after qemu-img convert -O raw",
    ),
    (b"KDMV", "a disk image (VMDK): give it to a guest with --disk, after qemu-img convert -O raw"),
    (b"vhdxfile", "a disk image (VHDX): give it to a guest with --disk, after qemu-img convert -O raw"),
    (b"070701", "a cpio archive: give it to a guest with --initrd, or unpack it into a folder"),
    (b"\x7fELF", "a program: put it into a folder or a tar"),
];

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
}

impl Compression {
    /// The compression of a file that begins with these bytes.
    ///
    /// # Errors
    /// What the file is, if it is one that cannot be a tar, or not one that is read.
    pub(super) fn of(begin: &[u8]) -> Result<Self, &'static str> {
        match begin {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            // A frame, or one to skip before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Ok(Self::Xz),
            _ => OTHERS
                .iter()
                .find(|(magic, _)| begin.starts_with(magic))
                .map_or(Ok(Self::None), |other| Err(other.1)),
        }
    }

    /// The stream behind a compressed one, and the bytes that are behind the compressed one: known at its end.
    pub(super) fn reader<'a>(self, source: impl Read + 'a) -> (Box<dyn Read + 'a>, Rest) {
        let rest = Rest::default();
        let source = BufReader::with_capacity(BUFFER_BYTES, source);
        let reader: Box<dyn Read + 'a> = match self {
            Self::None => Box::new(source),
            Self::Gzip => buffered(Gzip { decoder: Some(GzDecoder::new(source)), rest: rest.clone() }),
            Self::Zstd => {
                buffered(Zstd { source, decoder: FrameDecoder::new(), inside: false, rest: rest.clone() })
            }
            Self::Xz => buffered(XzReader::new_mem_limit(source, true, XZ_KIB_MAX)),
        };
        (reader, rest)
    }
}

fn buffered<'a>(reader: impl Read + 'a) -> Box<dyn Read + 'a> {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, reader))
}

/// Bytes behind a compressed stream. Zeros are padding; others are counted with the zeros among them.
#[derive(Debug, Clone, Default)]
pub(super) struct Rest(Rc<Cell<u64>>);

impl Rest {
    pub(super) fn bytes(&self) -> u64 {
        self.0.get()
    }

    /// Reads to the end of the file, whose digest counts these bytes too.
    fn drain(&self, source: &mut impl BufRead) -> io::Result<()> {
        let (mut bytes, mut other) = (0, false);
        loop {
            let part = source.fill_buf()?;
            if part.is_empty() {
                break;
            }
            let count = part.len();
            other |= part.iter().any(|byte| *byte != 0);
            bytes += count as u64;
            source.consume(count);
        }
        if other {
            self.0.set(bytes);
        }
        Ok(())
    }
}

/// All members of a gzip file, one after the other.
struct Gzip<R> {
    /// None at the end.
    decoder: Option<GzDecoder<R>>,
    rest: Rest,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Some(mut source) = self.decoder.take().map(GzDecoder::into_inner) else { break };
            if matches!(source.fill_buf()?, [0x1f] | [0x1f, 0x8b, ..]) {
                self.decoder = Some(GzDecoder::new(source));
            } else {
                self.rest.drain(&mut source)?;
            }
        }
        Ok(0)
    }
}

/// Hashes the bytes that pass.
pub(super) struct Hashed<R> {
    source: R,
    hash: Rc<RefCell<Sha256>>,
}

impl<R> Hashed<R> {
    /// The stream, and the hash of the bytes that were read of it so far.
    pub(super) fn new(source: R) -> (Self, Rc<RefCell<Sha256>>) {
        let hash = Rc::new(RefCell::new(Sha256::new()));
        (Self { source, hash: Rc::clone(&hash) }, hash)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.borrow_mut().update(&buffer[..count]);
        Ok(count)
    }
}

/// All frames of a zstd file, one after the other, without those to skip: `zstd:chunked` layers have many.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    inside: bool,
    rest: Rest,
}

impl<R: BufRead> Zstd<R> {
    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            match self.source.fill_buf()? {
                [] => return Ok(false),
                // What the buffer holds of the next frame may be shorter than its first word.
                [0x28 | 0x50..=0x5f] | [0x28 | 0x50..=0x5f, _] | [0x28 | 0x50..=0x5f, _, _] => {}
                begin if Compression::of(begin) == Ok(Compression::Zstd) => {}
                _ => {
                    self.rest.drain(&mut self.source)?;
                    return Ok(false);
                }
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                    if skipped < length.into() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.inside = false;
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(said), Some(found)) if said != found => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of a zstd frame is wrong"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() {
            if !self.inside {
                if !self.begin()? {
                    return Ok(0);
                }
                self.inside = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.end()?;
        }
        Ok(0)
    }
}
