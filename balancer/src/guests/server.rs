//! The guest socket.

use super::session;
use crate::engine::Engine;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
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

/// Accepts guests for ever.
pub async fn serve(mut server: GuestServer, engine: Arc<Engine>) {
    loop {
        match server.0.accept().await {
            Ok(socket) => {
                tokio::spawn(session::run(Arc::clone(&engine), socket));
            }
            Err(error) => {
                // Out of descriptors, most likely: wait for some to come free instead of spinning.
                tracing::error!(%error, "cannot accept a guest");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
