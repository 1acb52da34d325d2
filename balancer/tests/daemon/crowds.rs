//! Clients that are slow, silent, or thousands: others are served all the same.

use crate::support::{Daemon, Vmm, about, answered, command, run_dir, until};
use hyper::Method;
use serde_json::json;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use wait::Activity;

/// Sends the beginning of a request and returns what comes until the other side hangs up.
async fn until_hang_up(socket: &Path, start: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(start.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let socket = stream.as_raw_fd();
    answered(&socket, stream.read_to_end(&mut answer)).await.ok();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_client_that_sends_half_a_request_is_cut_off() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let socket = run_dir.api_socket();
    let body = "PATCH /v1/containers/ HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{";
    let mut idle = UnixStream::connect(&socket).await.unwrap();
    ask(&mut idle).await;
    // After its answer, its connection would have to close.
    let body_and_close = body.replace("Content-Length", "Connection: close\r\nContent-Length");
    let (nothing, header, body) = tokio::join!(
        until_hang_up(&socket, ""),
        until_hang_up(&socket, "GET /v1/host HTTP/1.1\r\nHost: x\r\n"),
        until_hang_up(&socket, &body_and_close),
    );
    assert_eq!((nothing.as_str(), header.as_str()), ("", ""));
    assert!(body.starts_with("HTTP/1.1 408") && body.contains("problems/timeout"), "{body}");
    // That took as long as the deadline of a header. A pause between two requests may be longer.
    ask(&mut idle).await;
    daemon.host().await;
}

/// Asks on a connection that stays open.
async fn ask(stream: &mut UnixStream) {
    stream.write_all(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer[..read]));
}

/// What a client sends that holds a place and does not finish.
const HALVES: [&str; 4] = [
    "",
    "GET /v1/host HTTP/1.1\r\nHost: x\r\n",
    "PATCH /v1/containers/ HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{",
    "GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\nGET ",
];

#[tokio::test]
async fn half_requests_of_a_thousand_connections_shut_out_no_other() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let descriptors = host::process::DescriptorLimit::get();
    host::process::DescriptorLimit { soft: descriptors.hard, ..descriptors }.set().unwrap();
    let (mut held, mut slowest) = (Vec::new(), Duration::ZERO);
    for turn in 0..1500 {
        let mut stream = UnixStream::connect(run_dir.api_socket()).await.unwrap();
        // The balancer may have closed it already.
        let _ = stream.write_all(HALVES[turn % HALVES.len()].as_bytes()).await;
        held.push(stream);
        if turn % 100 == 99 {
            let asked = Instant::now();
            daemon.host().await;
            slowest = slowest.max(asked.elapsed());
        }
    }
    let asked = Instant::now();
    assert!(command(&run_dir, &["ps"]).output().unwrap().status.success());
    slowest = slowest.max(asked.elapsed());
    // Not one of them waited until another client's deadline, 10 s.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

#[tokio::test]
async fn strangers_on_tcp_delay_no_other_client() {
    let (dir, run_dir) = run_dir();
    let file = dir.path().join("token");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let arguments = ["--listen", &address, "--token-file", file.to_str().unwrap()];
    let daemon = Daemon::start_with(&run_dir, &arguments).await;
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(TcpStream::connect(&address).await.unwrap());
    }
    daemon.host().await;
    let (_vmm, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    assert_eq!(daemon.guests().await.len(), 1);
    drop(strangers);
}

#[tokio::test]
async fn many_followers_of_events_delay_no_other_client() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (mut following, mut refused) = (Vec::new(), 0);
    for _ in 0..400 {
        let mut stream = UnixStream::connect(run_dir.api_socket()).await.unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        match &head[9..] {
            b"200" => following.push(stream),
            b"503" => refused += 1,
            other => panic!("{:?}", String::from_utf8_lossy(other)),
        }
    }
    // One client may have half of all streams.
    assert_eq!((following.len(), refused), (128, 272));
    let answer = daemon.call(Method::PUT, "/v1/containers/a", "{}").await.unwrap();
    assert_eq!(answer["path"], json!("/a"));
    drop(following);
    let status = async || daemon.client.send(Method::GET, "/v1/events", vec![]).await.unwrap().status();
    until("a stream is free", daemon.activity(), status, |status| *status == 200).await;
}

#[tokio::test]
async fn thousands_of_connections_that_do_not_register_hold_up_no_guest() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (_first, _) = Vmm::register(&run_dir, about("first", "/a", None)).await;
    let mut silent = Vec::new();
    while silent.len() < 2000 {
        // The kernel's queue is full now and then: that is where they wait.
        let connecting = tokio_seqpacket::UnixSeqpacket::connect(run_dir.guest_socket());
        match tokio::time::timeout(std::time::Duration::from_millis(50), connecting).await {
            Ok(Ok(socket)) => silent.push(socket),
            _ => break,
        }
    }
    assert!(silent.len() >= 128, "{}", silent.len());
    daemon.patch_container("/a", r#"{"max_bytes": 268435456}"#).await;
    _first.hear_target((256 - 16) << 20).await;
    drop(silent);
    let (_second, _) = Vmm::register(&run_dir, about("second", "/a", None)).await;
}

#[tokio::test]
async fn a_log_that_cannot_be_written_ends_nothing() {
    let (_dir, run_dir) = run_dir();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child = command(&run_dir, &["serve"]).stderr(full).spawn().unwrap();
    let client = balancer::client::Client::new(&run_dir.api_socket());
    let limit = br#"{"max_bytes": 1048576}"#;
    let put = async || {
        client.call::<serde_json::Value>(Method::PUT, "/v1/containers/a", limit.to_vec()).await.is_ok()
    };
    until("it serves", &Activity::of(child.id()), put, |served| *served).await;
    let (vmm, target) = Vmm::register(&run_dir, about("b", "/b", Some("256M"))).await;
    assert_eq!(target, (256 - 16) << 20);
    drop(vmm);
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}
