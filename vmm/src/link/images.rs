//! Asking the balancer for images of its store, before the guest is built: on a connection of its own.

use super::{Link, QUEUE_PAUSE, silent, wrong};
use protocol::image::{Backing, IMAGES_MAX, ImageHandle};
use protocol::message::{self, FromVmm, MESSAGE_BYTES_MAX, OpenImages, PROTOCOL_VERSION, ToVmm};
use protocol::path::ContainerPath;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::{Duration, Instant};

/// The balancer's answer to a guest that wants images.
#[derive(Debug)]
pub enum Granted {
    /// For each name, in order, an image and its descriptor; for a managed image also the descriptor that marks it as
    /// used in the store.
    Images(Vec<(ImageHandle, File, Option<File>)>),
    /// The reason of a refusal.
    Refused(String),
}

/// How long the balancer may take: it reads an image that it opens for the first time, copies it for the trust domain
/// and compares it with its digest.
const IMAGES_DEADLINE: Duration = Duration::from_secs(300);

/// Asks for images by their names, for a guest in this container.
///
/// # Errors
/// When no answer comes in time, or the answer is not one.
pub fn open_images(socket: &Path, container: &ContainerPath, names: &[String]) -> io::Result<Granted> {
    let question = FromVmm::OpenImages(OpenImages {
        protocol_version: PROTOCOL_VERSION,
        container: container.clone(),
        images: names.to_vec(),
    });
    let deadline = Instant::now() + IMAGES_DEADLINE;
    let link = loop {
        match Link::connect(socket) {
            // Many guests start at once and the balancer's queue is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(QUEUE_PAUSE);
            }
            result => break result?,
        }
    };
    link.0.set_nonblocking(false)?;
    link.0.set_read_timeout(Some(IMAGES_DEADLINE))?;
    link.send(&question)?;
    let (answer, files) = receive(&link).map_err(|error| silent(error, IMAGES_DEADLINE))?;
    match answer {
        ToVmm::Images { images } if images.len() == names.len() && files.len() == expected(&images) => {
            let mut files = files.into_iter();
            let own: Vec<File> = files.by_ref().take(images.len()).collect();
            let with_mark = |(handle, file): (ImageHandle, File)| {
                let mark = if handle.backing == Backing::Managed { files.next() } else { None };
                (handle, file, mark)
            };
            Ok(Granted::Images(images.into_iter().zip(own).map(with_mark).collect()))
        }
        ToVmm::Refused { reason } => Ok(Granted::Refused(reason)),
        ToVmm::Images { images } => Err(wrong(format!(
            "asked for {} images, got {} with {} descriptors",
            names.len(),
            images.len(),
            files.len()
        ))),
        other => Err(wrong(format!("asked for images, got {other:?}"))),
    }
}

/// Descriptors that come with images.
fn expected(images: &[ImageHandle]) -> usize {
    images.len() + images.iter().filter(|image| image.backing == Backing::Managed).count()
}

/// One message with the descriptors that travel with it.
pub(super) fn receive(link: &Link) -> io::Result<(ToVmm, Vec<File>)> {
    let mut packet = vec![0; MESSAGE_BYTES_MAX + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2 * IMAGES_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let vectors = &mut [IoSliceMut::new(&mut packet)];
    let count = recvmsg(link, vectors, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    // Owned before anything can fail.
    let files: Vec<File> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .map(File::from)
        .collect();
    if count == 0 {
        return Err(io::Error::new(ErrorKind::ConnectionReset, "the balancer closed the connection"));
    }
    let answer =
        message::decode(&packet[..count]).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    Ok((answer, files))
}

#[cfg(test)]
#[path = "images_test.rs"]
mod tests;
