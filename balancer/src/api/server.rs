//! The API's sockets. A client may be slow, silent or one of thousands: each holds one of a few places for a bounded
//! time.
//!
//! | what a client does | what bounds it |
//! |---|---|
//! | opens connections | [`serve`]'s places; a client that finds none waits in the kernel's queue |
//! | sends no header, or a byte now and then | [`HEADER_DEADLINE`], also between two requests |
//! | sends no body | the body's own deadline |
//! | sends long headers | [`BUFFER_BYTES_MAX`] |
//! | does not read events | the same buffer: events wait in the ring, which all clients share |

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// A request's header must arrive within this, counted from the connection or the previous request.
pub const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes that are buffered for one connection, and so the longest header.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Serves requests for ever, `places` connections at a time.
pub async fn serve<L: Listener>(mut listener: L, router: Router, places: usize) {
    let free = Arc::new(Semaphore::new(places));
    loop {
        let place = Arc::clone(&free).acquire_owned().await.expect("the semaphore is never closed");
        let (stream, _) = listener.accept().await;
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE).max_buf_size(BUFFER_BYTES_MAX);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a client's connection broke off");
            }
            drop(place);
        });
    }
}
