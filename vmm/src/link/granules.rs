//! The second connection of a guest with managed images: only for granules, so that a thread that never waits for a
//! granule can serve it.

use super::images::receive;
use super::{ANSWER_DEADLINE, Link, silent, wrong};
use protocol::image::ImageHandle;
use protocol::message::{FromVmm, PROTOCOL_VERSION, ServePool, ToVmm};
use std::fs::File;
use std::io;
use std::path::Path;

/// Connects for a guest that is registered and maps nothing of its managed images. Returns all its images, with their
/// descriptors.
///
/// # Errors
/// When no answer comes in time, or the answer is not one: a guest that is not registered yet is refused.
pub fn serve_pool(socket: &Path, guest: &str) -> io::Result<(Link, Vec<(ImageHandle, File)>)> {
    let link = Link::connect(socket)?;
    link.0.set_nonblocking(false)?;
    link.0.set_read_timeout(Some(ANSWER_DEADLINE))?;
    link.send(&FromVmm::ServePool(ServePool { protocol_version: PROTOCOL_VERSION, guest: guest.into() }))?;
    let (answer, files) = receive(&link).map_err(|error| silent(error, ANSWER_DEADLINE))?;
    link.0.set_nonblocking(true)?;
    match answer {
        ToVmm::Images { images } if files.len() >= images.len() => {
            Ok((link, images.into_iter().zip(files).collect()))
        }
        ToVmm::Refused { reason } => Err(io::Error::other(reason)),
        other => Err(wrong(format!("asked for granules, got {other:?} with {} descriptors", files.len()))),
    }
}
