//! The form of a block request (virtio 1.3, section 5.2.6): a header to read, data, one status byte to write.

use super::{Buffers, ChainError};
use crate::DeviceMemory;
use crate::virtio::buffers::{Extent, Segments, Writable, extents};
use crate::virtio::queue::Chain;
use virtio_bindings::virtio_blk as blk;

/// le32 type, le32 reserved, le64 sector.
const HEADER_BYTES: usize = 16;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Read,
    Write,
    Flush,
    Id,
    Discard,
    WriteZeroes,
    Other,
}

/// The driver's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub command: Command,
    pub sector: u64,
}

impl Header {
    fn from_bytes(bytes: [u8; HEADER_BYTES]) -> Self {
        let (kind, rest) = bytes.split_at(4);
        let word = u32::from_le_bytes(kind.try_into().expect("4 bytes"));
        let sector = u64::from_le_bytes(rest[4..].try_into().expect("8 bytes"));
        let command = match word {
            blk::VIRTIO_BLK_T_IN => Command::Read,
            blk::VIRTIO_BLK_T_OUT => Command::Write,
            blk::VIRTIO_BLK_T_FLUSH => Command::Flush,
            blk::VIRTIO_BLK_T_GET_ID => Command::Id,
            blk::VIRTIO_BLK_T_DISCARD => Command::Discard,
            blk::VIRTIO_BLK_T_WRITE_ZEROES => Command::WriteZeroes,
            _ => Command::Other,
        };
        Self { command, sector }
    }
}

/// Splits a chain into data, header and the place of the status, which is the very last writable byte.
pub(super) fn parse(
    mut buffers: Buffers<'_>,
) -> Result<(Buffers<'_>, Header, Segments<'_, Writable>), ChainError> {
    let mut header = [0; HEADER_BYTES];
    if buffers.readable.read(&mut header) != HEADER_BYTES || buffers.writable.is_empty() {
        return Err(ChainError::Broken);
    }
    let data = buffers.writable.take(buffers.writable.len() - 1);
    let status = std::mem::replace(&mut buffers.writable, data);
    Ok((buffers, Header::from_bytes(header), status))
}

/// The place of the status alone, of a chain with buffers that cannot be used; `None` if that cannot be used either.
pub(super) fn status_of<'m>(mem: &'m DeviceMemory, chain: Chain<'_>) -> Option<Segments<'m, Writable>> {
    let last = *extents(chain).ok()?.last().filter(|last| last.writable && last.len > 0)?;
    let mut status = Segments::default();
    status.add(mem, Extent { gpa: last.gpa.checked_add(u64::from(last.len) - 1)?, len: 1, ..last }).ok()?;
    Some(status)
}
