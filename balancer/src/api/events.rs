//! `/v1/events`.

use super::Shared;
use super::body::shortened;
use super::places::{Connection, Streaming};
use super::query::Params;
use crate::objects::{Event, EventsQuery, Problem};
use crate::state::Balancer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream::{self, Stream};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;
use utoipa::ToSchema;

/// Events as they happen (server-sent events), beginning with those that are kept. A client that goes on after an event
/// and missed some of those that followed is sent `events_missed` first.
#[utoipa::path(get, path = "/v1/events", operation_id = "get_events",
    params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, description = "Only events after this one")),
    responses((status = 200, description = "A stream of events, or with `follow=false` those that are kept.",
        content((ServerSentEvent = "text/event-stream"), (Vec<Event> = "application/json"))), (status = 503)))]
pub(super) async fn events(
    State(balancer): Shared,
    Params(query): Params<EventsQuery>,
    connection: Option<Extension<Arc<Connection>>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = last_seen(&headers)?.or(query.after).unwrap_or(0);
    if query.follow == Some(false) {
        return Ok(Json(balancer.events_since(after)).into_response());
    }
    let place = match connection.map(|Extension(connection)| connection.stream()) {
        Some(None) => return Ok(no_place()),
        place => place.flatten(),
    };
    Ok(Sse::new(follow(balancer, after, place)).keep_alive(KeepAlive::default()).into_response())
}

/// An event as the stream has it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
pub(super) struct ServerSentEvent {
    /// The number of the event, for `Last-Event-ID`.
    id: String,
    /// Its kind.
    event: String,
    /// The event, an object as in the list, as JSON.
    data: String,
}

/// The last event that a client has seen, by its header.
#[expect(clippy::result_large_err, reason = "once per refused request, and handlers want the problem itself")]
fn last_seen(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let plain = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    if let Some(id) = plain.and_then(|text| text.parse().ok()) {
        return Ok(Some(id));
    }
    let given = shortened(&String::from_utf8_lossy(value.as_bytes()));
    let bound = "must be the number of an event";
    let detail = format!("Last-Event-ID is {given:?}, but {bound}");
    let problem = Problem::new(StatusCode::BAD_REQUEST, "header", "A header is refused", detail);
    Err(problem.of_field(LAST_EVENT_ID, given, bound))
}

const LAST_EVENT_ID: &str = "last-event-id";

/// The connection is closed as well, so that it does not hold one of the few places until its deadline.
fn no_place() -> Response {
    let detail =
        "There are too many streams of events, of this client or of all; follow=false is answered at once";
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
    _place: Option<Streaming>,
}

fn follow(
    balancer: Arc<Balancer>,
    after: u64,
    place: Option<Streaming>,
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
