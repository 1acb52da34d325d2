//! The run directory of a balancer that runs is removed, replaced or damaged.

use crate::support::{Daemon, Vmm, about, command, run_dir, until};
use hyper::Method;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

#[tokio::test]
async fn sockets_that_were_removed_are_bound_again_and_connections_stay() {
    let (_dir, run_dir) = run_dir();
    let mut daemon = Daemon::start(&run_dir).await;
    let (first, _) = Vmm::register(&run_dir, about("first", "/a", None)).await;
    let sockets = [run_dir.guest_socket(), run_dir.api_socket()];
    for removed in [&sockets[..], &sockets[..1], &sockets[1..]] {
        let before = inode(&run_dir.api_socket());
        removed.iter().for_each(|socket| fs::remove_file(socket).unwrap());
        if removed.len() == 2 {
            // A file that another program left there, bound by no process.
            drop(std::os::unix::net::UnixListener::bind(&sockets[1]).unwrap());
        }
        let look = async || inode(&sockets[0]).is_some() && ![None, before].contains(&inode(&sockets[1]));
        until("the sockets are there again", daemon.activity(), look, |bound| *bound).await;
        daemon.host().await;
    }
    daemon.patch_container("/a", r#"{"max_bytes": 268435456}"#).await;
    first.hear_target((256 - 16) << 20).await;
    let (_second, _) = Vmm::register(&run_dir, about("second", "/a", None)).await;
    assert_eq!(daemon.guests().await.len(), 2);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.ended().await, Some(0));
    assert!(sockets.iter().all(|socket| !socket.exists()));
}

#[tokio::test]
async fn a_balancer_that_ends_leaves_the_sockets_of_the_one_that_took_its_folder() {
    let (_dir, run_dir) = run_dir();
    // It does not look at its folder for a minute.
    let mut old = Daemon::start_with(&run_dir, &["--interval-ms", "60000"]).await;
    fs::remove_dir_all(run_dir.dir()).unwrap();
    let new = Daemon::start(&run_dir).await;
    let (_vmm, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    old.signal(libc::SIGTERM);
    assert_eq!(old.ended().await, Some(0));
    assert!(command(&run_dir, &["ps"]).output().unwrap().status.success());
    assert_eq!(new.guests().await.len(), 1);
}

#[tokio::test]
async fn a_balancer_whose_folder_is_another_one_says_so_and_ends() {
    for what in ["the folder", "the folder, and another balancer took it", "the lock", "the journal"] {
        let (dir, run_dir) = run_dir();
        let log = dir.path().join("log");
        let arguments = ["serve", "--interval-ms", "100"];
        let mut old = command(&run_dir, &arguments).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let client = balancer::client::Client::new(&run_dir.api_socket());
        let activity = wait::Activity::of(old.id());
        until("it serves", &activity, async || client.host().await.is_ok(), |up| *up).await;
        match what {
            "the lock" => fs::remove_file(run_dir.lock()).unwrap(),
            "the journal" => fs::remove_file(run_dir.journal()).unwrap(),
            _ => fs::rename(run_dir.dir(), dir.path().join("elsewhere")).unwrap(),
        }
        let new = if what.contains("another") { Some(Daemon::start(&run_dir).await) } else { None };
        let ended = until("it ends", &activity, async || old.try_wait().unwrap(), Option::is_some).await;
        assert_eq!(ended.unwrap().code(), Some(1), "{what}");
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.contains("removed or replaced while this balancer ran"), "{what}: {text}");
        assert!(text.contains(&run_dir.dir().display().to_string()), "{what}: {text}");
        if let Some(new) = new {
            new.host().await;
        }
    }
}

#[tokio::test]
async fn a_journal_that_is_empty_or_of_another_program_starts_no_balancer() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.call(Method::PUT, "/v1/containers/db", r#"{"max_bytes": 1073741824}"#).await.unwrap();
    daemon.kill();
    let whole = fs::read(run_dir.journal()).unwrap();
    for content in ["", "not a journal"] {
        fs::write(run_dir.journal(), content).unwrap();
        let output = command(&run_dir, &["serve"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{content:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("is not a journal") && text.contains("journal.redb"), "{text}");
        assert_eq!(fs::read_to_string(run_dir.journal()).unwrap(), content);
    }
    fs::write(run_dir.journal(), whole).unwrap();
    let daemon = Daemon::start(&run_dir).await;
    assert_eq!(daemon.container("/db").await.limits.max_bytes, Some(1 << 30));
}

#[tokio::test]
async fn numbers_of_events_go_on_and_a_client_that_missed_some_is_told() {
    let (_dir, run_dir) = run_dir();
    let mut daemon = Daemon::start(&run_dir).await;
    daemon.call(Method::PUT, "/v1/containers/a", "{}").await.unwrap();
    let seen = daemon.events().await.last().unwrap().id;
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.ended().await, Some(0));

    let daemon = Daemon::start(&run_dir).await;
    let after = async |daemon: &Daemon, id: u64| -> Vec<(u64, String)> {
        let events = daemon.get(&format!("/v1/events?follow=false&after={id}")).await;
        let events: Vec<balancer::objects::Event> = serde_json::from_value(events).unwrap();
        events.into_iter().map(|event| (event.id, event.kind)).collect()
    };
    // It saw all of the first balancer's.
    assert_eq!(after(&daemon, seen).await[0], (seen + 1, "balancer_started".into()));
    assert_eq!(after(&daemon, seen - 1).await[0], (seen, "events_missed".into()));
    daemon.kill();

    let daemon = Daemon::start(&run_dir).await;
    let events = after(&daemon, seen).await;
    assert_eq!(events[0].1, "events_missed");
    assert!(events[0].0 > seen && events[1] == (events[0].0 + 1, "balancer_started".into()), "{events:?}");
    let mut streamed = Vec::new();
    let each = |data: &str| {
        streamed.push(serde_json::from_str::<balancer::objects::Event>(data).unwrap());
        streamed.len() < 2
    };
    daemon.client.follow(&format!("/v1/events?after={seen}"), each).await.unwrap();
    assert_eq!((streamed[0].kind.as_str(), streamed[0].id), ("events_missed", events[0].0));
    assert_eq!((streamed[1].kind.as_str(), streamed[1].id), ("balancer_started", events[1].0));
}

#[test]
fn a_balancer_that_cannot_be_reached_is_not_said_to_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for (folder, code, words) in
        [(dir.path().join("none"), 3, "No balancer is running"), (file, 1, "Cannot reach the balancer")]
    {
        let run_dir = protocol::run_dir::RunDir::new(Some(folder));
        let output = command(&run_dir, &["ps"]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(words), "{text}");
    }
}
