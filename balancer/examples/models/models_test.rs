//! The comparison measures what it claims to measure, and docs/models.md shows it.

use super::attacks::Attack;
use super::generate::sharing;
use super::replay::{play, steps, total};
use super::report::{Outcome, SystemReport};
use super::truth::Truth;
use super::*;
use accounting::{Accounting, ContainerId, Rss, Shares, Zones, partial, static_ownership};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;

const FIXTURE: &str = include_str!("traces/short.jsonl");

/// The report of docs/models.md.
static REPORT: LazyLock<Report> = LazyLock::new(|| Report::new(1, None));
/// The same with one more trace.
static WITH_FIXTURE: LazyLock<Report> =
    LazyLock::new(|| Report::new(1, Some(Trace::parse("short", FIXTURE).unwrap())));

fn system<'a>(report: &'a Report, name: &str) -> &'a SystemReport {
    report.systems.iter().find(|system| system.system == name).unwrap()
}

/// A report as JSON, without its times and without what belongs to the fixture.
fn comparable(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.ends_with("_ns") && name != "short");
            fields.values_mut().for_each(|field| *field = comparable(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = comparable(item.take())),
        _ => {}
    }
    value
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let json = |report: &Report| comparable(serde_json::to_value(report).unwrap());
    assert_eq!(json(&REPORT), json(&WITH_FIXTURE));
    assert_ne!(mixed(7), mixed(8));
    assert_ne!(sharing(7), sharing(8));
}

#[test]
fn the_known_attack_on_each_system_works_there() {
    let outcome = |name: &str, attack: Attack| {
        let attacks = &system(&REPORT, name).denial_of_service.measured.attacks;
        attacks.iter().find(|attacked| attacked.attack == attack).unwrap().outcome
    };
    assert_eq!(outcome("static", Attack::FreeRiding), Outcome::VictimPays);
    assert_eq!(outcome("partial", Attack::TimedUnshare), Outcome::VictimPays);
    assert_eq!(outcome("rss", Attack::UnmappedCache), Outcome::NotCharged);
    assert_eq!(outcome("zones", Attack::Fragmentation), Outcome::Strands);
    assert_eq!(outcome("partial", Attack::FreeRiding), Outcome::Fails);
    assert_eq!(outcome("static", Attack::UnmappedCache), Outcome::Fails);
    assert_eq!(outcome("static", Attack::Fragmentation), Outcome::Fails);
}

#[test]
fn a_grace_keeps_the_victim_of_a_timed_unshare_below_its_limit() {
    let mitigation = REPORT.mitigation.iter().find(|mitigation| mitigation.system == "partial").unwrap();
    let limit = mitigation.limit_frames as f64;
    assert!(
        mitigation.before.over_limit_ms > 5000 && mitigation.before.peak_frames > limit,
        "{mitigation:?}"
    );
    assert!(mitigation.after.over_limit_ms == 0 && mitigation.after.peak_frames <= limit, "{mitigation:?}");
}

#[test]
fn what_the_systems_should_do_well_they_do() {
    let difference = |name: &str, trace: &str| system(&WITH_FIXTURE, name).against_truth[trace];
    for trace in ["mixed", "sharing", "short"] {
        for name in ["static", "partial"] {
            assert_eq!(difference(name, trace).charged_pct, 100.0, "{name} on {trace}");
        }
        let zones = difference("zones", trace);
        let beyond = zones.charged_pct - zones.fragmentation_pct;
        assert!((beyond - 100.0).abs() < 0.02, "zones on {trace}: {zones:?}");
    }
    let wrong = |name: &str| difference(name, "sharing").overcharged_pct;
    assert!(wrong("partial") < wrong("static") && wrong("static") < wrong("rss"));
}

/// Truth and systems share nothing but the trace; both must account for the same memory.
#[test]
fn truth_divides_all_that_is_resident() {
    for trace in [mixed(3), sharing(3), Trace::parse("short", FIXTURE).unwrap(), Attack::TimedUnshare.trace()]
    {
        let truth = Truth::of(&trace);
        let mut first = static_ownership(None);
        let charged = play(&mut first, &steps(&trace), trace.length_ms(), &BTreeMap::new());
        let of = |windows| (0..64).map(|id| total(windows, ContainerId(id))).sum::<f64>();
        let (right, found) = (of(&truth.windows), of(&charged.windows));
        assert!((right - found).abs() < 1e-6 * right, "{}: {right} and {found}", trace.name);
    }
}

