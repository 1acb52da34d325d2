//! The API's sockets. A client may be slow, silent or one of thousands: each connection holds one of a few places for a
//! bounded time.
//!
//! | what a client does | what bounds it |
//! |---|---|
//! | opens connections | [`places`](super::places): the oldest that waits makes room, first among its own |
//! | sends no header, or a byte now and then | a deadline of 10 s, from the first byte on |
//! | is idle between two requests | a deadline of 120 s, where its place is not needed |
//! | sends no body | the body's own deadline |
//! | sends long headers | [`BUFFER_BYTES_MAX`] |
//! | does not read events | the same buffer: events wait in the ring, which all clients share |

use super::places::{Client, Connection, Place, Places};
use crate::objects::Problem;
use axum::Router;
use axum::http::{Request, StatusCode};
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Bytes that are buffered for one connection, and so the longest header.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// A socket whose clients can be told apart.
pub trait Transport: Listener {
    /// The client at the other end of a connection.
    fn client(stream: &Self::Io, address: &Self::Addr) -> Client;
}

impl Transport for UnixListener {
    fn client(stream: &UnixStream, _: &Self::Addr) -> Client {
        let peer = stream.peer_cred().ok();
        let uid = peer.as_ref().map_or(u32::MAX, tokio::net::unix::UCred::uid);
        Client::Process(uid, peer.and_then(|peer| peer.pid()).unwrap_or(0))
    }
}

impl Transport for TcpListener {
    fn client(_: &Self::Io, address: &SocketAddr) -> Client {
        Client::host(address.ip())
    }
}

/// Serves requests for ever, as many connections at a time as there are places.
pub async fn serve<L: Transport>(mut listener: L, router: Router, places: Arc<Places>) {
    loop {
        let (stream, address) = listener.accept().await;
        let client = L::client(&stream, &address);
        match places.take(client) {
            Some(place) => drop(tokio::spawn(serve_one(stream, router.clone(), place))),
            None => drop(tokio::spawn(refuse(stream))),
        }
    }
}

/// Serves a connection to its end.
async fn serve_one<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    place: Place,
) {
    let connection = Arc::clone(&place.0);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: Request<Incoming>| {
        let connection = Arc::clone(&connection);
        connection.begin();
        request.extensions_mut().insert(Arc::clone(&connection));
        let answer = hyper::service::Service::call(&router, request);
        async move {
            let answer = answer.await;
            connection.end();
            answer
        }
    });
    let stream = Heard { stream, connection: Arc::clone(&connection) };
    let mut http = http1::Builder::new();
    // The deadlines are those of the place.
    http.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER_BYTES_MAX);
    tokio::select! {
        served = http.serve_connection(TokioIo::new(stream), service) => {
            if let Err(error) = served {
                tracing::debug!(%error, "a client's connection broke off");
            }
        }
        () = connection.ended() => tracing::debug!("a client's connection is closed for others, or was silent"),
    }
    drop(place);
}

/// Refuses a connection for which there is no place. The client gets the answer only if it reads within a second.
async fn refuse<S: AsyncWrite + Unpin>(mut stream: S) {
    let detail =
        "Each connection of the API is at work, and none of another client can be closed for this one";
    let title = "There are too many clients";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", title, detail);
    let body = serde_json::to_string(&problem).expect("a problem has only plain fields");
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let _ =
        tokio::time::timeout(std::time::Duration::from_secs(1), stream.write_all(answer.as_bytes())).await;
}

/// A stream that tells its connection when bytes arrive.
struct Heard<S> {
    stream: S,
    connection: Arc<Connection>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.connection.received();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "server_test.rs"]
mod tests;
