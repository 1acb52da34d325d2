//! A client of the API over its unix socket.

use crate::objects::{
    Changed, ContainerObject, Event, GuestObject, HostObject, PolicyObject, PoolObject, Preview, Problem,
};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use protocol::path::ContainerPath;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// A balancer must answer within this. Longer than its own longest wait, which is for a guest's frames.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No balancer listens.
    #[error("No balancer is running at {socket} (start one with: balancer serve)")]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It is not known whether one listens.
    #[error("Cannot reach the balancer at {socket}: is it another user's? (--run-dir names another folder)")]
    Barred {
        /// The socket.
        socket: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The balancer refused.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// The connection broke off, or the answer does not fit this version of the API.
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
    /// When no balancer listens or the connection breaks off.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let unreachable = |source: io::Error| {
            let socket = self.socket.clone();
            match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::Unreachable { socket, source }
                }
                _ => ClientError::Barred { socket, source },
            }
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let answer = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // Ends with the last byte of the answer, where an error of the connection is also seen.
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
            Ok(Ok(None)) => Err(ClientError::Answer(format!("{path:?} is not the path of a request"))),
            Ok(Err(error)) => Err(ClientError::Answer(error.to_string())),
            Err(_) => {
                Err(ClientError::Answer(format!("it did not arrive within {} s", ANSWER_DEADLINE.as_secs())))
            }
        }
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When no balancer listens, it refuses, or its answer is malformed.
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

    /// Reads an object.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, vec![]).await
    }

    /// Makes a change, or with `dry_run` asks what it would do.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        dry_run: bool,
    ) -> Result<Changed<T>, ClientError> {
        let body = serde_json::to_vec(body).expect("objects of the API have only plain fields");
        if dry_run {
            return Ok(Changed::Previewed(self.call(method, &with_dry_run(path), body).await?));
        }
        Ok(Changed::Done(Box::new(self.call(method, path, body).await?)))
    }

    /// Removes a thing, or with `dry_run` asks what that would do.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn remove(&self, path: &str, dry_run: bool) -> Result<Option<Preview>, ClientError> {
        let path = if dry_run { with_dry_run(path) } else { path.to_owned() };
        self.call(Method::DELETE, &path, vec![]).await
    }

    /// The host.
    ///
    /// # Errors
    /// As [`call`](Self::call); so all below.
    pub async fn host(&self) -> Result<HostObject, ClientError> {
        self.get("/v1/host").await
    }

    /// All containers in the order of their paths.
    ///
    /// # Errors
    /// As above.
    pub async fn containers(&self) -> Result<Vec<ContainerObject>, ClientError> {
        self.get("/v1/containers").await
    }

    /// A container.
    ///
    /// # Errors
    /// As above.
    pub async fn container(&self, path: &ContainerPath) -> Result<ContainerObject, ClientError> {
        self.get(&routes::container(path)).await
    }

    /// All guests in the order of their names.
    ///
    /// # Errors
    /// As above.
    pub async fn guests(&self) -> Result<Vec<GuestObject>, ClientError> {
        self.get("/v1/guests").await
    }

    /// A guest.
    ///
    /// # Errors
    /// As above.
    pub async fn guest(&self, name: &str) -> Result<GuestObject, ClientError> {
        self.get(&routes::guest(name)).await
    }

    /// The shared pool, by scans that are at most this old.
    ///
    /// # Errors
    /// As above.
    pub async fn pool(&self, age_ms_max: u64) -> Result<PoolObject, ClientError> {
        self.get(&format!("/v1/pool?max_age_ms={age_ms_max}")).await
    }

    /// The policy.
    ///
    /// # Errors
    /// As above.
    pub async fn policy(&self) -> Result<PolicyObject, ClientError> {
        self.get(routes::POLICY).await
    }

    /// The events that are kept.
    ///
    /// # Errors
    /// As above.
    pub async fn events(&self) -> Result<Vec<Event>, ClientError> {
        self.get("/v1/events?follow=false").await
    }

    /// Calls `each` with the data of every server-sent event until it returns false or the stream ends.
    ///
    /// # Errors
    /// When no balancer listens, it refuses, or the connection breaks off.
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

/// Paths of things that have one each.
pub mod routes {
    use protocol::path::ContainerPath;

    /// The policy.
    pub const POLICY: &str = "/v1/policy";
    /// All guests.
    pub const GUESTS: &str = "/v1/guests";
    /// All bindings.
    pub const BINDINGS: &str = "/v1/bindings";

    /// A container.
    #[must_use]
    pub fn container(path: &ContainerPath) -> String {
        format!("/v1/containers{path}")
    }

    /// Why the guests in a container have their targets.
    #[must_use]
    pub fn explain_container(path: &ContainerPath) -> String {
        format!("/v1/explain{path}")
    }

    /// A guest.
    #[must_use]
    pub fn guest(name: &str) -> String {
        format!("{GUESTS}/{}", encoded(name))
    }

    /// The binding of a path or an image.
    #[must_use]
    pub fn binding(subject: &str) -> String {
        format!("{BINDINGS}?subject={}", encoded(subject))
    }

    /// A text as one segment of a path, or as one value of a query (RFC 3986, section 2.1).
    fn encoded(text: &str) -> String {
        let encode = |byte: u8| match byte {
            plain if plain.is_ascii_alphanumeric() || b"-_.~".contains(&plain) => char::from(plain).into(),
            other => format!("%{other:02X}"),
        };
        text.bytes().map(encode).collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_name_is_one_segment_of_a_path() {
            assert_eq!(guest("a/b c?\u{e9}"), "/v1/guests/a%2Fb%20c%3F%C3%A9");
            assert_eq!(binding("/srv/x&y"), "/v1/bindings?subject=%2Fsrv%2Fx%26y");
            assert_eq!(container(&"/web/a".parse().unwrap()), "/v1/containers/web/a");
            assert_eq!(explain_container(&ContainerPath::root()), "/v1/explain/");
        }
    }
}

fn with_dry_run(path: &str) -> String {
    let sign = if path.contains('?') { '&' } else { '?' };
    format!("{path}{sign}dry_run=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_query() {
        assert_eq!(with_dry_run("/a"), "/a?dry_run=true");
        assert_eq!(with_dry_run("/a?b=c"), "/a?b=c&dry_run=true");
    }
}
