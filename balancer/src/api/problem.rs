//! Refusals: RFC 9457 problem details.

use crate::state::StateError;
use crate::tree::TreeError;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::limits::LimitsError;
use protocol::message::OWNERS_MAX;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Kind of the problem, a relative reference: `/problems/limit`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// Status of the answer.
    pub status: u16,
    /// What is wrong with this request, one sentence with its values.
    pub detail: String,
    /// The field that is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What it would have to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
    /// All reasons, where there is more than one: `detail` has them in one line, and `field`, `value` and `bound` are those of the
    /// first that has a field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Reason>,
}

/// One of several reasons for a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// What is wrong, one sentence with its values.
    pub detail: String,
    /// The field that is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What it would have to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
}

impl Problem {
    /// A problem without a field.
    pub fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{kind}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            value: None,
            bound: None,
            errors: vec![],
        }
    }

    /// A field that is out of its bound.
    #[must_use]
    pub fn of_field(
        mut self,
        field: impl Into<String>,
        value: impl Into<String>,
        bound: impl Into<String>,
    ) -> Self {
        self.field = Some(field.into());
        self.value = Some(value.into());
        self.bound = Some(bound.into());
        self
    }

    /// One of several reasons; the first with a field gives the others their kind and status.
    fn of_all(detail: String, reasons: &[StateError]) -> Self {
        let each: Vec<Self> = reasons.iter().map(Self::from).collect();
        let first = each.iter().find(|problem| problem.field.is_some()).or(each.first()).cloned();
        let first = first.unwrap_or_else(|| {
            Self::new(StatusCode::CONFLICT, "conflict", "This cannot be done now", detail.clone())
        });
        let of = |problem: Self| Reason {
            detail: problem.detail,
            field: problem.field,
            value: problem.value,
            bound: problem.bound,
        };
        Self { detail, errors: each.into_iter().map(of).collect(), ..first }
    }

    fn of_limits(detail: String, source: &LimitsError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "limit", "A limit is out of its bound", detail).of_field(
            source.field,
            source.value.clone(),
            source.bound.clone(),
        )
    }
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        Self::from(&error)
    }
}

impl From<&StateError> for Problem {
    fn from(error: &StateError) -> Self {
        let detail = error.chain();
        match error {
            StateError::Many(reasons) => Self::of_all(detail, reasons),
            StateError::Tree(TreeError::Limits { broken, .. }) => Self::of_limits(error.to_string(), broken),
            StateError::Knob(source) => Self::of_limits(error.to_string(), source),
            StateError::Tree(TreeError::Missing(_)) | StateError::NoGuest(_) => {
                Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
            }
            StateError::Tree(TreeError::Busy { .. } | TreeError::Root | TreeError::Full) => Self::new(
                StatusCode::CONFLICT,
                "conflict",
                "The container cannot be changed like this now",
                detail,
            ),
            StateError::Journal(_) => {
                let title = "The journal cannot be written, so nothing was changed";
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "journal", title, detail)
            }
            StateError::NoContainer { field, path } => {
                let title = "A container is named that is not there";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "field", title, detail).of_field(
                    *field,
                    path.as_str(),
                    "must be a container that is there",
                )
            }
            StateError::NoRoom { field, path, above, max_bytes, needed_bytes } => {
                let missing = needed_bytes.saturating_sub(*max_bytes);
                let bound = format!(
                    "must leave max_bytes of {above}, {max_bytes}, at least {needed_bytes}: {missing} are missing"
                );
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "limit", "A limit leaves no room", detail)
                    .of_field(*field, path.as_str(), bound)
            }
            StateError::Owners { field, .. } => {
                let bound = format!("must be at most {OWNERS_MAX} containers");
                let title = "A guest is charged to too many containers";
                let value = format!("{}", OWNERS_MAX + 1);
                Self::new(StatusCode::CONFLICT, "conflict", title, detail).of_field(*field, value, bound)
            }
            StateError::Bound { subject, container } => {
                let bound = format!("must not be bound to {container}, unless replace is true");
                Self::new(StatusCode::CONFLICT, "conflict", "It is bound to another container", detail)
                    .of_field("subject", subject.to_string(), bound)
            }
            StateError::Bindings => {
                Self::new(StatusCode::CONFLICT, "conflict", "There are too many bindings", detail)
            }
            StateError::NoBinding(_) => {
                Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
            }
            StateError::OtherDomain { path, from, .. } => {
                let title = "A guest cannot change its trust domain";
                let bound = format!("must be a container of domain {from} while the guest shares pages");
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "field", title, detail).of_field(
                    "container",
                    path.as_str(),
                    bound,
                )
            }
            StateError::Attach { qmp, why } => {
                Self::new(StatusCode::CONFLICT, "attach", "The guest cannot be attached", detail).of_field(
                    "qmp",
                    qmp.to_string_lossy(),
                    format!("must be a free monitor of a guest that can be taken: {why}"),
                )
            }
            StateError::NotAttached(_) => {
                Self::new(StatusCode::CONFLICT, "conflict", "The guest cannot be detached", detail)
            }
            StateError::Deaf(_) | StateError::Deadline { .. } | StateError::DetachDeadline { .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline", "A guest did not answer", detail)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).expect("a problem has only plain fields");
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
