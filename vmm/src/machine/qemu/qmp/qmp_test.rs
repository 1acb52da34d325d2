use super::wire::{Balloon, QueryBalloon};
use super::*;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Deadlines that no test has to reach.
const LONG: Deadlines = Deadlines { greeting: Duration::from_secs(20), command: Duration::from_secs(20) };
/// A command times out at once.
const SHORT: Deadlines = Deadlines { command: Duration::from_millis(200), ..LONG };

const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;

/// A monitor that greets, takes the negotiation, and answers each further command by `answer`, which gives whole lines.
fn monitor(answer: impl Fn(u64, &str) -> String + Send + 'static) -> (UnixStream, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut reader = BufReader::new(theirs.try_clone().unwrap());
        let mut theirs = theirs;
        writeln!(theirs, "{GREETING}").unwrap();
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
            let command: serde_json::Value = serde_json::from_str(&line).unwrap();
            let (id, name) = (command["id"].as_u64().unwrap(), command["execute"].as_str().unwrap());
            let lines = match name {
                "qmp_capabilities" => format!("{{\"return\": {{}}, \"id\": {id}}}\n"),
                name => answer(id, name),
            };
            if theirs.write_all(lines.as_bytes()).is_err() {
                return;
            }
            line.clear();
        }
    });
    (ours, thread)
}

fn connected(answer: impl Fn(u64, &str) -> String + Send + 'static) -> Qmp {
    Qmp::over(monitor(answer).0, LONG, None).unwrap()
}

#[test]
fn a_command_gets_its_own_answer_and_events_are_kept() {
    let mut qmp = connected(|id, _| {
        format!(
            "{{\"event\": \"RESUME\"}}\n{{\"event\": \"BALLOON_CHANGE\", \"data\": {{\"actual\": 7}}}}\n\
             {{\"return\": {{\"actual\": 1}}, \"id\": 99}}\n{{\"return\": {{\"actual\": 5}}, \"id\": {id}}}\n\
             {{\"event\": \"SHUTDOWN\", \"data\": {{\"guest\": true, \"reason\": \"guest-reset\"}}}}\n"
        )
    });
    assert_eq!(qmp.call(&QueryBalloon {}).unwrap().actual, 5);
    let (mut events, deadline) = (Vec::new(), Instant::now() + LONG.command);
    while events.len() < 2 {
        assert!(Instant::now() < deadline, "{events:?}");
        events.extend(qmp.events().unwrap());
    }
    assert_eq!(
        events,
        [Event::BalloonChange { actual: 7 }, Event::Shutdown { reason: "guest-reset".into() }]
    );
}

#[test]
fn a_refusal_has_qemus_reason_on_one_line() {
    let mut qmp = connected(|id, _| {
        format!(
            "{{\"error\": {{\"class\": \"DeviceNotActive\", \"desc\": \"No\\nballoon\"}}, \"id\": {id}}}\n"
        )
    });
    let error = qmp.call(&Balloon { value: 1 }).unwrap_err();
    assert_eq!(error.to_string(), "QEMU refused balloon: No balloon (DeviceNotActive)");
    assert!(!error.is_end());
}

#[test]
fn a_command_times_out_and_its_late_answer_is_taken() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut theirs_write = theirs.try_clone().unwrap();
    writeln!(theirs_write, "{GREETING}\n{{\"return\": {{}}, \"id\": 1}}").unwrap();
    let mut qmp = Qmp::over(ours, SHORT, None).unwrap();
    let started = Instant::now();
    let error = qmp.call(&QueryBalloon {}).unwrap_err();
    assert!(matches!(error, QmpError::Deadline { command: "query-balloon", .. }), "{error}");
    assert!((SHORT.command..LONG.command).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert!(!qmp.caught_up(Instant::now()).unwrap());
    writeln!(theirs_write, "{{\"return\": {{\"actual\": 5}}, \"id\": 2}}").unwrap();
    assert!(qmp.caught_up(Instant::now() + Duration::from_secs(1)).unwrap());
}

