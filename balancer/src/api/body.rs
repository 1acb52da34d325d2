//! Bodies of requests.

use super::problem::Problem;
use axum::body::{self, Body};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Longest body, bytes.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;

/// A JSON body, whatever its content type says (`curl -d` says a form).
#[derive(Debug)]
pub(super) struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, _state: &S) -> Result<Self, Problem> {
        let bytes = body::to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(|error| {
            let cause = std::error::Error::source(&error);
            if cause.is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>()) {
                let detail = format!("The body has more than {BODY_BYTES_MAX} bytes");
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
            } else {
                Problem::new(StatusCode::BAD_REQUEST, "body", "The body cannot be read", error.to_string())
            }
        })?;
        parse(&bytes).map(Self)
    }
}

/// Reads a body, or says which field is wrong.
#[expect(clippy::result_large_err, reason = "once per refused request, and handlers want the problem itself")]
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // A list would be read as the fields in the order of their declaration, which no client means.
    if bytes.trim_ascii_start().starts_with(b"[") {
        let detail = "The body must be an object: {\"max_bytes\": 1073741824}";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "field", "The body is refused", detail));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let error = match serde_path_to_error::deserialize(&mut deserializer) {
        Ok(value) => match deserializer.end() {
            Ok(()) => return Ok(value),
            Err(error) => return Err(malformed(&error)),
        },
        Err(error) => error,
    };
    if error.inner().classify() != Category::Data {
        return Err(malformed(error.inner()));
    }
    // The form is right, a value is not. Its text is in the body, which is JSON as a whole, or else that is the problem.
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
    let message = without_position(error.inner());
    let named = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let field = named.map_or_else(|| error.path().to_string(), str::to_owned);
    let given = value.get(&field).map_or_else(|| value.to_string(), ToString::to_string);
    let given: String = given.chars().take(128).collect();
    let detail = if field == "." { message.clone() } else { format!("{field} is {given}: {message}") };
    let expected = message.split_once("expected ").map_or(message.as_str(), |(_, expected)| expected);
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "field", "A field is refused", detail);
    Err(problem.of_field(field, given, format!("must be {expected}")))
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "json", "The body is not JSON", error.to_string())
}

/// `serde_json` puts the place behind its message, where a reader of one line of JSON has no use for it.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    // Types of Rust are no words for a client.
    ["u64", "u32"].iter().fold(message.to_owned(), |message, word| match message.strip_suffix(word) {
        Some(start) => format!("{start}a whole number, 0 or more"),
        None => message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::limits::LimitsPatch;

    #[test]
    fn refusals_name_the_field_and_the_value() {
        for (body, status, field, value) in [
            (r#"{"max_bytes": -1}"#, 422, Some("max_bytes"), Some("-1")),
            (r#"{"max_bytes": 1e30}"#, 422, Some("max_bytes"), Some("1e+30")),
            (r#"{"max_bytes": "lots"}"#, 422, Some("max_bytes"), Some("\"lots\"")),
            (r#"{"maximum": 1}"#, 422, Some("maximum"), Some("1")),
            (r#"[1]"#, 422, None, None),
            (r#"{"max_bytes": 1"#, 400, None, None),
            (r#"{"max_bytes": 1} x"#, 400, None, None),
            ("lots", 400, None, None),
            ("", 400, None, None),
        ] {
            let problem = parse::<LimitsPatch>(body.as_bytes()).expect_err(body);
            assert_eq!(problem.status, status, "{body}: {problem:?}");
            if let Some(name) = field {
                assert_eq!((problem.field.as_deref(), problem.value.as_deref()), (field, value), "{body}");
                assert!(problem.detail.contains(name), "{problem:?}");
            }
        }
    }
}
