use super::*;
use crate::api::places::{HEADER_DEADLINE, IDLE_DEADLINE};
use axum::routing;
use std::time::Duration;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::time::{Instant, sleep};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// The client's end of a connection that is served.
fn connect() -> DuplexStream {
    let (own, served) = tokio::io::duplex(1 << 16);
    let router = Router::new().route("/", routing::get(|| async { "good" }));
    let place = Places::new(4).take(Client::Process(0, 1)).unwrap();
    tokio::spawn(serve_one(served, router, place));
    own
}

async fn ask(stream: &mut DuplexStream) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// How long the server keeps the connection from now on.
async fn kept(stream: &mut DuplexStream) -> Duration {
    let began = Instant::now();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_pause_between_requests_may_be_longer_than_clients_keep_connections() {
    let mut stream = connect();
    for pause in [8, 11, 90, 110] {
        assert!(ask(&mut stream).await.ends_with("good"));
        sleep(Duration::from_secs(pause)).await;
    }
    assert!(ask(&mut stream).await.ends_with("good"));
    assert_eq!(kept(&mut stream).await.as_secs(), IDLE_DEADLINE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn half_a_header_is_cut_off_after_10_s_however_it_comes() {
    let mut silent = connect();
    assert_eq!(kept(&mut silent).await.as_secs(), HEADER_DEADLINE.as_secs());

    let mut slow = connect();
    let began = Instant::now();
    for byte in REQUEST {
        if slow.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() <= Duration::from_secs(13), "{:?}", began.elapsed());

    let mut second = connect();
    assert!(ask(&mut second).await.ends_with("good"));
    sleep(Duration::from_secs(60)).await;
    second.write_all(&REQUEST[..9]).await.unwrap();
    assert_eq!(kept(&mut second).await.as_secs(), HEADER_DEADLINE.as_secs());
}