#[test]
fn another_server_than_a_monitor_is_refused() {
    let servers: [(&[u8], &str); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\n", "not a QMP monitor"),
        (b"{\"return\": {}}\n", "does not greet"),
        (b"", "did not greet within"),
        (&[b'x'; (1 << 20) + 8192], "a line of more than"),
    ];
    for (bytes, words) in servers {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || {
            let _ = theirs.write_all(bytes);
            theirs
        });
        let error =
            Qmp::over(ours, Deadlines { greeting: Duration::from_millis(300), ..LONG }, None).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        drop(writer.join());
    }
}

#[test]
fn a_malformed_answer_and_a_closed_connection_are_errors() {
    let mut qmp = connected(|id, _| format!("{{\"return\": {{\"actual\": -1}}, \"id\": {id}}}\n"));
    assert!(matches!(qmp.call(&QueryBalloon {}), Err(QmpError::Malformed { .. })));
    let (ours, theirs) = UnixStream::pair().unwrap();
    writeln!(&theirs, "{GREETING}\n{{\"return\": {{}}, \"id\": 1}}").unwrap();
    let mut qmp = Qmp::over(ours, LONG, None).unwrap();
    drop(theirs);
    let error = qmp.call(&QueryBalloon {}).unwrap_err();
    assert!(error.is_end() && matches!(qmp.events(), Err(QmpError::Closed)), "{error}");
}

#[test]
fn only_the_newest_events_of_a_flood_are_kept() {
    let mut qmp = connected(|id, _| {
        let event = |n| format!("{{\"event\": \"BALLOON_CHANGE\", \"data\": {{\"actual\": {n}}}}}\n");
        (0..500).map(event).collect::<String>()
            + &format!("{{\"return\": {{\"actual\": 5}}, \"id\": {id}}}\n")
    });
    qmp.call(&QueryBalloon {}).unwrap();
    let events = qmp.events().unwrap();
    assert_eq!((events.len(), events.back()), (64, Some(&Event::BalloonChange { actual: 499 })));
}

#[test]
fn a_monitor_that_sends_without_end_has_not_answered() {
    // Whole messages as fast as they are read, and a message that never ends, a byte at a time.
    let talk: [(&[u8], u64); 2] = [(&b"{\"event\": \"X\"}\n".repeat(1000), 0), (b" ", 20)];
    for (bytes, pause_ms) in talk {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        writeln!(theirs, "{GREETING}\n{{\"return\": {{}}, \"id\": 1}}").unwrap();
        let mut qmp = Qmp::over(ours, SHORT, None).unwrap();
        let bytes = bytes.to_vec();
        let talker = std::thread::spawn(move || {
            while theirs.write_all(&bytes).is_ok() {
                std::thread::sleep(Duration::from_millis(pause_ms));
            }
        });
        let started = Instant::now();
        let error = qmp.call(&QueryBalloon {}).unwrap_err();
        assert!(matches!(error, QmpError::Deadline { .. }), "{error}");
        assert!(!qmp.caught_up(Instant::now() + Duration::from_millis(100)).unwrap());
        // Not compared with a short time: the machine of a test may be busy.
        assert!(started.elapsed() < LONG.command, "{:?}", started.elapsed());
        // Its events are read in bounded parts.
        qmp.events().unwrap();
        drop(qmp);
        talker.join().unwrap();
    }
}

#[test]
fn a_wait_ends_when_the_watched_descriptor_is_readable() {
    let (watched, signal) = UnixStream::pair().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        (&signal).write_all(b"x").unwrap();
        signal
    });
    let error = Qmp::over(ours, LONG, Some(watched.into())).unwrap_err();
    assert!(matches!(error, QmpError::Interrupted), "{error}");
    drop((waker.join(), theirs));
}
