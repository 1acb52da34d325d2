use super::*;
use std::fs;
use std::io::{BufRead, BufReader};

const SHORT: Duration = Duration::from_millis(300);
/// More than any command of a test takes by the guest's clock.
const LONG: Duration = Duration::from_secs(600);

fn over(stream: UnixStream) -> Agent {
    Agent::over(Limits::default(), stream, Activity::default()).unwrap()
}

/// The real program behind a socket, as it runs in a guest.
fn guest() -> Agent {
    let (host, guest) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let mut output = guest.try_clone().unwrap();
        // Ends when the host's side is dropped.
        let _ = workload::channel::serve(BufReader::new(guest), &mut output, || ());
    });
    over(host)
}

/// A guest that answers each line with what `answer` says.
fn scripted(answer: impl Fn(&str) -> String + Send + 'static) -> UnixStream {
    let (host, guest) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let mut output = guest.try_clone().unwrap();
        for line in BufReader::new(guest).lines().map_while(|line| line.ok()).filter(|line| !line.is_empty())
        {
            if output.write_all(answer(&line).as_bytes()).is_err() {
                return;
            }
        }
    });
    host
}

#[test]
fn memory_is_held_proved_and_freed() {
    let mut agent = guest();
    let held = agent.alloc("a", 10_000, 7).unwrap();
    assert_eq!((held.bytes, held.checksum), (12_288, crate::pattern::checksum_of_seed(7, 12_288)));
    assert!(agent.verify("a").unwrap().intact);
    assert_eq!(agent.touch("a").unwrap(), 3);
    let rewritten = agent.rewrite("a", 8).unwrap();
    assert_eq!(agent.holds().unwrap(), [rewritten]);
    assert_eq!(agent.free("a").unwrap(), 12_288);
    assert!(agent.holds().unwrap().is_empty());
    assert!(agent.meminfo("mem_available_bytes").unwrap() > 0);
}

#[test]
fn programs_run_with_output_code_and_deadline() {
    let mut agent = guest();
    let ran = agent.run("echo hello; exit 3", LONG).unwrap();
    assert_eq!((ran.ended, ran.code, ran.output.as_str()), (true, 3, "hello\n"));
    let error = agent.run("sleep 100", SHORT).unwrap_err();
    assert!(error.to_string().contains("ended after 300 ms"), "{error}");
    agent.start("a", "sleep 100").unwrap();
    assert!(!agent.wait("a", SHORT).unwrap().ended);
    assert_eq!(agent.stop("a").unwrap().code, 137);
}

#[test]
fn a_refusal_is_an_error_with_the_guests_words() {
    let error = guest().free("nothing").unwrap_err();
    assert!(matches!(error, Error::AgentRefused { .. }));
    assert!(error.to_string().contains("Nothing is held as \"nothing\""), "{error}");
}

#[test]
fn late_answers_echo_and_noise_are_skipped() {
    let stream = scripted(|line| {
        let id = line.split(' ').next().unwrap_or_default();
        format!("{line}\r\n\u{1b}[0m\n{{\"id\":0,\"ok\":true}}\n{{\"id\":{id},\"ok\":true,\"pages\":5}}\n")
    });
    let mut agent = over(stream);
    assert_eq!(agent.touch("a").unwrap(), 5);
}

#[test]
fn a_guest_that_neither_answers_nor_moves_is_given_up() {
    let (host, _guest) = UnixStream::pair().unwrap();
    let limits = Limits::quiet(SHORT);
    let error = Agent::over(limits, host, Activity::default()).unwrap_err();
    assert!(matches!(error, Error::AgentSilent { missed: Missed::Quiet(..), .. }), "{error}");
    let missing =
        Agent::connect_within(limits, Path::new("/nonexistent/socket"), Activity::default()).unwrap_err();
    assert!(matches!(missing, Error::AgentConnect { .. }));
}

/// The guest prints to its console while it boots, for far longer than the quiet time of the wait, and then answers the
/// first ping.
#[test]
fn a_guest_that_boots_slowly_is_waited_for_and_may_answer_an_earlier_ping() {
    let scratch = crate::scratch::Scratch::new("agent-slow");
    let console = scratch.path().join("console");
    fs::write(&console, "").unwrap();
    let (host, mut guest) = UnixStream::pair().unwrap();
    let shown = console.clone();
    let booting = thread::spawn(move || {
        for line in 1..=20 {
            thread::sleep(SHORT / 3);
            fs::write(&shown, "line\n".repeat(line)).unwrap();
        }
        guest.write_all(b"{\"id\":1,\"ok\":true}\n").unwrap();
        guest
    });
    let activity = Activity::default().with_file(&console);
    let agent = Agent::over(Limits::quiet(SHORT * 3), host, activity).unwrap();
    assert!(agent.next_id > 3, "it was asked {} times", agent.next_id - 1);
    drop(booting.join().unwrap());
}

#[test]
fn a_guest_that_ends_is_noticed() {
    let mut agent = guest();
    agent.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(matches!(agent.touch("a").unwrap_err(), Error::AgentChannel { .. }));
}

#[test]
fn an_answer_without_what_was_promised_is_an_error() {
    let stream =
        scripted(|line| format!("{{\"id\":{},\"ok\":true}}\n", line.split(' ').next().unwrap_or_default()));
    let mut agent = over(stream);
    assert!(agent.free("a").unwrap_err().to_string().contains("(bytes: "));
    let error = agent.verify("a").unwrap_err().to_string();
    assert!(error.contains("missing field"), "{error}");
}
