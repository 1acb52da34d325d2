use super::*;
use std::cell::Cell;
use std::process::{Child, Command, Stdio};

const LIMITS: Limits = Limits { quiet: Duration::from_secs(60), total: Duration::from_secs(1200) };

/// The time so many seconds after some moment.
struct Clock(Instant);

impl Clock {
    fn at(&self, second: u64) -> Instant {
        self.0 + Duration::from_secs(second)
    }
}

#[test]
fn a_wait_without_progress_ends_after_the_quiet_time() {
    let clock = Clock(Instant::now());
    let mut wait = Wait::begin(LIMITS, clock.at(0));
    assert_eq!(wait.go_on(7, clock.at(0)), Ok(()));
    assert_eq!(wait.go_on(7, clock.at(59)), Ok(()));
    let quiet = Duration::from_secs(60);
    assert_eq!(wait.go_on(7, clock.at(60)), Err(Missed::Quiet(quiet, quiet)));
}

#[test]
fn a_wait_with_slow_progress_goes_on() {
    let clock = Clock(Instant::now());
    let mut wait = Wait::begin(LIMITS, clock.at(0));
    for step in 0..20 {
        // One step in 59 s, whichever direction the count goes.
        let count = if step % 2 == 0 { step } else { 100 - step };
        assert_eq!(wait.go_on(count, clock.at(59 * step)), Ok(()), "step {step}");
    }
    let last = 59 * 19;
    let (quiet, after) = (Duration::from_secs(60), Duration::from_secs(last + 60));
    assert_eq!(wait.go_on(100 - 19, clock.at(last + 60)), Err(Missed::Quiet(quiet, after)));
}

#[test]
fn a_wait_with_progress_ends_after_the_total() {
    let clock = Clock(Instant::now());
    let mut wait = Wait::begin(LIMITS, clock.at(0));
    for second in 0..1200 {
        assert_eq!(wait.go_on(second, clock.at(second)), Ok(()));
    }
    assert_eq!(wait.go_on(1200, clock.at(1200)), Err(Missed::Total(LIMITS.total)));
}

#[test]
fn an_error_says_what_was_waited_for_why_it_ended_and_what_was_seen_last() {
    let looks = Cell::new(0);
    let look = || {
        looks.set(looks.get() + 1);
        Ok(looks.get())
    };
    let limits = Limits::quiet(Duration::from_millis(100));
    let error = until_within(limits, "a thousand looks", &Still, look, |seen| *seen == 1000).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("Waited for: a thousand looks") && text.contains("nothing moved for 0.1"),
        "{text}"
    );
    assert!(text.contains(&format!("last seen: {}", looks.get())), "{text}");
}

#[test]
fn what_moves_more_slowly_than_looks_come_keeps_a_wait_going() {
    let looks = Cell::new(0u64);
    let look = || {
        looks.set(looks.get() + 1);
        Ok(looks.get())
    };
    // Moves at every second look. The quiet time is that of ten looks.
    let progress = Counted(|| looks.get() / 2);
    let limits = Limits::quiet(LOOK_EVERY.0 * 10);
    assert_eq!(until_within(limits, "forty looks", &progress, look, |seen| *seen == 40).unwrap(), 40);
}

#[test]
fn a_look_that_fails_ends_the_wait() {
    let error = until("a look", &Still, || Err::<(), _>(anyhow::anyhow!("no look")), |()| true).unwrap_err();
    assert_eq!(error.to_string(), "no look");
}

/// A process that is killed at the end.
struct Process(Child);

impl Process {
    fn shell(script: &str) -> Self {
        Self(Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // `exec` and `wait` in the scripts: a child of the shell ends with its input, or is the shell.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn cpu_time_of_a_process_and_of_its_descendants_is_progress() {
    // The second loop is a child of `timeout`, which is a child of the shell; it ends with the shell.
    for script in ["while :; do :; done", "timeout 600 sh -c 'while [ -d /proc/'$$' ]; do :; done' & wait"] {
        let busy = Process::shell(script);
        let activity = Activity::of(busy.0.id());
        let begin = activity.count();
        until("CPU time is progress", &Still, || Ok(activity.count()), |now| *now > begin).unwrap();
    }
}

#[test]
fn a_process_that_sleeps_makes_no_progress_and_one_that_prints_does() {
    let dir = tempfile::tempdir().unwrap();
    let console = dir.path().join("console");
    std::fs::write(&console, "").unwrap();
    let idle = Process::shell("exec sleep 600");
    let activity = Activity::of(idle.0.id()).with_file(&console);
    let limits = Limits::quiet(Duration::from_millis(300));
    let error = until_within(limits, "nothing", &activity, || Ok(()), |()| false).unwrap_err();
    assert!(format!("{error:#}").contains("nothing moved"), "{error:#}");
    let before = activity.count();
    std::fs::write(&console, "x").unwrap();
    assert_eq!(activity.count(), before + 1);
}
