//! A monitor of a machine that moves its balloon step by step, stops answering, or is paused by its user.

use super::*;
use crate::machine::qemu::qmp::Deadlines;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

const MIB: u64 = 1 << 20;

/// The part of a machine that its monitor shows.
#[derive(Debug, Default)]
struct Machine {
    runs: bool,
    actual_mib: u64,
    target_mib: u64,
    /// By how much the balloon moves between two queries.
    step_mib: u64,
    interval_s: i64,
    /// It does not answer this command.
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

/// Deadlines and intervals of a test: commands time out and machines are detached within a fraction of a second.
const DEADLINES: Deadlines =
    Deadlines { greeting: Duration::from_secs(20), command: Duration::from_millis(300) };
const TIMES: Times = Times {
    heartbeat: Duration::from_millis(50),
    late_answer: Duration::from_millis(20),
    detach_answer: Duration::from_millis(300),
    detach_follow: Duration::from_millis(500),
    follow: Duration::from_millis(5),
};

/// A machine of 512M of another program: it runs, its balloon is empty, and QEMU polls it every 7 s.
fn attached(step_mib: u64) -> (Arc<Mutex<Machine>>, QmpWorker) {
    let machine = Machine {
        runs: true,
        actual_mib: 512,
        target_mib: 512,
        step_mib,
        interval_s: 7,
        ..Machine::default()
    };
    let machine = Arc::new(Mutex::new(machine));
    let mut qmp = Qmp::over(serve(&machine), DEADLINES, None).unwrap();
    let balloon = BalloonObject::find(&mut qmp).unwrap().unwrap();
    assert_eq!(
        (balloon.original_interval_s(), machine.lock().unwrap().interval_s),
        (7, 7),
        "nothing is changed yet"
    );
    let mut original = Original::own(512 * MIB);
    original.interval_s = 7;
    let worker = QmpWorker::start(qmp, Some(balloon), original, false, None, TIMES).unwrap();
    (machine, worker)
}

/// Waits until this is true of a machine.
fn until(machine: &Mutex<Machine>, is_true: impl Fn(&Machine) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_true(&machine.lock().unwrap()) {
        assert!(Instant::now() < deadline, "{:?}", machine.lock().unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the next update of a kind.
fn next<T>(worker: &QmpWorker, kind: impl Fn(WorkerUpdate) -> Option<T>) -> T {
    loop {
        if let Some(update) = kind(worker.updates.recv_timeout(Duration::from_secs(20)).unwrap()) {
            return update;
        }
    }
}

fn detached(update: WorkerUpdate) -> Option<Result<(), String>> {
    if let WorkerUpdate::Detached(how) = update { Some(how) } else { None }
}

#[test]
fn a_machine_is_detached_once_its_balloon_is_back_and_not_on_the_way_there() {
    let (machine, worker) = attached(60);
    worker.set_target(160 * MIB);
    until(&machine, |machine| (machine.actual_mib, machine.interval_s) == (160, 1));
    worker.detach();
    assert_eq!(next(&worker, detached), Ok(()));
    let machine = machine.lock().unwrap();
    assert_eq!((machine.actual_mib, machine.interval_s, machine.runs), (512, 7, true), "{machine:?}");
}

#[test]
fn a_machine_whose_balloon_does_not_deflate_is_detached_with_a_reason() {
    let (machine, worker) = attached(352);
    worker.set_target(160 * MIB);
    until(&machine, |machine| machine.actual_mib == 160);
    machine.lock().unwrap().step_mib = 0;
    let asked = Instant::now();
    worker.detach();
    assert_eq!(next(&worker, detached), Err("it is still at 160M of 512M".into()));
    assert!(asked.elapsed() >= TIMES.detach_follow, "the worker follows the balloon for a while");
}

#[test]
fn a_machine_that_stops_answering_during_a_detach_stays_attached_with_its_last_target() {
    let (machine, worker) = attached(352);
    worker.set_target(160 * MIB);
    worker.set_running(false);
    until(&machine, |machine| machine.actual_mib == 160 && !machine.runs);
    machine.lock().unwrap().is_silent_at = Some("cont");
    worker.detach();
    let not_detached = |update| if let WorkerUpdate::NotDetached(why) = update { Some(why) } else { None };
    assert!(next(&worker, not_detached).contains("did not answer cont"));
    until(&machine, |machine| (machine.target_mib, machine.interval_s) == (512, 7));
    // A request while it does not answer is refused, too.
    worker.detach();
    assert!(next(&worker, not_detached).contains("did not answer cont"));
    machine.lock().unwrap().is_silent_at = None;
    until(&machine, |machine| (machine.target_mib, machine.interval_s, machine.runs) == (160, 1, false));
    worker.detach();
    assert_eq!(next(&worker, detached), Ok(()));
    until(&machine, |machine| machine.runs && machine.actual_mib == 512);
}

#[test]
fn a_machine_that_its_user_paused_is_not_resumed() {
    let (machine, worker) = attached(1);
    machine.lock().unwrap().runs = false;
    for running in [false, true] {
        worker.set_running(running);
        until(&machine, |machine| {
            machine.commands.iter().filter(|name| *name == "query-balloon").count() > 1
        });
        machine.lock().unwrap().commands.clear();
    }
    until(&machine, |machine| machine.commands.len() > 3);
    assert!(!machine.lock().unwrap().runs);
    // Once the user resumes it, it is paused and resumed.
    machine.lock().unwrap().runs = true;
    for running in [false, true] {
        worker.set_running(running);
        until(&machine, |machine| machine.runs == running);
    }
    // The user pauses it again: it stays paused when it is detached.
    machine.lock().unwrap().runs = false;
    worker.detach();
    assert_eq!(next(&worker, detached), Ok(()));
    assert!(!machine.lock().unwrap().runs);
}
