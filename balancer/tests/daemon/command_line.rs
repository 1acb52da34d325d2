//! The command line against a real balancer.

use crate::support::{Daemon, MIB, Vmm, about, command, run_dir};

fn run(run_dir: &protocol::run_dir::RunDir, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(run_dir, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn set_ps_events_and_rm() {
    let (_dir, run_dir) = run_dir();
    let _daemon = Daemon::start(&run_dir).await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/web/a", None)).await;
    let (code, out, err) = run(&run_dir, &["set", "/web/a", "--max", "256M"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("/web/a: max 256M, high none"), "{out}");
    vmm.hear_target(240 * MIB).await;
    let (_, out, _) = run(&run_dir, &["ps"]);
    for words in ["/web/a", "max 256M", "512M RAM", "240M"] {
        assert!(out.contains(words), "{out}");
    }
    let (_, out, _) = run(&run_dir, &["ps", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["guests"][0]["name"], "a");
    let (_, out, _) = run(&run_dir, &["events"]);
    assert!(out.contains("guest_registered") && out.contains("limits_changed"), "{out}");
    let (_, out, _) = run(&run_dir, &["set", "/web/a", "--max", "none", "--json"]);
    assert!(out.contains("\"max_bytes\": null"), "{out}");

    assert_eq!(run(&run_dir, &["set", "/db", "--max", "1G", "--create"]).0, Some(0));
    assert_eq!(run(&run_dir, &["rm", "/db"]).0, Some(0));
}

#[tokio::test]
async fn a_closed_pipe_is_not_an_error_and_a_full_disk_is_one() {
    let (_dir, run_dir) = run_dir();
    let _daemon = Daemon::start(&run_dir).await;
    for arguments in [&["ps"][..], &["ps", "--json"], &["events"], &["events", "--follow"]] {
        let to = |out: std::process::Stdio| command(&run_dir, arguments).stdout(out).output().unwrap();
        let full = to(std::fs::File::options().write(true).open("/dev/full").unwrap().into());
        let told = String::from_utf8_lossy(&full.stderr).into_owned();
        assert_eq!(full.status.code(), Some(1), "{arguments:?}");
        assert!(told.contains("Cannot write to standard output: No space"), "{arguments:?}: {told}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = to(writer.into());
        assert_eq!((closed.status.code(), closed.stderr.len()), (Some(0), 0), "{arguments:?}");
    }
}

#[tokio::test]
async fn exit_codes() {
    let (_dir, run_dir) = run_dir();
    assert_eq!(run(&run_dir, &["ps"]).0, Some(3));
    let _daemon = Daemon::start(&run_dir).await;
    for (arguments, code, words) in [
        (&["set", "/none", "--max", "1G"][..], 1, "/none"),
        (&["rm", "/none"], 1, "/none"),
        (&["set", "/a", "--max", "1G", "--min", "2G", "--create"], 1, "min_bytes"),
        (&["set", "/a"], 2, "Nothing to set"),
        (&["set", "/a", "--max", "lots"], 2, "lots"),
        (&["set", "/a", "--max", "1e30"], 2, "1e30"),
        (&["set", "/a", "--max", "-1"], 2, "'-1' for '--max <BYTES>': \"-1\" is not an amount of memory"),
        (&["set", "/a", "--min", "-1"], 2, "'-1' for '--min"),
        (&["set", "/a", "--max-fds", "-1"], 2, "'-1' for '--max-fds"),
        (&["set", "/a", "--weight", "-1"], 2, "'-1' for '--weight"),
        (&["set", "/a", "--weight", "lots"], 2, "between 1 and 10000"),
        (&["serve", "--interval-ms", "lots"], 2, "between 10 and 60000"),
        (&["rm", "/"], 2, "the host, which cannot be removed"),
        (&["set", "web", "--max", "1G"], 2, "/web/a"),
        (&["set", "/a", "--weight", "0"], 2, "weight"),
        (&["top-secret"], 2, "top-secret"),
    ] {
        let (found, out, err) = run(&run_dir, arguments);
        assert_eq!((found, out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.contains(words), "{arguments:?}: {err:?} does not say {words:?}");
    }
}
