//! A balancer starts, is killed, comes back, ends.

use crate::support::{Daemon, MIB, Vmm, about, command, run_dir, until};
use balancer::objects::ContainerObject;
use hyper::Method;
use protocol::message::{Balloon, ToVmm};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use wait::Activity;

#[tokio::test]
async fn a_killed_balancer_comes_back_with_every_limit_and_its_guests() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon
        .call(Method::PUT, "/v1/containers/db", r#"{"max_bytes": 1073741824, "weight": 300}"#)
        .await
        .unwrap();
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/web/a", Some("256M"))).await;
    daemon.patch_container("/web/a", r#"{"max_bytes": 201326592}"#).await;
    let owner = daemon.container("/web/a").await.owner;
    daemon.kill();
    while vmm.hear_any().await.is_some() {}

    let daemon = Daemon::start(&run_dir).await;
    let db = daemon.container("/db").await;
    assert_eq!((db.limits.max_bytes, db.limits.weight, db.transient), (Some(1 << 30), 300, false));
    // The guest comes back with the limits of its launch; the later change wins.
    let mut again = about("a", "/web/a", Some("256M"));
    again.comes_back = true;
    again.balloon = Balloon { driver_ready: true, actual_bytes: 176 * MIB, ..Default::default() };
    let (_vmm, target) = Vmm::register(&run_dir, again).await;
    assert_eq!(target, (192 - 16) * MIB);
    let container = daemon.container("/web/a").await;
    assert_eq!((container.owner, container.transient), (owner, true));
}

#[tokio::test]
async fn a_second_guest_of_the_same_name_is_refused_with_the_process_of_the_first() {
    let (_dir, run_dir) = run_dir();
    let _daemon = Daemon::start(&run_dir).await;
    let (_first, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    let second = Vmm::connect(&run_dir, about("a", "/b", None)).await;
    let Some(ToVmm::Refused { reason }) = second.hear_any().await else { panic!("taken in") };
    assert!(reason.contains("\"a\"") && reason.contains(&std::process::id().to_string()), "{reason}");
}

#[tokio::test]
async fn a_second_balancer_is_refused_with_the_process_of_the_first() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let output = command(&run_dir, &["serve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&daemon.pid().to_string()), "{text}");
    assert!(output.stdout.is_empty());
    daemon.host().await;
}

#[tokio::test]
async fn sockets_of_a_killed_balancer_are_replaced_and_other_files_are_not() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(run_dir.dir()), mode(&run_dir.api_socket()) & 0o077), (0o700, 0));
    daemon.kill();
    assert!(run_dir.api_socket().exists());
    drop(Daemon::start(&run_dir).await);

    std::fs::remove_file(run_dir.api_socket()).unwrap();
    std::fs::write(run_dir.api_socket(), "precious").unwrap();
    let output = command(&run_dir, &["serve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("not a socket"));
    assert_eq!(std::fs::read_to_string(run_dir.api_socket()).unwrap(), "precious");
}

#[tokio::test]
async fn sigterm_ends_it_cleanly() {
    let (_dir, run_dir) = run_dir();
    let mut daemon = Daemon::start(&run_dir).await;
    let (_vmm, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.ended().await, Some(0));
    assert!(!run_dir.api_socket().exists() && !run_dir.guest_socket().exists());
    let output = command(&run_dir, &["ps"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("No balancer is running"));
}

#[tokio::test]
async fn a_hang_up_ends_no_balancer() {
    let (_dir, run_dir) = run_dir();
    let mut daemon = Daemon::start(&run_dir).await;
    daemon.signal(libc::SIGHUP);
    daemon.ticks(3).await;
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.ended().await, Some(0));
}

#[tokio::test]
async fn a_follower_ends_with_its_reader_and_not_with_the_next_event() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let mut follower =
        command(&run_dir, &["events", "--follow"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(follower.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert!(line.contains("balancer_started"), "{line}");
    drop(out);
    let activity = Activity::of(follower.id());
    until("the follower ends", &activity, async || follower.try_wait().unwrap(), Option::is_some).await;
    // Not because of a later event.
    let events = daemon.events().await;
    assert_eq!(events.len(), 1, "{events:?}");
}

#[tokio::test]
async fn an_idle_balancer_ends_after_its_last_guest() {
    let (_dir, run_dir) = run_dir();
    let mut daemon = Daemon::start_with(&run_dir, &["--exit-when-idle"]).await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    // Longer than it would stay without a guest.
    daemon.until_host(|host| host.balancer_age_ms > 2500).await;
    let start = Instant::now();
    drop(vmm);
    assert_eq!(daemon.ended().await, Some(0));
    assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_journal_that_cannot_grow_refuses_the_change_and_keeps_the_old_limits() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.call(Method::PUT, "/v1/containers/a", r#"{"max_bytes": 1048576}"#).await.unwrap();
    // From now on no file of the balancer may be longer than a byte: a full disk.
    let pid = i32::try_from(daemon.pid()).unwrap();
    let limit = |bytes| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: a valid pointer to a limit, and none to be filled.
        let result =
            unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
        assert_eq!(result, 0);
    };
    limit(1);
    let error =
        daemon.call(Method::PATCH, "/v1/containers/a", r#"{"max_bytes": 2097152}"#).await.unwrap_err();
    assert!(error.to_string().contains("journal"), "{error}");
    assert_eq!(daemon.container("/a").await.limits.max_bytes, Some(1_048_576));
    limit(libc::RLIM_INFINITY);
    // The disk has room again, and so has the journal.
    daemon.patch_container("/a", r#"{"max_bytes": 3145728}"#).await;
    daemon.kill();
    let daemon = Daemon::start(&run_dir).await;
    assert_eq!(daemon.container("/a").await.limits.max_bytes, Some(3_145_728));
}

#[tokio::test]
async fn only_a_client_with_the_token_is_answered_over_tcp() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (dir, run_dir) = run_dir();
    let file = dir.path().join("token");
    let token = "0123456789abcdef0123456789abcdef";
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let _daemon =
        Daemon::start_with(&run_dir, &["--listen", &address, "--token-file", file.to_str().unwrap()]).await;
    for (header, status) in [
        (String::new(), "401"),
        ("Authorization: Bearer 0123456789abcdef0123456789abcdee\r\n".into(), "401"),
        (format!("Authorization: Bearer {token}\r\n"), "200"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream
            .write_all(
                format!("GET /v1/host HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n").as_bytes(),
            )
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

/// Kills come at a moment that differs from round to round: while a change is written, between two, while the journal
/// opens.
#[tokio::test]
async fn a_balancer_that_is_killed_again_and_again_keeps_every_limit_that_it_acknowledged() {
    const ROUNDS: u64 = 25;
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.call(Method::PUT, "/v1/containers/a", "{}").await.unwrap();
    daemon.kill();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let daemon = Daemon::start(&run_dir).await;
        let found = daemon.container("/a").await;
        let found_low = found.limits.low_bytes;
        // One change may have been on its way, written and not answered.
        let known = [acknowledged, acknowledged + 1];
        assert!(known.contains(&found_low), "round {round}: {found_low}, acknowledged {acknowledged}");
        assert_eq!(found.limits.min_bytes, found.limits.low_bytes, "both fields of one change, or none");
        acknowledged = found_low;
        let client = daemon.client.clone();
        let killing = tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_micros(500 + round * 1237 % 20_000));
            daemon.kill();
        });
        loop {
            let next = acknowledged + 1;
            let body = format!("{{\"low_bytes\": {next}, \"min_bytes\": {next}}}");
            let answer: Result<ContainerObject, _> =
                client.call(Method::PATCH, "/v1/containers/a", body.into()).await;
            match answer {
                Ok(container) => acknowledged = container.limits.low_bytes,
                Err(_) => break,
            }
        }
        killing.await.unwrap();
    }
    assert!(acknowledged >= ROUNDS, "{acknowledged} changes in {ROUNDS} rounds");
    // A kill while it opens the journal.
    for delay_us in [0, 500, 1000, 2000, 3000, 5000, 8000] {
        let mut child = command(&run_dir, &["serve"]).stderr(std::process::Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_micros(delay_us)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let daemon = Daemon::start(&run_dir).await;
    let low = daemon.container("/a").await.limits.low_bytes;
    assert!((acknowledged..=acknowledged + 1).contains(&low), "{low}, acknowledged {acknowledged}");
}
