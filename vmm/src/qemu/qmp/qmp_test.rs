use super::wire::{Balloon, QueryBalloon};
use super::*;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;

/// A monitor that greets, takes the negotiation, and answers each further command by `answer`: whole lines.
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
            let said = match name {
                "qmp_capabilities" => format!("{{\"return\": {{}}, \"id\": {id}}}\n"),
                name => answer(id, name),
            };
            if theirs.write_all(said.as_bytes()).is_err() {
                return;
            }
            line.clear();
        }
    });
    (ours, thread)
}

fn connected(answer: impl Fn(u64, &str) -> String + Send + 'static) -> Qmp {
    Qmp::over(monitor(answer).0, Duration::from_secs(5), None).unwrap()
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
    std::thread::sleep(Duration::from_millis(50));
    let events: Vec<Event> = qmp.events().unwrap().into();
    assert_eq!(
        events,
        [Event::BalloonChange { actual: 7 }, Event::Shutdown { reason: "guest-reset".into() }]
    );
}

#[test]
fn a_refusal_is_told_in_qemus_words_on_one_line() {
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
fn a_monitor_that_stops_answering_is_told_by_the_deadline_and_waited_for_later() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut theirs_write = theirs.try_clone().unwrap();
    writeln!(theirs_write, "{GREETING}\n{{\"return\": {{}}, \"id\": 1}}").unwrap();
    let mut qmp = Qmp::over(ours, Duration::from_secs(5), None).unwrap();
    let started = Instant::now();
    let error = qmp.call(&QueryBalloon {}).unwrap_err();
    assert!(matches!(error, QmpError::Deadline { command: "query-balloon", .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(8));
    assert!(!qmp.caught_up(Instant::now()).unwrap());
    writeln!(theirs_write, "{{\"return\": {{\"actual\": 5}}, \"id\": 2}}").unwrap();
    assert!(qmp.caught_up(Instant::now() + Duration::from_secs(1)).unwrap());
}

#[test]
fn what_is_no_monitor_is_told() {
    let said: [(&[u8], &str); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\n", "no QMP monitor"),
        (b"{\"return\": {}}\n", "does not greet"),
        (b"", "did not greet within"),
        (&[b'x'; (1 << 20) + 8192], "a line of more than"),
    ];
    for (bytes, words) in said {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || {
            let _ = theirs.write_all(bytes);
            theirs
        });
        let error = Qmp::over(ours, Duration::from_millis(300), None).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        drop(writer.join());
    }
}

#[test]
fn an_answer_of_another_form_and_a_hang_up_are_errors() {
    let mut qmp = connected(|id, _| format!("{{\"return\": {{\"actual\": -1}}, \"id\": {id}}}\n"));
    assert!(matches!(qmp.call(&QueryBalloon {}), Err(QmpError::Malformed { .. })));
    let (ours, theirs) = UnixStream::pair().unwrap();
    writeln!(&theirs, "{GREETING}\n{{\"return\": {{}}, \"id\": 1}}").unwrap();
    let mut qmp = Qmp::over(ours, Duration::from_secs(5), None).unwrap();
    drop(theirs);
    let error = qmp.call(&QueryBalloon {}).unwrap_err();
    assert!(error.is_end() && matches!(qmp.events(), Err(QmpError::Closed)), "{error}");
}

#[test]
fn a_flood_of_events_keeps_the_newest() {
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
fn somebody_who_talks_without_end_has_not_answered() {
    // Whole messages, as many as are taken, and a message that never ends, a byte at a time.
    let talk: [(&[u8], u64); 2] = [(&b"{\"event\": \"X\"}\n".repeat(1000), 0), (b" ", 20)];
    for (said, pause_ms) in talk {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        writeln!(theirs, "{GREETING}\n{{\"return\": {{}}, \"id\": 1}}").unwrap();
        let mut qmp = Qmp::over(ours, Duration::from_secs(5), None).unwrap();
        let said = said.to_vec();
        let talker = std::thread::spawn(move || {
            while theirs.write_all(&said).is_ok() {
                std::thread::sleep(Duration::from_millis(pause_ms));
            }
        });
        let started = Instant::now();
        let error = qmp.call(&QueryBalloon {}).unwrap_err();
        assert!(matches!(error, QmpError::Deadline { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
        assert!(!qmp.caught_up(Instant::now() + Duration::from_millis(100)).unwrap());
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        // What it says by itself is heard in bounded parts.
        qmp.events().unwrap();
        drop(qmp);
        talker.join().unwrap();
    }
}

#[test]
fn a_wait_is_broken_off_by_what_is_watched_beside_it() {
    let (watched, signal) = UnixStream::pair().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        (&signal).write_all(b"x").unwrap();
        signal
    });
    let started = Instant::now();
    let error = Qmp::over(ours, Duration::from_secs(20), Some(watched.into())).unwrap_err();
    assert!(matches!(error, QmpError::BrokenOff), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    drop((waker.join(), theirs));
}
