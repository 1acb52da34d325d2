//! A monitor of a machine that moves its balloon step by step, stops answering, or stands still by its user's word.

use super::*;
use crate::qemu::qmp::client::GREETING_DEADLINE;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

const MIB: u64 = 1 << 20;

/// A machine, as far as a monitor tells of it.
#[derive(Debug, Default)]
struct Machine {
    runs: bool,
    actual_mib: u64,
    target_mib: u64,
    /// By how much it moves between two looks.
    step_mib: u64,
    interval_s: i64,
    /// The command that it does not answer until this is nothing.
    is_silent_at: Option<&'static str>,
    commands: Vec<String>,
}

impl Machine {
    fn answer(&mut self, command: &str, arguments: &Value) -> Value {
        self.commands.push(command.into());
        match (command, arguments["property"].as_str()) {
            ("query-status", _) => return json!({ "running": self.runs, "status": "whatever" }),
            ("stop", _) => self.runs = false,
            ("cont", _) => self.runs = true,
            ("balloon", _) => self.target_mib = arguments["value"].as_u64().unwrap() / MIB,
            ("query-balloon", _) => {
                let (low, high) =
                    (self.target_mib.min(self.actual_mib), self.target_mib.max(self.actual_mib));
                let step = self.step_mib.min(high - low);
                self.actual_mib = if self.target_mib > self.actual_mib { low + step } else { high - step };
                return json!({ "actual": self.actual_mib * MIB });
            }
            ("qom-list", _) => return json!([{ "name": "b", "type": "child<virtio-balloon-pci>" }]),
            ("qom-get", Some("guest-stats")) => return json!({ "stats": {}, "last-update": 0 }),
            ("qom-get", Some("deflate-on-oom")) => return json!(true),
            ("qom-get", _) => return json!(self.interval_s),
            ("qom-set", _) => self.interval_s = arguments["value"].as_i64().unwrap(),
            _ => {}
        }
        json!({})
    }
}

/// Serves it.
fn serve(machine: &Arc<Mutex<Machine>>) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let machine = Arc::clone(machine);
    std::thread::spawn(move || {
        let mut writer = theirs.try_clone().unwrap();
        writeln!(writer, "{}", json!({ "QMP": {} })).unwrap();
        for line in BufReader::new(theirs).lines() {
            let command: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let name = command["execute"].as_str().unwrap();
            while machine.lock().unwrap().is_silent_at == Some(name) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let returned = machine.lock().unwrap().answer(name, &command["arguments"]);
            let _ = writeln!(writer, "{}", json!({ "return": returned, "id": command["id"] }));
        }
    });
    ours
}

/// Somebody else's machine of 512M, which was found running without a balloon inflated, asked every 7 s.
fn found(step_mib: u64) -> (Arc<Mutex<Machine>>, Operator) {
    let machine = Machine {
        runs: true,
        actual_mib: 512,
        target_mib: 512,
        step_mib,
        interval_s: 7,
        ..Machine::default()
    };
    let machine = Arc::new(Mutex::new(machine));
    let mut qmp = Qmp::over(serve(&machine), GREETING_DEADLINE, None).unwrap();
    let balloon = BalloonObject::find(&mut qmp).unwrap().unwrap();
    assert_eq!(
        (balloon.found_interval_s(), machine.lock().unwrap().interval_s),
        (7, 7),
        "nothing is changed yet"
    );
    let mut found = Found::own(512 * MIB);
    found.interval_s = 7;
    let operator = Operator::start(qmp, Some(balloon), found, false, None).unwrap();
    (machine, operator)
}

/// Waits for what is looked for in a machine.
fn until(machine: &Mutex<Machine>, what: impl Fn(&Machine) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !what(&machine.lock().unwrap()) {
        assert!(Instant::now() < deadline, "{:?}", machine.lock().unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the next news of a kind.
fn next<T>(operator: &Operator, kind: impl Fn(News) -> Option<T>) -> T {
    loop {
        if let Some(news) = kind(operator.news.recv_timeout(Duration::from_secs(20)).unwrap()) {
            return news;
        }
    }
}

fn detached(news: News) -> Option<Result<(), String>> {
    if let News::Detached(how) = news { Some(how) } else { None }
}

#[test]
fn a_machine_is_let_go_when_its_balloon_is_where_it_was_and_not_on_the_way_there() {
    let (machine, operator) = found(60);
    operator.set_target(160 * MIB);
    until(&machine, |machine| (machine.actual_mib, machine.interval_s) == (160, 1));
    operator.detach();
    assert_eq!(next(&operator, detached), Ok(()));
    let machine = machine.lock().unwrap();
    assert_eq!((machine.actual_mib, machine.interval_s, machine.runs), (512, 7, true), "{machine:?}");
}

#[test]
fn a_guest_that_does_not_take_its_memory_back_is_let_go_with_a_word_of_it() {
    let (machine, operator) = found(352);
    operator.set_target(160 * MIB);
    until(&machine, |machine| machine.actual_mib == 160);
    machine.lock().unwrap().step_mib = 0;
    let asked = Instant::now();
    operator.detach();
    assert_eq!(next(&operator, detached), Err("it is at 160M of 512M still".into()));
    assert!(asked.elapsed() < Duration::from_secs(9), "before the balancer gives it up");
}

#[test]
fn a_machine_that_stops_answering_while_it_is_let_go_stays_attached_as_if_nobody_had_asked() {
    let (machine, operator) = found(352);
    operator.set_target(160 * MIB);
    operator.set_running(false);
    until(&machine, |machine| machine.actual_mib == 160 && !machine.runs);
    machine.lock().unwrap().is_silent_at = Some("cont");
    operator.detach();
    let kept = |news| if let News::Kept(why) = news { Some(why) } else { None };
    assert!(next(&operator, kept).contains("did not answer cont"));
    until(&machine, |machine| (machine.target_mib, machine.interval_s) == (512, 7));
    // Whoever asks while it does not answer is told so, too.
    operator.detach();
    assert!(next(&operator, kept).contains("did not answer cont"));
    machine.lock().unwrap().is_silent_at = None;
    until(&machine, |machine| (machine.target_mib, machine.interval_s, machine.runs) == (160, 1, false));
    operator.detach();
    assert_eq!(next(&operator, detached), Ok(()));
    until(&machine, |machine| machine.runs && machine.actual_mib == 512);
}

#[test]
fn a_machine_that_its_user_stopped_is_not_let_run() {
    let (machine, operator) = found(1);
    machine.lock().unwrap().runs = false;
    for running in [false, true] {
        operator.set_running(running);
        until(&machine, |machine| {
            machine.commands.iter().filter(|name| *name == "query-balloon").count() > 1
        });
        machine.lock().unwrap().commands.clear();
    }
    until(&machine, |machine| machine.commands.len() > 3);
    assert!(!machine.lock().unwrap().runs);
    // Once the user lets it run, it is held up and goes on.
    machine.lock().unwrap().runs = true;
    for running in [false, true] {
        operator.set_running(running);
        until(&machine, |machine| machine.runs == running);
    }
    // Stopped again by its user, it is let go like that.
    machine.lock().unwrap().runs = false;
    operator.detach();
    assert_eq!(next(&operator, detached), Ok(()));
    assert!(!machine.lock().unwrap().runs);
}
