//! The token of TCP clients.

use crate::objects::Problem;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::path::Path;
use std::sync::Arc;

/// Shortest token, bytes: 128 bits in hexadecimal.
const TOKEN_BYTES_MIN: usize = 32;

/// A secret that every request over TCP must carry (`Authorization: Bearer ...`, RFC 6750).
#[derive(Clone)]
pub struct Token(Arc<[u8]>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Reads the token from a file: its first line.
    ///
    /// # Errors
    /// When the file cannot be read or the token is too short to be a secret.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        use anyhow::Context;
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("Cannot read the token file {}", path.display()))?;
        let token = text.lines().next().unwrap_or("").trim();
        let length = token.len();
        anyhow::ensure!(
            length >= TOKEN_BYTES_MIN,
            "The token in {} has {length} characters, but must have at least {TOKEN_BYTES_MIN}",
            path.display()
        );
        Ok(Self(token.as_bytes().into()))
    }

    /// True if these are the same bytes. Takes the same time wherever they differ.
    fn matches(&self, shown: &[u8]) -> bool {
        let differing = self.0.iter().zip(shown).fold(0, |bits, (own, other)| bits | (own ^ other));
        self.0.len() == shown.len() && std::hint::black_box(differing) == 0
    }

    /// Lets a request pass that carries the token.
    pub async fn check(State(token): State<Self>, request: Request, next: Next) -> Response {
        let shown = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if shown.is_some_and(|shown| token.matches(shown)) {
            return next.run(request).await;
        }
        let detail = "Over TCP each request must carry the token: Authorization: Bearer ...";
        let problem =
            Problem::new(StatusCode::UNAUTHORIZED, "token", "The token is missing or wrong", detail);
        ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_matches() {
        let token = Token(Arc::from(&b"0123456789abcdef"[..]));
        assert!(token.matches(b"0123456789abcdef"));
        for shown in [&b""[..], b"0123456789abcde", b"0123456789abcdeg", b"0123456789abcdef0"] {
            assert!(!token.matches(shown));
        }
    }
}
