//! `/v1/events`.

use super::problem::Problem;
use super::query::Params;
use crate::events::Event;
use crate::state::Balancer;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use utoipa::IntoParams;

/// What is asked of the events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// `false` for a JSON array of what there is instead of a stream.
    follow: Option<bool>,
    /// Only events after this one. The header `Last-Event-ID` says the same and wins.
    after: Option<u64>,
}

/// Events as they happen (server-sent events), beginning with those that are kept.
#[utoipa::path(get, path = "/v1/events", operation_id = "get_events",
    params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, description = "Only events after this one")),
    responses((status = 200, description = "A stream of events, or with `follow=false` those that are kept.",
        content((String = "text/event-stream"), (Vec<Event> = "application/json"))), (status = 503)))]
pub(super) async fn events(
    State(balancer): State<Arc<Balancer>>,
    Params(query): Params<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let after: u64 = header.or(query.after).unwrap_or(0);
    if query.follow == Some(false) {
        return Ok(Json(balancer.events_since(after)).into_response());
    }
    let Ok(place) = STREAMS.try_acquire() else { return Ok(no_place()) };
    Ok(Sse::new(follow(balancer, after, place)).keep_alive(KeepAlive::default()).into_response())
}

/// Streams at a time: each holds one of the API's connections for as long as its client likes.
const STREAMS_MAX: usize = 256;
static STREAMS: Semaphore = Semaphore::const_new(STREAMS_MAX);

/// The connection is closed as well, so that it holds up nobody until its deadline.
fn no_place() -> Response {
    let detail = format!("There are {STREAMS_MAX} streams of events already; follow=false answers at once");
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "There are too many clients", detail);
    ([(header::CONNECTION, "close")], problem).into_response()
}

/// Events that are held for one client at a time: what it has not read yet is in the ring, once for all.
const CHUNK: usize = 32;

struct Follower {
    balancer: Arc<Balancer>,
    last: watch::Receiver<u64>,
    after: u64,
    ready: VecDeque<Event>,
    _place: SemaphorePermit<'static>,
}

fn follow(
    balancer: Arc<Balancer>,
    after: u64,
    place: SemaphorePermit<'static>,
) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    let last = balancer.watch_events();
    let follower = Follower { balancer, last, after, ready: VecDeque::new(), _place: place };
    stream::unfold(follower, |mut follower| async move {
        while follower.ready.is_empty() {
            follower.last.borrow_and_update();
            follower.ready = follower.balancer.events_after(follower.after, CHUNK).into();
            if follower.ready.is_empty() && follower.last.changed().await.is_err() {
                return None;
            }
        }
        let event = follower.ready.pop_front().expect("not empty after the loop");
        follower.after = event.id;
        let data = serde_json::to_string(&event).expect("an event has only plain fields");
        Some((Ok(sse::Event::default().id(event.id.to_string()).event(event.kind).data(data)), follower))
    })
}
