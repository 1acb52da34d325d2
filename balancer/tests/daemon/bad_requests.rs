//! Requests that are refused, and change nothing; and events.

use crate::support::{Daemon, run_dir, within};
use balancer::client::ClientError;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};

/// Method, path, body; status, field, words of the detail.
type Refused<'a> = (&'a Method, &'a str, &'a str, u16, Option<&'a str>, &'a [&'a str]);

#[tokio::test]
async fn refused_requests_give_the_reason_and_change_nothing() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon
        .call(Method::PUT, "/v1/containers/web", r#"{"max_bytes": 1000000, "min_bytes": 1000}"#)
        .await
        .unwrap();
    daemon.call(Method::PUT, "/v1/containers/web/a", "{}").await.unwrap();
    let before = daemon.get("/v1/containers").await;
    let oversized = format!(r#"{{"max_bytes": {}1}}"#, " ".repeat(70_000));
    let (patch, put, get, delete, post) =
        (Method::PATCH, Method::PUT, Method::GET, Method::DELETE, Method::POST);
    let web = "/v1/containers/web";
    let table: &[Refused<'_>] = &[
        (&patch, web, r#"{"max_bytes": 1"#, 400, None, &["EOF"]),
        (&patch, web, "lots", 400, None, &[]),
        (&patch, web, "", 400, None, &[]),
        (&patch, web, "[1]", 422, None, &["object"]),
        (&patch, web, "7", 422, None, &["7", "object"]),
        (&patch, web, "null", 422, None, &["null", "object"]),
        (&patch, web, r#"{"max_bytes": 1, "max_bytes": 2}"#, 422, Some("max_bytes"), &["twice"]),
        (&patch, web, r#"{"weight": 4294967296}"#, 422, Some("weight"), &["4294967295"]),
        (&patch, web, r#"{"max_bytes": 1.5}"#, 422, Some("max_bytes"), &["1.5"]),
        (&patch, "/v1/containers/%ff", "{}", 400, None, &["UTF-8"]),
        (&get, "/v1/guests/%ff", "", 400, None, &["UTF-8"]),
        (&get, "/v1/guests/%ff/frames", "", 400, None, &["UTF-8"]),
        (&patch, web, &oversized, 413, None, &["65536"]),
        (&patch, web, r#"{"maximum": 1}"#, 422, Some("maximum"), &["maximum", "max_bytes"]),
        (&patch, web, r#"{"max_bytes": 0}"#, 422, Some("max_bytes"), &["max_bytes", "0", "at least 1"]),
        (&patch, web, r#"{"max_bytes": -1}"#, 422, Some("max_bytes"), &["max_bytes", "-1"]),
        (&patch, web, r#"{"max_bytes": 1e30}"#, 422, Some("max_bytes"), &["max_bytes", "1e+30"]),
        (&patch, web, r#"{"max_bytes": "lots"}"#, 422, Some("max_bytes"), &["lots"]),
        (&patch, web, r#"{"max_bytes": 99999999999999999}"#, 422, Some("max_bytes"), &["64T"]),
        (&patch, web, r#"{"weight": 10001}"#, 422, Some("weight"), &["10001", "10000"]),
        (&patch, web, r#"{"min_bytes": 2000000}"#, 409, Some("min_bytes"), &["2000000", "1000000"]),
        (
            &patch,
            "/v1/containers/web/a",
            r#"{"min_bytes": 1000001}"#,
            409,
            Some("min_bytes"),
            &["/web", "1000000"],
        ),
        (&put, "/v1/containers/new", r#"{"weight": 0}"#, 422, Some("weight"), &["weight"]),
        (&get, "/v1/containers/%2F", "", 400, Some("path"), &["the root"]),
        (&put, "/v1/containers/a..b/%20", "{}", 400, Some("path"), &["characters"]),
        (&patch, "/v1/containers/none", "{}", 404, None, &["/none"]),
        (&delete, web, "", 409, None, &["/web", "1 containers"]),
        (&delete, "/v1/containers/none", "", 404, None, &["/none"]),
        (&delete, "/v1/containers/", "", 405, None, &["DELETE"]),
        (&post, web, "{}", 405, None, &["POST"]),
        (&get, "/v2/everything", "", 404, None, &["/v2/everything"]),
        (&get, "/v1/guests/none", "", 404, None, &["none"]),
        (
            &get,
            "/v1/guests/none/frames?max_age_ms=-1",
            "",
            400,
            Some("max_age_ms"),
            &["max_age_ms is -1", "0 or more"],
        ),
        (
            &get,
            "/v1/guests/none/frames?max_age_ms=lots",
            "",
            400,
            Some("max_age_ms"),
            &["\"lots\"", "a whole number"],
        ),
        (&get, "/v1/guests/none/frames?audit=1", "", 400, Some("audit"), &["audit is 1", "boolean"]),
        (&get, "/v1/guests/none/frames?fresh=1", "", 400, Some("fresh"), &["fresh", "max_age_ms"]),
        (&get, "/v1/events?follow=maybe", "", 400, Some("follow"), &["maybe"]),
        (&get, "/v1/events?after=1&after=2", "", 400, Some("after"), &["twice"]),
        (&get, "/v1/host?fresh=1", "", 400, None, &["fresh=1", "no parameters"]),
        (
            &patch,
            "/v1/containers/web?max_bytes=5",
            "{}",
            400,
            Some("max_bytes"),
            &["max_bytes is 5", "dry_run"],
        ),
        (&patch, "/v1/guests/none", r#"{"container": "x"}"#, 422, Some("container"), &["start with /"]),
    ];
    for (method, path, body, status, field, words) in table {
        let answer = daemon.client.send((*method).clone(), path, body.as_bytes().to_vec()).await.unwrap();
        let shown = format!("{method} {path} {body:.60}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{shown}");
        assert_eq!(answer.status().as_u16(), *status, "{shown}");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let problem: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(problem["status"], json!(status), "{shown}");
        assert_eq!(problem["field"].as_str(), *field, "{shown}: {problem}");
        if field.is_some() {
            assert!(problem["value"].is_string() && problem["bound"].is_string(), "{shown}: {problem}");
        }
        for word in *words {
            assert!(
                problem["detail"].as_str().unwrap().contains(word),
                "{shown}: {problem} does not say {word:?}"
            );
        }
    }
    assert_eq!(daemon.get("/v1/containers").await, before);
}

#[tokio::test]
async fn containers_are_made_changed_and_removed() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let answer = daemon
        .client
        .send(Method::PUT, "/v1/containers/web/a", b"{\"max_bytes\": 5}".to_vec())
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
    let answer = daemon.client.send(Method::PUT, "/v1/containers/web/a", b"{}".to_vec()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(daemon.get("/v1/containers/web/a").await["max_bytes"], Value::Null);
    assert_eq!(daemon.patch("/v1/containers/", r#"{"high_bytes": 7}"#).await["high_bytes"], json!(7));
    assert_eq!(daemon.get("/v1/containers/").await["containers"], json!(["/common", "/web"]));
    daemon.call(Method::DELETE, "/v1/containers/web/a", "").await.unwrap();
    let gone = daemon.call(Method::GET, "/v1/containers/web", "").await;
    assert!(
        matches!(gone, Err(ClientError::Refused(problem)) if problem.status == 404),
        "made for /web/a, gone with it"
    );
}

#[tokio::test]
async fn events_are_delivered_as_they_happen_and_from_where_one_left_off() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.call(Method::PUT, "/v1/containers/a", "{}").await.unwrap();
    let (seen, mut seeing) = tokio::sync::mpsc::unbounded_channel();
    let client = daemon.client.clone();
    let following = tokio::spawn(async move {
        client
            .follow("/v1/events", |data| seen.send(serde_json::from_str::<Value>(data).unwrap()).is_ok())
            .await
    });
    let mut next = async || within(daemon.activity(), seeing.recv()).await.unwrap();
    assert_eq!(next().await["kind"], "balancer_started");
    assert_eq!(next().await["kind"], "container_created");
    daemon.patch("/v1/containers/a", r#"{"max_bytes": 1048576}"#).await;
    let changed = next().await;
    assert_eq!(
        (&changed["kind"], &changed["container"], &changed["id"]),
        (&json!("limits_changed"), &json!("/a"), &json!(3))
    );
    let rest = daemon.get("/v1/events?follow=false&after=2").await;
    assert_eq!(rest, json!([changed]));
    following.abort();
}
