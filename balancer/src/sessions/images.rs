//! Images for guests: they are handed out before a guest is built, and found again when a guest comes back.

use super::session::{SEND_DEADLINE, chain, refuse};
use crate::pool::{Backed, Key, LibraryError};
use crate::state::Balancer;
use protocol::image::ImageHandle;
use protocol::message::{self, OpenImages, Register, ToVmm};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::time::timeout;
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::AncillaryMessageWriter;

/// Room for two descriptors for each image, and the header before them (cmsg(3)).
const ANCILLARY_BYTES: usize = 256;

/// Answers a request for images: with their descriptors, or with the reason why not.
pub(super) async fn open(balancer: &Arc<Balancer>, socket: &UnixSeqpacket, asked: &OpenImages) {
    match hand_out(balancer, asked).await {
        Ok(images) => {
            if let Err(error) = send_all(socket, images).await {
                tracing::debug!(error, "the images were not taken");
            }
        }
        Err(reason) => refuse(socket, reason).await,
    }
}

async fn hand_out(balancer: &Arc<Balancer>, asked: &OpenImages) -> Result<Vec<Backed>, String> {
    if asked.images.is_empty() {
        return Err("No image is asked for".into());
    }
    let domain = balancer.domain(&asked.container);
    let (library, names) = (balancer.library(), asked.images.clone());
    let opened = blocking(move || library.open_all(&names, &domain));
    let opened = opened.await.map_err(|error| report(balancer, None, &error))?;
    balancer.open_images(&opened)
}

/// Hands images to a guest.
pub(super) async fn send_all(socket: &UnixSeqpacket, images: Vec<Backed>) -> Result<(), String> {
    let handle = |(key, backing): &Backed| ImageHandle {
        digest: key.digest,
        bytes: backing.bytes(),
        backing: backing.kind(),
    };
    let answer = ToVmm::Images { images: images.iter().map(handle).collect() };
    let files = tokio::task::spawn_blocking(move || -> io::Result<Vec<File>> {
        let backings = || images.iter().map(|(_, backing)| backing);
        let files = backings().map(|backing| backing.open_for_guest());
        files.chain(backings().filter_map(|backing| backing.mark().transpose())).collect()
    });
    let files = files.await.map_err(|error| error.to_string())?;
    let files = files.map_err(|error| format!("the images cannot be opened for a guest: {error}"))?;
    let packet = message::encode(&answer).map_err(|error| chain(&error))?;
    let mut buffer = [0; ANCILLARY_BYTES];
    let mut ancillary = AncillaryMessageWriter::new(&mut buffer);
    ancillary.add_fds(files.iter().map(AsFd::as_fd)).map_err(|error| error.to_string())?;
    match timeout(SEND_DEADLINE, socket.send_with_ancillary(&packet, &mut ancillary)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("its vmm hung up: {error}")),
        Err(_) => Err(format!("its vmm took no message for {} s", SEND_DEADLINE.as_secs())),
    }
}

/// Opens the images that a guest has mapped under an earlier balancer. They are verified after the registration,
/// which must not wait until all of them are read; an image that has changed is an event.
pub(super) async fn find_again(balancer: &Arc<Balancer>, about: &Register) -> Result<(), String> {
    let keys = balancer.unknown_images(about);
    if keys.is_empty() {
        return Ok(());
    }
    let library = balancer.library();
    let opened = blocking(move || keys.iter().map(|key| library.open(key)).collect::<Result<Vec<_>, _>>());
    let opened = opened.await.map_err(|error| report(balancer, None, &error))?;
    balancer.open_images(&opened)?;
    for image in opened {
        let balancer = Arc::clone(balancer);
        tokio::spawn(async move {
            let (library, key) = (balancer.library(), image.key.clone());
            if let Err(error) = blocking(move || library.verify(&image)).await {
                report(&balancer, Some(&key), &error);
            }
        });
    }
    Ok(())
}

/// Work that waits for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LibraryError> + Send + 'static,
) -> Result<T, LibraryError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(LibraryError::Panicked(error.to_string())))
}

/// The reason as a sentence. If an image is not what it was, this is an event as well.
fn report(balancer: &Balancer, key: Option<&Key>, error: &LibraryError) -> String {
    let reason = chain(error);
    if error.is_change() {
        balancer.image_changed(key, &reason);
    }
    reason
}
