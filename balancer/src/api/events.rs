//! `/v1/events`.

use super::Shared;
use super::query::Params;
use crate::objects::{Event, EventsQuery, Problem};
use crate::state::Balancer;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Events as they happen (server-sent events), beginning with those that are kept.
#[utoipa::path(get, path = "/v1/events", operation_id = "get_events",
    params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, description = "Only events after this one")),
    responses((status = 200, description = "A stream of events, or with `follow=false` those that are kept.",
        content((String = "text/event-stream"), (Vec<Event> = "application/json"))), (status = 503)))]
pub(super) async fn events(
    State(balancer): Shared,
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

/// Streams at the same time: each holds one of the API's connections until its client closes it.
const STREAMS_MAX: usize = 256;
static STREAMS: Semaphore = Semaphore::const_new(STREAMS_MAX);

/// The connection is closed as well, so that it does not hold one of the few places until its deadline.
fn no_place() -> Response {
    let detail =
        format!("There are {STREAMS_MAX} streams of events already; follow=false is answered at once");
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "There are too many clients", detail);
    ([(header::CONNECTION, "close")], problem).into_response()
}

/// Events that are copied for one client at a time: those that it has not read yet are in the ring, which all clients
/// share.
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