#[test]
fn charges_of_the_fixture_second_by_second() {
    let trace = Trace::parse("short", FIXTURE).unwrap();
    let charged = |system: &mut dyn Accounting| {
        let charged = play(system, &steps(&trace), trace.length_ms(), &BTreeMap::new());
        // Frame-milliseconds of the containers in the third second: 2000 to 3000 ms.
        [0, 1, 2, 3].map(|id| charged.windows[2].get(&ContainerId(id)).copied().unwrap_or(0.0))
    };
    // Guest 1 has 1024 frames, in container 1 for 100 ms of it; the cache of guest 3, 300 frames; the image, 512.
    assert_eq!(charged(&mut static_ownership(None)), [0.0, 102_400.0, 812_000.0, 921_600.0]);
    assert_eq!(charged(&mut partial(Shares::Exact, None)), [300_000.0, 102_400.0, 512_000.0, 921_600.0]);
    // Guest 2 takes its 512 frames along after 200 ms, guest 3 maps 256 all the time.
    assert_eq!(charged(&mut Rss::default()), [0.0, 102_400.0, 358_400.0, 1_331_200.0]);
    // The image is a zone of the pool; the rest of the cache lies in two zones of container 2.
    assert_eq!(charged(&mut Zones::default()), [512_000.0, 102_400.0, 1_024_000.0, 921_600.0]);
}

#[test]
fn a_trace_is_the_same_after_it_was_written_and_parsed() {
    let trace = mixed(5);
    assert_eq!(Trace::parse("mixed", &trace.to_text()), Ok(trace));
}

#[test]
fn a_malformed_trace_is_refused_with_line_and_value() {
    let start = "{\"at_ms\":0,\"event\":\"attach\",\"guest\":1,\"container\":1}\n";
    let touch = r#"{"at_ms":1,"event":"touch","guest":1,"first":0,"count":8,"kind":"private"}"#;
    for (lines, words) in [
        ("lots", &["Line 2", "expected value"][..]),
        (r#"{"at_ms":0,"event":"explode"}"#, &["explode", "touch"]),
        (r#"{"at_ms":0,"event":"end","guest":1}"#, &["guest"]),
        (r#"{"at_ms":-1,"event":"end"}"#, &["-1"]),
        (r#"{"at_ms":4000000,"event":"end"}"#, &["4000000", "3600000"]),
        (r#"{"at_ms":1,"event":"free","first":3,"count":1}"#, &["frame 3", "not resident"]),
        (
            r#"{"at_ms":1,"event":"touch","guest":2,"first":3,"count":1,"kind":"pool"}"#,
            &["guest 2", "not attached to a container"],
        ),
        (
            r#"{"at_ms":1,"event":"touch","guest":1,"first":3,"count":0,"kind":"pool"}"#,
            &["count is 0", "at least 1"],
        ),
        (
            r#"{"at_ms":1,"event":"touch","guest":1,"first":18446744073709551615,"count":2,"kind":"pool"}"#,
            &["18446744073709551615", "1048576"],
        ),
        (r#"{"at_ms":1,"event":"touch","guest":1,"first":0,"count":1,"kind":"huge"}"#, &["huge", "private"]),
        (r#"{"at_ms":1,"event":"attach","guest":1,"container":2}"#, &["guest 1", "container 1 already"]),
        (r#"{"at_ms":1,"event":"attach","guest":2,"container":64}"#, &["container is 64", "63"]),
        (r#"{"at_ms":1,"event":"attach","guest":0,"container":1}"#, &["guest is 0", "1000"]),
        (&format!("{touch}\n{touch}"), &["Line 3", "frame 0", "resident already"]),
        (&format!("{touch}\n{}", r#"{"at_ms":0,"event":"end"}"#), &["Line 3", "at_ms is 0", "between 1"]),
        (
            &format!("{touch}\n{}", r#"{"at_ms":1,"event":"share","guest":1,"first":0,"count":1}"#),
            &["mapped by guest 1 already"],
        ),
        (
            &format!("{touch}\n{}", r#"{"at_ms":1,"event":"remove","container":1}"#),
            &["container 1", "guest 1 maps"],
        ),
        (&format!("{}\n{touch}", r#"{"at_ms":1,"event":"end"}"#), &["Line 3", "ended already"]),
        (touch, &["no end"]),
        ("", &["no end"]),
    ] {
        let error = Trace::parse("bad", &format!("{start}{lines}")).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{lines}: {error:?} does not name {word:?}");
        }
    }
}

/// A text without its times: the figures that differ from run to run, and their bars.
fn without_times(text: &str) -> String {
    let mut lines: Vec<String> = vec![];
    for line in text.lines() {
        let is_bar_of_time = line.starts_with("<text") && line.ends_with(" ns</text>");
        if is_bar_of_time {
            // The text of a bar comes after its rectangle.
            lines.pop();
            continue;
        }
        let mut words: Vec<&str> = line.split(' ').collect();
        for at in 1..words.len() {
            if ["ns", "µs"].contains(&words[at]) && words[at - 1].parse::<f64>().is_ok() {
                (words[at - 1], words[at]) = ("a", "time");
            }
        }
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

#[test]
fn the_page_and_its_figure_show_what_the_program_measures() {
    let read = |name: &str| {
        std::fs::read_to_string(format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let page = read("models.md");
    let current = into_markers("models", &page, &markdown(&REPORT)).unwrap();
    assert_eq!(without_times(&page), without_times(&current), "docs/models.md is old: make models");
    let (drawn, current) = (read("models.svg"), figure(&REPORT));
    assert_eq!(without_times(&drawn), without_times(&current), "docs/models.svg is old: make models");
}
