//! Bodies of requests.

use super::places::Connection;
use crate::objects::Problem;
use axum::body::{self, Body};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::error::Category;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Longest body, bytes.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;

/// A body must arrive within this, however slowly its client writes.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// A JSON body, whatever its content type says (`curl -d` says a form).
#[derive(Debug)]
pub(super) struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, _state: &S) -> Result<Self, Problem> {
        let connection = request.extensions().get::<Arc<Connection>>().cloned();
        if let Some(connection) = &connection {
            connection.reads();
        }
        let reading = body::to_bytes(request.into_body(), BODY_BYTES_MAX);
        let read = tokio::time::timeout(BODY_DEADLINE, reading).await;
        if let Some(connection) = &connection {
            connection.read();
        }
        let late = |_| {
            let detail = format!("The body did not arrive within {} s", BODY_DEADLINE.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "The request took too long", detail)
        };
        let bytes = read.map_err(late)?.map_err(|error| {
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
    read(bytes).or_else(|refused| match whole_numbers(bytes) {
        Some(text) => read(text.as_bytes()),
        None => Err(refused),
    })
}

/// The fields of an object in the order of a body, also those that are given twice.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields, M::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// The body with each `4.0` written as `4`; `None` if it has no such number. JSON does not distinguish the two, and
/// some clients write all numbers with a point. Only the top level is searched: bodies have no numbers below it.
fn whole_numbers(bytes: &[u8]) -> Option<String> {
    let Fields(fields) = serde_json::from_slice(bytes).ok()?;
    let mut changed = false;
    let text = |(name, value): &(String, Value)| {
        let number = whole(value);
        changed |= number.is_some();
        format!("{}:{}", Value::String(name.clone()), number.as_ref().unwrap_or(value))
    };
    let fields: Vec<String> = fields.iter().map(text).collect();
    changed.then(|| format!("{{{}}}", fields.join(",")))
}

/// A number with a point or an exponent that is a whole number.
pub(super) fn whole(value: &Value) -> Option<Value> {
    // All below are whole numbers of 64 bits.
    const BOUND: f64 = 18_446_744_073_709_551_616.0;
    let number = value.as_number().filter(|number| number.is_f64())?.as_f64()?;
    let is_whole = number.fract() == 0.0 && (0.0..BOUND).contains(&number);
    is_whole.then(|| Value::from(number as u64))
}

#[expect(clippy::result_large_err, reason = "once per refused request, and handlers want the problem itself")]
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would read a list as the fields in the order of their declaration, which no client means; it would refuse
    // any other value with the name of a Rust type.
    if let Ok(value) = serde_json::from_slice::<Value>(bytes)
        && !value.is_object()
    {
        let detail = format!(
            "The body is {}, but must be an object: {{\"max_bytes\": 1073741824}}",
            shortened(&value.to_string())
        );
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
    // The form is right and a value is wrong. Its text is taken from the body, unless the body as a whole is not JSON.
    let value: Value = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
    let message = without_position(error.inner());
    if let Some(field) = between(&message, "duplicate field `") {
        let problem = Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "field",
            "A field is refused",
            format!("{field} is given twice"),
        );
        let last = value.get(field).map_or_else(String::new, |value| shortened(&value.to_string()));
        return Err(problem.of_field(field, last, "must be given once"));
    }
    let named = between(&message, "unknown field `");
    let field = named.map_or_else(|| error.path().to_string(), str::to_owned);
    let given = value.get(&field).map_or_else(|| value.to_string(), ToString::to_string);
    let given = shortened(&given);
    let detail = if field == "." { message.clone() } else { format!("{field} is {given}: {message}") };
    let expected = message.split_once("expected ").map(|(_, expected)| format!("must be {expected}"));
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "field", "A field is refused", detail);
    Err(problem.of_field(field, given, expected.unwrap_or(message)))
}

/// The name that a message puts into backticks behind its first words.
fn between<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    message.strip_prefix(start)?.split('`').next()
}

/// The start of a text that a client sent, to be quoted in a refusal.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "json", "The body is not JSON", error.to_string())
}

/// `serde_json` appends the position to its message; a reader of one line of JSON has no use for it.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    // A client does not know the names of Rust's types.
    let words = [("u64", "a whole number, 0 or more"), ("u32", "a whole number, 0 to 4294967295")];
    let type_is = |word: &str| message.ends_with(&format!("expected {word}"));
    match words.iter().find(|(word, _)| type_is(word)) {
        Some((word, meaning)) => message.replace(&format!("expected {word}"), &format!("expected {meaning}")),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::limits::LimitsPatch;

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        let patch: LimitsPatch = parse(br#"{"max_bytes": 4096.0, "weight": 1e2, "max_fds": null}"#).unwrap();
        assert_eq!((patch.max_bytes, patch.weight, patch.max_fds), (Some(Some(4096)), Some(100), Some(None)));
        for body in [r#"{"weight": 1.0, "weight": 2.0}"#, r#"{"weight": 1.5}"#, r#"{"max_bytes": -1.0}"#] {
            assert_eq!(parse::<LimitsPatch>(body.as_bytes()).expect_err(body).status, 422, "{body}");
        }
    }

    #[test]
    fn refusals_name_the_field_and_the_value() {
        for (body, status, field, value) in [
            (r#"{"max_bytes": -1}"#, 422, Some("max_bytes"), Some("-1")),
            (r#"{"max_bytes": 1e30}"#, 422, Some("max_bytes"), Some("1e+30")),
            (r#"{"max_bytes": "lots"}"#, 422, Some("max_bytes"), Some("\"lots\"")),
            (r#"{"max_bytes": null, "min_bytes": true}"#, 422, Some("min_bytes"), Some("true")),
            (r#"{"maximum": 1}"#, 422, Some("maximum"), Some("1")),
            (r#"{"max_bytes": 1, "max_bytes": 2}"#, 422, Some("max_bytes"), Some("2")),
            (r#"{"max_vcpus": -1}"#, 422, Some("max_vcpus"), Some("-1")),
            (r#"{"max_fds": 1.5}"#, 422, Some("max_fds"), Some("1.5")),
            (r#"{"weight": 4294967296}"#, 422, Some("weight"), Some("4294967296")),
            (r#"[1]"#, 422, None, None),
            ("null", 422, None, None),
            ("7", 422, None, None),
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
