//! Refusals, made from errors of the state.

use crate::objects::{Problem, Reason};
use crate::state::StateError;
use crate::tree::TreeError;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::message::OWNERS_MAX;

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
    fn of_all(whole: Self, reasons: &[StateError]) -> Self {
        let each: Vec<Self> = reasons.iter().map(Self::from).collect();
        let first = each.iter().find(|problem| problem.field.is_some()).or(each.first()).cloned();
        let of = |problem: Self| Reason {
            detail: problem.detail,
            field: problem.field,
            value: problem.value,
            bound: problem.bound,
        };
        let errors = each.into_iter().map(of).collect();
        match first {
            Some(first) => Self { detail: whole.detail, errors, ..first },
            None => whole,
        }
    }
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        Self::from(&error)
    }
}

impl From<&StateError> for Problem {
    fn from(error: &StateError) -> Self {
        let (status, kind, title) = heading(error);
        let problem = Self::new(status, kind, title, error.chain());
        match error {
            StateError::Many(reasons) => Self::of_all(problem, reasons),
            _ => match refused_field(error) {
                Some((field, value, bound)) => problem.of_field(field, value, bound),
                None => problem,
            },
        }
    }
}

/// Status, kind and title of a refusal.
fn heading(error: &StateError) -> (StatusCode, &'static str, &'static str) {
    match error {
        StateError::Many(_) => (StatusCode::CONFLICT, "conflict", "This cannot be done now"),
        StateError::Tree(TreeError::Limits { broken, .. }) | StateError::Knob(broken) => {
            // What another state would allow is a conflict with this one.
            let status =
                if broken.by_itself { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::CONFLICT };
            (status, "limit", "A limit is out of its bound")
        }
        StateError::NoRoom { .. } => (StatusCode::CONFLICT, "limit", "A limit leaves no room"),
        StateError::NoContainer { .. } => (StatusCode::CONFLICT, "field", "A container does not exist"),
        StateError::OtherDomain { .. } => {
            (StatusCode::CONFLICT, "field", "A guest cannot change its trust domain")
        }
        StateError::Tree(TreeError::Missing(_)) => {
            (StatusCode::NOT_FOUND, "not-found", "There is no such container")
        }
        StateError::NoGuest(_) => (StatusCode::NOT_FOUND, "not-found", "There is no such guest"),
        StateError::NoBinding(_) => (StatusCode::NOT_FOUND, "not-found", "There is no such binding"),
        StateError::Tree(TreeError::Busy { .. } | TreeError::Root | TreeError::Full) => {
            (StatusCode::CONFLICT, "conflict", "The container cannot be changed like this now")
        }
        StateError::Owners { .. } => {
            (StatusCode::CONFLICT, "conflict", "A guest is charged to too many containers")
        }
        StateError::Bound { .. } => {
            (StatusCode::CONFLICT, "conflict", "The subject is bound to another container")
        }
        StateError::Bindings => (StatusCode::CONFLICT, "conflict", "There are too many bindings"),
        StateError::NotAttached(_) => (StatusCode::CONFLICT, "conflict", "The guest cannot be detached"),
        StateError::Attach { .. } => (StatusCode::CONFLICT, "attach", "The guest cannot be attached"),
        StateError::Journal(_) => {
            let title = "The journal cannot be written, so nothing was changed";
            (StatusCode::INSUFFICIENT_STORAGE, "journal", title)
        }
        StateError::Deaf(_) | StateError::Deadline { .. } | StateError::DetachDeadline { .. } => {
            (StatusCode::GATEWAY_TIMEOUT, "deadline", "A guest did not answer")
        }
    }
}

/// The field that a refusal is about, its value, and what it would have to be.
fn refused_field(error: &StateError) -> Option<(&'static str, String, String)> {
    Some(match error {
        StateError::Tree(TreeError::Limits { broken, .. }) | StateError::Knob(broken) => {
            (broken.field, broken.value.clone(), broken.bound.clone())
        }
        StateError::NoContainer { field, path } => {
            (field, path.to_string(), "must be a container that exists".into())
        }
        StateError::NoRoom { field, path, above, max_bytes, needed_bytes } => {
            let missing = needed_bytes.saturating_sub(*max_bytes);
            let bound = format!(
                "must leave max_bytes of {above}, {max_bytes}, at least {needed_bytes}; {missing} bytes are missing"
            );
            (field, path.to_string(), bound)
        }
        StateError::Owners { field, .. } => {
            let bound = format!("must be at most {OWNERS_MAX} containers");
            (field, (OWNERS_MAX + 1).to_string(), bound)
        }
        StateError::Bound { subject, container } => {
            let bound = format!("must not be bound to {container}, unless replace is true");
            ("subject", subject.to_string(), bound)
        }
        StateError::OtherDomain { path, from, .. } => {
            let bound = format!("must be a container of domain {from} while the guest shares pages");
            ("container", path.to_string(), bound)
        }
        StateError::Attach { qmp, why } => {
            let bound = format!("must be a free monitor of a guest that can be attached: {why}");
            ("qmp", qmp.to_string_lossy().into_owned(), bound)
        }
        _ => return None,
    })
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).expect("a problem has only plain fields");
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
