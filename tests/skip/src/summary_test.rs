use super::*;

const LIST: &str = "
# remark
ability root
ability memory-cgroup
ignored stall
deaths machine 1
";
const ROOT: &str = "SKIP\troot\tmissing\tuser 1000\ta\timage src/a.rs:1\tonly root can";

fn log(passed: usize) -> Log {
    Log { passed, started: 1, ended: 1, ..Log::default() }
}

fn summary(log: &Log, records: &str) -> Summary {
    Summary::new(log, records, &Allowed::parse(LIST).unwrap(), log.failed == 0)
}

fn last_line(summary: &Summary) -> String {
    summary.to_string().lines().last().unwrap().to_owned()
}

#[test]
fn a_run_without_skips_is_good() {
    let summary = summary(&log(3), "");
    assert!(summary.is_good(), "{summary}");
    assert_eq!(last_line(&summary), "3 passed, 0 failed, 0 skipped");
}

#[test]
fn a_skip_on_the_list_is_counted_once_per_test() {
    let again = ROOT.replace("a.rs:1", "a.rs:2");
    let summary = summary(&log(3), &format!("{ROOT}\n{again}\n"));
    assert!(summary.is_good(), "{summary}");
    assert!(
        summary.to_string().contains("a (image src/a.rs:1) needs root: only root can; user 1000"),
        "{summary}"
    );
    assert_eq!(last_line(&summary), "2 passed, 0 failed, 1 skipped");
}

#[test]
fn a_skip_that_is_not_on_the_list_fails() {
    let summary = summary(&log(3), &ROOT.replace("root\t", "kvm\t"));
    assert!(!summary.is_good(), "{summary}");
    assert!(summary.to_string().contains("FAILED: a skip that is not on the list"), "{summary}");
    assert_eq!(last_line(&summary), "2 passed, 1 failed, 1 skipped");
}

#[test]
fn a_skip_of_what_the_machine_has_fails() {
    let summary = summary(&log(3), &ROOT.replace("missing", "present"));
    assert!(summary.to_string().contains("this machine has what the test needs"), "{summary}");
    assert!(!summary.is_good());
}

#[test]
fn an_ignored_test_must_be_on_the_list_and_give_a_reason() {
    let ignored = |name: &str, reason: &str| Log {
        ignored: BTreeMap::from([(name.to_owned(), reason.to_owned())]),
        ignored_count: 1,
        ..log(3)
    };
    let good = summary(&ignored("stall", "three minutes"), "");
    assert!(good.is_good(), "{good}");
    assert_eq!(last_line(&good), "3 passed, 0 failed, 1 skipped");
    for bad in [ignored("stall", ""), ignored("other", "three minutes")] {
        assert!(!summary(&bad, "").is_good(), "{bad:?}");
    }
    // A suite whose output does not have room for the reason records it.
    assert!(summary(&ignored("stall", ""), "IGNORED\tstall\tthree minutes\n").is_good());
}

#[test]
fn deaths_are_named_and_more_than_usual_fail() {
    let died = "DIED\tmachine\ttriple fault\tlinux\n";
    let one = summary(&log(3), died);
    assert!(one.is_good() && one.to_string().contains("machine of linux: triple fault"), "{one}");
    assert!(!summary(&log(3), &died.repeat(2)).is_good());
    assert!(!summary(&log(3), "DIED\tguest\ttriple fault\tlinux\n").is_good());
}

#[test]
fn a_program_that_crashes_counts_as_a_failure() {
    let crashed = summary(&Log { started: 2, ..log(3) }, "");
    assert_eq!(last_line(&crashed), "3 passed, 1 failed, 0 skipped");
    let allowed = Allowed::default();
    assert!(!Summary::new(&log(3), "", &allowed, false).is_good(), "cargo's own word counts");
    assert!(!Summary::new(&Log::default(), "", &allowed, true).is_good(), "a run without tests is not good");
}

#[test]
fn a_failed_test_is_not_counted_as_skipped_too() {
    let failed = Log { failed: 1, failed_names: BTreeSet::from(["a".to_owned()]), ..log(3) };
    assert_eq!(last_line(&summary(&failed, ROOT)), "3 passed, 1 failed, 0 skipped");
}

#[test]
fn a_line_that_is_not_a_record_fails() {
    assert!(!summary(&log(3), "SKIP\tgarbled").is_good());
}

#[test]
fn the_list_refuses_what_it_does_not_know() {
    for bad in ["ability x-ray", "deaths machine many", "deaths machine", "skip a", "ability"] {
        assert!(Allowed::parse(bad).is_err(), "{bad:?}");
    }
    Allowed::parse(include_str!("../allowed.txt")).unwrap();
}
