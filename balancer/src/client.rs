//! A client of the API over its unix socket.

use crate::api::Problem;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// A balancer answers within this. Longer than its own longest wait, for a guest's frames.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("No balancer is running at {socket} (start one with: balancer serve)")]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The balancer refused.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// The connection broke off, or the answer is not what this version of the API says.
    #[error("The balancer's answer cannot be used: {0}")]
    Answer(String),
}

/// A client; each request is a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the balancer that listens here.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    /// Sends a request and returns the answer, whatever its status.
    ///
    /// # Errors
    /// When nobody listens or the connection breaks off.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let unreachable = |source| ClientError::Unreachable { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let answer = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // Ends with the last byte of the answer; an error of it shows there as well.
            tokio::spawn(connection);
            let mut request = Request::new(Full::new(Bytes::from(body)));
            *request.method_mut() = method;
            request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("balancer"));
            request
                .headers_mut()
                .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
            match path.parse() {
                Ok(uri) => *request.uri_mut() = uri,
                Err(_) => return Ok(None),
            }
            sender.send_request(request).await.map(Some)
        };
        match tokio::time::timeout(ANSWER_DEADLINE, answer).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(ClientError::Answer(format!("{path:?} is no path of a request"))),
            Ok(Err(error)) => Err(ClientError::Answer(error.to_string())),
            Err(_) => Err(ClientError::Answer(format!("none came within {} s", ANSWER_DEADLINE.as_secs()))),
        }
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When nobody listens, the balancer refuses, or the answer is malformed.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let answer = self.send(method, path, body).await?;
        let status = answer.status();
        let bytes = answer
            .into_body()
            .collect()
            .await
            .map_err(|error| ClientError::Answer(error.to_string()))?
            .to_bytes();
        let malformed = |error: serde_json::Error| ClientError::Answer(error.to_string());
        if !status.is_success() {
            return Err(ClientError::Refused(Box::new(serde_json::from_slice(&bytes).map_err(malformed)?)));
        }
        // An answer without a body (204) reads as null.
        serde_json::from_slice(if bytes.is_empty() { b"null" } else { &bytes }).map_err(malformed)
    }

    /// Calls `each` with the data of every server-sent event until it says no or the stream ends.
    ///
    /// # Errors
    /// When nobody listens, the balancer refuses, or the connection breaks off.
    pub async fn follow(&self, path: &str, mut each: impl FnMut(&str) -> bool) -> Result<(), ClientError> {
        let mut answer = self.send(Method::GET, path, vec![]).await?;
        if !answer.status().is_success() {
            return Err(ClientError::Answer(format!("status {}", answer.status())));
        }
        let mut pending: Vec<u8> = Vec::new();
        while let Some(frame) = answer.body_mut().frame().await {
            let frame = frame.map_err(|error| ClientError::Answer(error.to_string()))?;
            pending.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(data) = line.trim_end().strip_prefix("data: ")
                    && !each(data)
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
