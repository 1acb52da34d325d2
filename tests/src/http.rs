//! The REST API over its Unix socket, as a client that can also misbehave.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the balancer may be silent.
const SILENT_MAX: Duration = wait::QUIET_MAX;

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body, `Null` when it is empty or not JSON.
    pub body: Value,
}

impl Answer {
    /// The body as an object of the API.
    ///
    /// # Errors
    /// When it is another one.
    pub fn read<T: DeserializeOwned>(self) -> Result<T> {
        serde_json::from_value(self.body.clone()).with_context(|| format!("read {self:?}"))
    }
}

/// One request with a JSON body.
///
/// # Errors
/// When no HTTP answer comes in time.
pub fn request(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
    let body = body.map(Value::to_string).unwrap_or_default();
    raw(
        socket,
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: ballast\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

/// Sends bytes as they are.
///
/// # Errors
/// When no HTTP answer comes in time.
pub fn raw(socket: &Path, bytes: &str) -> Result<Answer> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(SILENT_MAX))?;
    stream.set_write_timeout(Some(SILENT_MAX))?;
    // The server may refuse a body before it has read all of it.
    let _ = stream.write_all(bytes.as_bytes());
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("read the answer")?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = head.parse(&answer)? else { bail!("half an answer: {answer:?}") };
    let body = serde_json::from_slice(&answer[end..]).unwrap_or(Value::Null);
    Ok(Answer { status: head.code.context("a status")?, body })
}
