//! schemathesis against a balancer with guests: thousands of requests that keep to the document, and thousands that do
//! not. Whatever it finds is a difference between the document and the answers.

use crate::support::{Daemon, Vmm, about, run_dir, until};
use protocol::message::{FromVmm, ToVmm};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use wait::Activity;

/// Requests that a run has to make at least.
const REQUESTS_MIN: u64 = 5000;
/// Cases for each route in one phase: enough for those requests.
const CASES: &str = "270";
/// Paths of about half of the work.
const PART: &str = "containers|explain";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Names of guests, some of the time: else all requests about guests would be about guests that do not exist.
const CONFIG: &str = r#"
[dictionaries.guests]
values = ["one", "two", "three"]

[parameters]
"path.id" = { dictionary = "guests", probability = 0.7 }

# A stream does not end. It is read for so long, or up to its twentieth event.
[[operations]]
include-path = "/v1/events"
request-timeout = 1.0
"#;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/schemathesis.sh")
}

/// The `vmm` of a guest that confirms what it is asked. Ends with the balancer.
async fn serve(vmm: Vmm) {
    while let Some(message) = vmm.hear_any().await {
        match message {
            ToVmm::Reconcile => vmm.reconcile().await,
            ToVmm::Charge(charge) => {
                vmm.table.set_owner(charge.owner);
                vmm.say(&FromVmm::Charged { order: charge.order, moved_frames: 0 }).await;
            }
            _ => {}
        }
    }
}

/// The number before a word: `5123 generated`.
fn count(text: &str, word: &str) -> Option<u64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words.iter().position(|found| found.trim_end_matches(',') == word)?;
    words.get(at.checked_sub(1)?)?.replace(',', "").parse().ok()
}

#[tokio::test]
async fn schemathesis_finds_no_difference_between_the_document_and_the_answers() {
    let probe = Command::new(script()).arg("--version").output().unwrap();
    if !probe.status.success() {
        skip::skip!(Schemathesis, "{}", String::from_utf8_lossy(&probe.stderr));
        return;
    }
    let (dir, run_dir) = run_dir();
    let token = dir.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::write(dir.path().join("schemathesis.toml"), CONFIG).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let arguments = ["--listen", &address, "--token-file", token.to_str().unwrap(), "--interval-ms", "1000"];
    let daemon = Daemon::start_with(&run_dir, &arguments).await;
    for (name, container) in [("one", "/web/a"), ("two", "/web/b"), ("three", "/db")] {
        let (vmm, _) = Vmm::register(&run_dir, about(name, container, None)).await;
        vmm.touch(16 << 20);
        tokio::spawn(serve(vmm));
    }
    // A stream is read up to its twentieth event: that many are there from the start.
    for turn in 0..30 {
        daemon.put(&format!("/v1/containers/first{turn}"), "{}").await;
    }
    let target = format!("http://{address}/openapi.json");
    // Each run is one thread of Python, so there are two.
    let runs = [["--include-path-regex", PART], ["--exclude-path-regex", PART]].map(|part| {
        let log = tempfile::tempfile().unwrap();
        let run = Command::new(script())
            .current_dir(dir.path())
            .args(["run", &target, "--checks", "all", "--max-examples", CASES, "--seed", "1", "--no-color"])
            .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
            .args(part)
            .stdout(log.try_clone().unwrap())
            .stderr(log.try_clone().unwrap())
            .spawn()
            .unwrap();
        (Running(run), log)
    });
    let mut requests = 0;
    for (mut run, log) in runs {
        let activity = Activity::of(run.0.id());
        // The balancer may be idle for a minute: its interval is one of the things that are changed.
        let look = async || run.0.try_wait().unwrap();
        let status = until("a run ends", &activity, look, Option::is_some).await.unwrap();
        let text = read(log);
        let shown = text.find("FAILURES").or(text.find("ERRORS")).map_or(text.as_str(), |at| &text[at..]);
        assert!(status.success(), "{status}: {shown}");
        requests += count(&text, "generated").expect(&text);
    }
    assert!(requests >= REQUESTS_MIN, "{requests} requests");
    assert_eq!(daemon.guests().await.len(), 3);
}

/// A run, which ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(mut log: File) -> String {
    let mut text = String::new();
    log.rewind().unwrap();
    log.read_to_string(&mut text).unwrap();
    text
}
