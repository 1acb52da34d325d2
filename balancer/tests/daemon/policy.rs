//! Knobs, explanations, what a change would do, recordings, and which guests fit on the host.

use crate::support::{Daemon, MIB, Vmm, about, command, run_dir};
use balancer::client::ClientError;
use balancer::objects::{ContainerExplanation, PolicyObject, Preview};
use hyper::Method;
use policy::{Explanation, Health, Input, Knobs, OomPolicy};
use protocol::message::{Balloon, FromVmm, Statistics, ToVmm};
use serde_json::json;
use std::process::Output;

fn run(run_dir: &protocol::run_dir::RunDir, arguments: &[&str]) -> Output {
    command(run_dir, arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn a_target_is_explained_to_people_and_to_programs() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (a, _) = Vmm::register(&run_dir, about("a", "/web/a", Some("256M"))).await;
    let statistics = Statistics {
        total_memory_bytes: Some(500 * MIB),
        available_memory_bytes: Some(400 * MIB),
        sequence: 1,
        ..Default::default()
    };
    a.say(&FromVmm::Statistics(statistics)).await;
    daemon.until_guest("a", |guest| guest.statistics.is_some()).await;
    let explained: Explanation = daemon.client.get("/v1/guests/a/explain").await.unwrap();
    assert_eq!(explained.target_bytes, 240 * MIB);
    assert!(explained.reason.contains("/web/a"), "{explained:#?}");
    assert!(explained.to_get_more[0].contains("/web/a"), "{explained:#?}");
    let is_used = |input: &&Input| input.name.starts_with("used") && input.age_ms.is_some();
    assert_eq!(explained.inputs.iter().find(is_used).unwrap().bytes, 100 * MIB);
    let inside: ContainerExplanation = daemon.client.get("/v1/explain/web").await.unwrap();
    assert_eq!((inside.path.as_str(), inside.guests[0].guest.as_str()), ("/web", "a"));
    let inside: ContainerExplanation = daemon.client.get("/v1/explain/").await.unwrap();
    assert_eq!(inside.guests.len(), 1);
    for what in ["a", "/web/a", "/"] {
        let said = run(&run_dir, &["explain", what]);
        let said = text(&said);
        assert!(said.contains("256M") && said.contains("more: Set a larger max"), "{said}");
    }
    for (route, word) in [("/v1/guests/b/explain", "b"), ("/v1/explain/nope", "/nope")] {
        let Err(ClientError::Refused(problem)) = daemon.call(Method::GET, route, "").await else {
            panic!("{route}")
        };
        assert!(problem.status == 404 && problem.detail.contains(word), "{problem:?}");
    }
    assert_eq!(daemon.guest("a").await.health, Health::Well);
}

#[tokio::test]
async fn a_dry_run_shows_what_would_change_and_changes_nothing() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (_a, _) = Vmm::register(&run_dir, about("a", "/web/a", Some("256M"))).await;
    let before = (daemon.containers().await, daemon.events().await);
    let (route, body) = ("/v1/containers/web/a?dry_run=true", r#"{"max_bytes": 134217728}"#);
    let preview: Preview = daemon.client.call(Method::PATCH, route, body.into()).await.unwrap();
    let target = &preview.targets[0];
    assert_eq!(
        (target.guest.as_str(), target.now_bytes, target.target_bytes),
        ("a", Some(240 * MIB), 112 * MIB)
    );
    let said = text(&run(&run_dir, &["set", "/web/a", "--max", "128M", "--dry-run"]));
    assert!(said.contains("240M -> 112M"), "{said}");
    let said = text(&run(&run_dir, &["set", "/web/a", "--max", "1G", "--dry-run"]));
    assert!(said.contains("240M -> 512M"), "{said}");
    let said = text(&run(&run_dir, &["set", "/web/a", "--weight", "7", "--dry-run"]));
    assert!(said.contains("No target would change"), "{said}");
    let refused = daemon.refused("/v1/containers/web/a?dry_run=true", r#"{"max_bytes": 1048576}"#).await;
    assert_eq!(refused.status, 409);
    daemon.refused("/v1/containers/web/a?dry=true", "{}").await;
    assert_eq!(daemon.containers().await[2].limits, before.0[2].limits);
    assert_eq!(daemon.events().await, before.1);
}

#[tokio::test]
async fn knobs_change_within_their_bounds_and_take_effect_at_once() {
    let (_dir, run_dir) = run_dir();
    let daemon =
        Daemon::start_with(&run_dir, &["--interval-ms", "60000", "--reserve", "1G", "--idle-tax", "50"])
            .await;
    let policy = daemon.policy().await;
    let expected = Knobs {
        reserve_bytes: Some(1 << 30),
        idle_tax_percent: 50,
        interval_ms: 60_000,
        oom_policy: OomPolicy::Report,
    };
    assert_eq!(policy.knobs, expected);
    let (vmm, target) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    assert_eq!(target, 512 * MIB);
    // All but what a guest needs to live is kept for the host: its floor is what is left.
    let total = daemon.host().await.memory.total_bytes;
    daemon.patch_policy(&format!(r#"{{"reserve_bytes": {total}}}"#)).await;
    let reason = vmm.hear_target(64 * MIB).await;
    assert!(reason.contains("host"), "{reason}");
    let refused = Vmm::connect(&run_dir, about("b", "/b", None)).await;
    let Some(ToVmm::Refused { reason }) = refused.hear_any().await else { panic!("taken in") };
    for word in ["\"b\" needs 64M to start and 16M beside", "a 80M", "reserve", "missing"] {
        assert!(reason.contains(word), "{reason:?} does not say {word:?}");
    }
    let policy = daemon.patch_policy(r#"{"reserve_bytes": null, "interval_ms": 50}"#).await;
    assert_eq!((policy.knobs.reserve_bytes, policy.knobs.interval_ms), (None, 50));
    vmm.hear_target(512 * MIB).await;
    for (body, field) in [
        (r#"{"idle_tax_percent": 100}"#, "idle_tax_percent"),
        (r#"{"interval_ms": 5}"#, "interval_ms"),
        (r#"{"reserve_bytes": 18446744073709551615}"#, "reserve_bytes"),
        (r#"{"oom_policy": "panic"}"#, "oom_policy"),
        (r#"{"swappiness": 60}"#, "swappiness"),
    ] {
        let problem = daemon.refused("/v1/policy", body).await;
        assert_eq!((problem.status, problem.field.as_deref()), (422, Some(field)), "{body}");
    }
    let both = r#"{"idle_tax_percent": 100, "interval_ms": 5, "oom_policy": "kill"}"#;
    let problem = daemon.refused("/v1/policy", both).await;
    let fields: Vec<_> = problem.errors.iter().map(|reason| reason.field.as_deref().unwrap()).collect();
    assert_eq!(fields, ["idle_tax_percent", "interval_ms"]);
    let policy = daemon.policy().await;
    assert_eq!((policy.knobs.interval_ms, policy.knobs.oom_policy), (50, OomPolicy::Report));
}

#[tokio::test]
async fn knobs_stay_as_they_are_over_a_restart_unless_it_names_others() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--interval-ms", "100", "--idle-tax", "50"]).await;
    let said = text(&run(&run_dir, &["policy"]));
    assert!(said.contains("idle tax    50 %") && said.contains("Guests may hold"), "{said}");
    let said = text(&run(&run_dir, &["policy", "--reserve", "1G", "--oom-policy", "kill"]));
    assert!(said.contains("reserve     1G") && said.contains("kill"), "{said}");
    daemon.kill();
    let daemon = Daemon::start_with(&run_dir, &["--interval-ms", "200"]).await;
    let policy = daemon.policy().await;
    let expected = Knobs {
        reserve_bytes: Some(1 << 30),
        idle_tax_percent: 50,
        interval_ms: 200,
        oom_policy: OomPolicy::Kill,
    };
    assert_eq!(policy.knobs, expected);
    let said = text(&run(&run_dir, &["policy", "--reserve", "default", "--json"]));
    let policy: PolicyObject = serde_json::from_str(&said).unwrap();
    assert_eq!(policy.knobs.reserve_bytes, None);
    for bad in [["--reserve", "lots"], ["--idle-tax", "100"], ["--oom-policy", "panic"]] {
        assert_eq!(run(&run_dir, &[&["policy"][..], &bad].concat()).status.code(), Some(2), "{bad:?}");
    }
}

#[tokio::test]
async fn every_change_has_a_preview() {
    let (dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.put("/v1/containers/small", r#"{"max_bytes": 134217728}"#).await;
    daemon.put("/v1/containers/empty", r#"{"max_bytes": 134217728}"#).await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/web/a", Some("256M"))).await;
    let images = dir.path().to_str().unwrap();
    daemon.put("/v1/bindings", &format!(r#"{{"subject": "{images}", "container": "/empty"}}"#)).await;
    let all = async || {
        let mut seen = Vec::new();
        for path in ["/v1/bindings", "/v1/events?follow=false"] {
            seen.push(daemon.get(path).await);
        }
        for container in daemon.containers().await {
            seen.push(json!([container.path, container.limits, container.guests]));
        }
        seen.push(json!(daemon.policy().await.knobs));
        let guest = daemon.guest("a").await;
        seen.push(json!([guest.container, guest.charge_to, guest.target_bytes]));
        seen
    };
    let before = all().await;
    let web = "/v1/containers/web/a";
    for (method, path, body, change) in [
        (Method::PATCH, web, r#"{"max_bytes": 134217728}"#, Some((240, 112))),
        (Method::PUT, web, r#"{"max_bytes": 134217728}"#, Some((240, 112))),
        (Method::PUT, "/v1/containers/new", "{}", None),
        (Method::PATCH, "/v1/containers/", r#"{"max_bytes": 134217728}"#, Some((240, 112))),
        (Method::DELETE, "/v1/containers/empty2", "", None),
        (Method::PATCH, "/v1/guests/a", r#"{"container": "/small"}"#, Some((240, 112))),
        (Method::PATCH, "/v1/guests/a", r#"{"container": "/empty", "charges": "leave"}"#, Some((240, 112))),
        (Method::PATCH, "/v1/guests/a", r#"{"charge_to": "/small"}"#, None),
        (Method::PATCH, "/v1/policy", r#"{"idle_tax_percent": 3}"#, None),
        (Method::PUT, "/v1/bindings", r#"{"subject": "/", "container": "/small"}"#, None),
    ] {
        let shown = format!("{method} {path} {body}");
        let route = format!("{path}?dry_run=true");
        let preview: Result<Preview, _> = daemon.client.call(method, &route, body.into()).await;
        if path.ends_with("empty2") {
            assert!(
                matches!(preview, Err(ClientError::Refused(problem)) if problem.status == 404),
                "{shown}"
            );
            continue;
        }
        let preview = preview.unwrap();
        let target = preview.targets.first();
        let seen = target.and_then(|target| Some((target.now_bytes? / MIB, target.target_bytes / MIB)));
        assert_eq!(seen, change, "{shown}: {preview:#?}");
    }
    daemon.put("/v1/containers/gone", "{}").await;
    let before = [before, vec![]].concat();
    for arguments in [
        &["set", "/web/a", "--max", "128M", "--dry-run"][..],
        &["set", "/other", "--max", "1G", "--create", "--dry-run"],
        &["rm", "/gone", "--dry-run"],
        &["move", "a", "/small", "--dry-run"],
        &["charge", "a", "/small", "--dry-run"],
        &["policy", "--idle-tax", "3", "--dry-run"],
        &["bind", "/", "/small", "--dry-run"],
        &["unbind", images, "--dry-run"],
    ] {
        let output = run(&run_dir, arguments);
        let said = text(&output);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(
            said.contains("240M -> 112M") || said.contains("No target would change"),
            "{arguments:?}: {said}"
        );
    }
    daemon.call(Method::DELETE, "/v1/containers/gone", "").await.unwrap();
    let after: Vec<_> = all().await;
    let events = |seen: &[serde_json::Value]| seen[1].as_array().unwrap().len();
    // The container that was made and removed in between.
    assert_eq!(events(&after), events(&before) + 2);
    assert_eq!((&after[0], &after[2..]), (&before[0], &before[2..]));
    let refused = daemon.call(Method::PATCH, "/v1/guests/a?dry_run=true", r#"{"container": "/none"}"#).await;
    assert!(matches!(refused, Err(ClientError::Refused(problem)) if problem.status == 409));
    drop(vmm);
}

#[tokio::test]
async fn a_refusal_names_every_reason_and_changes_nothing() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.put("/v1/containers/web", r#"{"max_bytes": 1073741824}"#).await;
    let (_vmm, _) = Vmm::register(&run_dir, about("a", "/web/a", Some("256M"))).await;
    let before = daemon.container("/web/a").await.limits;
    let body =
        r#"{"max_bytes": 1048576, "min_bytes": 2147483648, "high_bytes": 0, "weight": 0, "max_vcpus": 0}"#;
    for path in ["/v1/containers/web/a", "/v1/containers/web/a?dry_run=true"] {
        let problem = daemon.refused(path, body).await;
        let named: Vec<_> = problem.errors.iter().map(|reason| reason.field.as_deref().unwrap()).collect();
        assert_eq!(
            named,
            ["high_bytes", "min_bytes", "weight", "min_bytes", "max_bytes", "max_vcpus"],
            "{problem:#?}"
        );
        assert_eq!((problem.status, problem.field.as_deref()), (422, Some("high_bytes")));
        for reason in &problem.errors {
            assert!(problem.detail.contains(&reason.detail) && reason.bound.is_some(), "{problem:#?}");
        }
    }
    assert_eq!(daemon.container("/web/a").await.limits, before);
    let output = run(&run_dir, &["set", "/web/a", "--max", "1M", "--min", "2G", "--max-vcpus", "0"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said.lines().count(), 4, "{said}");
    assert!(said.lines().all(|line| line.starts_with("balancer: /web/a: ")), "{said}");
    // A single one is reported as before.
    let problem = daemon.refused("/v1/containers/web/a", r#"{"weight": 0}"#).await;
    assert!(problem.errors.is_empty() && problem.field.as_deref() == Some("weight"), "{problem:?}");
}

#[tokio::test]
async fn a_guest_that_releases_nothing_is_marked_and_a_record_can_be_replayed() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    let ready = Balloon { driver_ready: true, actual_bytes: 512 * MIB, ..Default::default() };
    vmm.say(&FromVmm::Balloon(ready)).await;
    daemon.until_guest("a", |guest| guest.balloon.driver_ready).await;
    daemon.patch_container("/a", r#"{"max_bytes": 268435456}"#).await;
    let file = run_dir.dir().join("recording.jsonl");
    let recording = file.to_str().unwrap();
    let recorded = run(&run_dir, &["record", "--seconds", "1", "--into", recording]);
    assert!(recorded.status.success(), "{}", text(&recorded));
    let played = run(&run_dir, &["simulate", "--trace", recording]);
    assert!(
        played.status.success() && text(&played).contains("observations, 0 violations"),
        "{}",
        text(&played)
    );
    daemon.until_guest("a", |guest| guest.health == Health::Stuck).await;
    let events = daemon.events().await;
    assert!(events.iter().any(|event| event.kind == "stuck"), "{events:#?}");
    let explained: Explanation = daemon.client.get("/v1/guests/a/explain").await.unwrap();
    assert_eq!((explained.rule.as_str(), explained.health), ("excluded", Health::Stuck));
    let gave =
        Balloon { driver_ready: true, actual_bytes: 240 * MIB, target_bytes: 240 * MIB, oom_deflates: 0 };
    vmm.say(&FromVmm::Balloon(gave)).await;
    daemon.until_guest("a", |guest| guest.health == Health::WithoutStatistics).await;
}

#[tokio::test]
async fn a_simulation_prints_the_same_bytes_every_time() {
    let (_dir, run_dir) = run_dir();
    let arguments = ["simulate", "--seed", "5", "--guests", "50", "--hours", "0.2", "--json"];
    let (first, second) = (run(&run_dir, &arguments), run(&run_dir, &arguments));
    assert!(first.status.success(), "{}", text(&first));
    assert_eq!(first.stdout, second.stdout);
    let outcome: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!((&outcome["violations"], &outcome["ticks"]), (&json!(0), &json!(720)));
    let bad = run(&run_dir, &["simulate", "--trace", "/nowhere"]);
    assert_eq!(bad.status.code(), Some(1));
}
