//! The OpenAPI document against what is really answered.

use crate::support::{Daemon, Vmm, about, run_dir};
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Requests, by the path that the document has for them. Methods and bodies that are refused belong here too.
const REQUESTS: &[(&str, &str, &str, &str)] = &[
    ("GET", "/openapi.json", "/openapi.json", ""),
    ("GET", "/v1/version", "/v1/version", ""),
    ("GET", "/v1/host", "/v1/host", ""),
    ("GET", "/v1/host", "/v1/host?fresh=1", ""),
    ("GET", "/v1/containers", "/v1/containers", ""),
    ("GET", "/v1/containers/", "/v1/containers/", ""),
    ("PATCH", "/v1/containers/", "/v1/containers/", r#"{"weight": 100}"#),
    ("PATCH", "/v1/containers/", "/v1/containers/", r#"{"weight": 0}"#),
    ("GET", "/v1/containers/{path}", "/v1/containers/web/a", ""),
    ("GET", "/v1/containers/{path}", "/v1/containers/none", ""),
    ("GET", "/v1/containers/{path}", "/v1/containers/%ff", ""),
    ("PUT", "/v1/containers/{path}", "/v1/containers/new", r#"{"max_bytes": 1000000000}"#),
    ("PUT", "/v1/containers/{path}", "/v1/containers/new", "{}"),
    ("PUT", "/v1/containers/{path}", "/v1/containers/new", "lots"),
    ("PATCH", "/v1/containers/{path}", "/v1/containers/new", r#"{"max_bytes": -1}"#),
    ("PATCH", "/v1/containers/{path}", "/v1/containers/new", r#"{"max_fds": 5}"#),
    ("DELETE", "/v1/containers/{path}", "/v1/containers/new", ""),
    ("DELETE", "/v1/containers/{path}", "/v1/containers/new", ""),
    ("DELETE", "/v1/containers/{path}", "/v1/containers/web", ""),
    ("PUT", "/v1/containers/{path}", "/v1/containers/other?dry_run=true", "{}"),
    ("PATCH", "/v1/containers/{path}", "/v1/containers/web?dry_run=true", r#"{"max_bytes": 100000000}"#),
    ("PATCH", "/v1/containers/{path}", "/v1/containers/web", r#"{"max_bytes": 0, "weight": 0}"#),
    ("DELETE", "/v1/containers/{path}", "/v1/containers/common?dry_run=true", ""),
    ("GET", "/v1/policy", "/v1/policy", ""),
    ("PATCH", "/v1/policy", "/v1/policy", r#"{"idle_tax_percent": 74}"#),
    ("PATCH", "/v1/policy", "/v1/policy?dry_run=true", r#"{"idle_tax_percent": 73}"#),
    ("PATCH", "/v1/policy", "/v1/policy", r#"{"idle_tax_percent": 100, "interval_ms": 1}"#),
    ("PUT", "/v1/bindings", "/v1/bindings?dry_run=true", r#"{"subject": "/", "container": "/common"}"#),
    ("PUT", "/v1/bindings", "/v1/bindings", r#"{"subject": "/", "container": "/common"}"#),
    ("DELETE", "/v1/bindings", "/v1/bindings?subject=/&dry_run=true", ""),
    ("PATCH", "/v1/guests/{id}", "/v1/guests/a?dry_run=true", r#"{"container": "/common"}"#),
    ("GET", "/v1/guests", "/v1/guests", ""),
    ("POST", "/v1/guests", "/v1/guests", r#"{"qmp": "/no/such.qmp", "container": "/web/b", "limit": "1G"}"#),
    ("POST", "/v1/guests", "/v1/guests", r#"{"qmp": "such.qmp"}"#),
    ("POST", "/v1/guests", "/v1/guests", r#"{"qmp": "/such.qmp", "name": "a/b"}"#),
    ("DELETE", "/v1/guests/{id}", "/v1/guests/a", ""),
    ("DELETE", "/v1/guests/{id}", "/v1/guests/none", ""),
    ("GET", "/v1/guests/{id}", "/v1/guests/a", ""),
    ("GET", "/v1/guests/{id}", "/v1/guests/%ff", ""),
    ("PATCH", "/v1/guests/{id}", "/v1/guests/a", "{}"),
    ("PATCH", "/v1/guests/{id}", "/v1/guests/a", r#"{"charge_to": "/none"}"#),
    ("PATCH", "/v1/guests/{id}", "/v1/guests/none", r#"{"charge_to": null}"#),
    ("GET", "/v1/guests/{id}/frames", "/v1/guests/a/frames?blocks=true&audit=true", ""),
    ("GET", "/v1/guests/{id}/frames", "/v1/guests/a/frames?audit=2", ""),
    ("GET", "/v1/guests/{id}/frames", "/v1/guests/none/frames", ""),
    ("GET", "/v1/events", "/v1/events?follow=false", ""),
    ("GET", "/v1/events", "/v1/events?follow=maybe", ""),
];

#[tokio::test]
async fn every_answer_fits_the_document() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/web/a", Some("max=256M,max-fds=200"))).await;
    vmm.touch(1 << 20);
    let document = daemon.get("/openapi.json").await;
    let oversized = " ".repeat(70_000);
    let too_large = ("PATCH", "/v1/containers/{path}", "/v1/containers/web", oversized.as_str());
    for (method, documented, path, body) in REQUESTS.iter().copied().chain([too_large]) {
        let shown = format!("{method} {path} {body:.40}");
        let operation = &document["paths"][documented][method.to_lowercase()];
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = daemon.client.send(method, path, body.as_bytes().to_vec()).await.unwrap();
        let response = &operation["responses"][answer.status().as_str()];
        assert!(response.is_object(), "{shown}: {} is not in the document", answer.status());
        let Some(media) = answer.headers().get("content-type") else { continue };
        let schema = &response["content"][media.to_str().unwrap()]["schema"];
        assert!(schema.is_object(), "{shown}: {media:?} is not in the document");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let wrong = wrong(&document, schema, &serde_json::from_slice(&bytes).unwrap());
        assert_eq!(wrong, None, "{shown}");
    }
}

#[tokio::test]
async fn the_document_keeps_the_rules_of_openapi() {
    let (_dir, run_dir) = run_dir();
    let document = Daemon::start(&run_dir).await.get("/openapi.json").await;
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{method} {path}: the id {id} is taken");
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(response["description"].is_string(), "{method} {path}: {status} has no description");
            }
        }
    }
}

/// What is wrong with a value by a JSON schema, of which this knows what the document uses. A field that the schema
/// does not name is wrong as well.
fn wrong(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    let mut named = Map::new();
    let found = mismatch(document, schema, value, &mut named);
    let unnamed =
        || value.as_object()?.keys().find(|key| !named.contains_key(*key) && !named.contains_key("*"));
    found.or_else(|| unnamed().map(|key| format!("{key} is not in the schema")))
}

fn mismatch(
    document: &Value,
    schema: &Value,
    value: &Value,
    named: &mut Map<String, Value>,
) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.strip_prefix('#').unwrap()).expect(reference);
        return mismatch(document, target, value, named);
    }
    if let Some(all) = schema["allOf"].as_array() {
        return all.iter().find_map(|schema| mismatch(document, schema, value, named));
    }
    if let Some(one) = schema["oneOf"].as_array() {
        let fits = one.iter().find(|schema| wrong(document, schema, value).is_none());
        let Some(schema) = fits else { return Some(format!("{value} is none of {one:?}")) };
        return mismatch(document, schema, value, named);
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        Value::Null => vec![],
        one => vec![one.clone()],
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |name: &Value| *name == kind || (*name == "number" && kind == "integer");
    if !types.is_empty() && !types.iter().any(fits) {
        return Some(format!("{value} is no {types:?}"));
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        return Some(format!("{value} is none of {}", schema["enum"]));
    }
    if let Value::Array(items) = value {
        return items.iter().find_map(|item| wrong(document, &schema["items"], item));
    }
    let fields = value.as_object()?;
    let properties = schema["properties"].as_object();
    if properties.is_none() || schema["additionalProperties"].is_object() {
        named.insert("*".into(), Value::Null);
    }
    let properties = properties.cloned().unwrap_or_default();
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Some(format!("{name} is missing"));
        }
    }
    for (name, value) in fields {
        let spelling = Value::from(name.as_str());
        if schema["propertyNames"].is_object()
            && wrong(document, &schema["propertyNames"], &spelling).is_some()
        {
            return Some(format!("{name:?} is no name by {}", schema["propertyNames"]));
        }
        let field = match properties.get(name) {
            Some(field) => field,
            None if schema["additionalProperties"] == false => return Some(format!("{name} is refused")),
            None if schema["additionalProperties"].is_object() => &schema["additionalProperties"],
            None => continue,
        };
        named.insert(name.clone(), Value::Null);
        if let Some(wrong) = wrong(document, field, value) {
            return Some(format!("{name}: {wrong}"));
        }
    }
    None
}
