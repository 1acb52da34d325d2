//! The guest socket.

use super::granules;
use super::images;
use super::session::{self, First};
use crate::state::Balancer;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_seqpacket::UnixSeqpacketListener;

/// The bound guest socket.
#[derive(Debug)]
pub struct GuestServer(UnixSeqpacketListener);

impl GuestServer {
    /// Binds the socket. Its folder must be private to the user.
    ///
    /// # Errors
    /// When the path cannot be bound.
    pub fn bind(path: &Path) -> io::Result<Self> {
        UnixSeqpacketListener::bind(path).map(Self)
    }
}

/// Connections that have not registered yet, at a time. Each is cut off after a few seconds.
const PENDING_MAX: usize = 128;
/// Guests to be that wait for their images, at a time: an image that was never verified is read as a whole.
const OPENING_MAX: usize = 256;

/// What bounds the connections of guests.
#[derive(Debug, Clone)]
pub struct GuestPlaces {
    guests: Arc<Semaphore>,
    /// Connections of guests with managed images.
    serving: Arc<Semaphore>,
    pending: Arc<Semaphore>,
    opening: Arc<Semaphore>,
}

impl GuestPlaces {
    /// Places for so many guests.
    #[must_use]
    pub fn new(guests: usize) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            guests: places(guests),
            serving: places(guests),
            pending: places(PENDING_MAX),
            opening: places(OPENING_MAX),
        }
    }
}

/// Accepts guests for ever, as many as there are places.
pub async fn serve(mut server: GuestServer, balancer: Arc<Balancer>, places: GuestPlaces) {
    let GuestPlaces { guests: places, serving, pending, opening } = places;
    loop {
        let waiting = Arc::clone(&pending).acquire_owned().await.expect("the semaphore is never closed");
        match server.0.accept().await {
            Ok(socket) => {
                let (balancer, places) = (Arc::clone(&balancer), Arc::clone(&places));
                let (opening, serving) = (Arc::clone(&opening), Arc::clone(&serving));
                tokio::spawn(async move {
                    let Some((first, socket)) = session::admit(socket).await else { return };
                    drop(waiting);
                    let admitted = match first {
                        First::Register(admitted) => *admitted,
                        First::ServePool(asked, pid) => {
                            return match serving.try_acquire_owned() {
                                Ok(_place) => granules::run(balancer, socket, (asked, pid)).await,
                                Err(_) => {
                                    let reason = "There is no room for another guest with managed images";
                                    session::refuse(&socket, reason.into()).await;
                                }
                            };
                        }
                        First::OpenImages(asked) => {
                            return match opening.try_acquire_owned() {
                                Ok(_place) => images::open(&balancer, &socket, &asked).await,
                                Err(_) => {
                                    let reason =
                                        format!("{OPENING_MAX} guests are being given images already");
                                    session::refuse(&socket, reason).await;
                                }
                            };
                        }
                    };
                    match places.try_acquire_owned() {
                        Ok(_place) => session::run(balancer, socket, admitted).await,
                        Err(_) => session::refuse(&socket, "There is no room for another guest".into()).await,
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: wait for some to come free instead of spinning.
                tracing::error!(%error, "cannot accept a guest");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
