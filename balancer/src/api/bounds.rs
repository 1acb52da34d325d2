//! What the document says of values, and their types do not: bounds of integers, patterns of texts, fields that are
//! always there. So a client that keeps to the document is refused by the state of the host alone.

use crate::pool::Subject;
use policy::{IDLE_TAX_RANGE, INTERVAL_MS_RANGE};
use protocol::bytes::BYTES_MAX;
use protocol::domain::Domain;
use protocol::limits::{OPTIONS_PATTERN, TABLE};
use protocol::path::ContainerPath;
use serde_json::{Value, json};

/// Names of attached guests, which are also names of containers.
const GUEST_NAME_PATTERN: &str =
    r"^(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}|\.[A-Za-z0-9_-][A-Za-z0-9_.-]{0,62}|\.\.[A-Za-z0-9_.-]{1,62})$";

/// Objects that have the fields of another one next to their own. In answers all of them are there.
const FLATTENED: [&str; 2] = ["ContainerObject", "PolicyObject"];

/// Completes the document.
pub(super) fn refine(document: &mut Value) {
    integers(document);
    let schemas = &mut document["components"]["schemas"];
    for name in ["Limits", "LimitsPatch"] {
        for row in TABLE {
            if let Some(range) = row.range {
                bound(&mut schemas[name]["properties"][row.field], range);
            }
        }
    }
    let knobs = &mut schemas["KnobsPatch"]["properties"];
    bound(&mut knobs["reserve_bytes"], (0, BYTES_MAX));
    bound(&mut knobs["idle_tax_percent"], ((*IDLE_TAX_RANGE.start()).into(), (*IDLE_TAX_RANGE.end()).into()));
    bound(&mut knobs["interval_ms"], (*INTERVAL_MS_RANGE.start(), *INTERVAL_MS_RANGE.end()));
    schemas["ContainerPath"]["pattern"] = json!(ContainerPath::PATTERN);
    schemas["Domain"]["pattern"] = json!(Domain::PATTERN);
    let guest = &mut schemas["GuestPost"]["properties"];
    guest["qmp"]["pattern"] = json!("^/");
    guest["name"]["pattern"] = json!(GUEST_NAME_PATTERN);
    guest["limit"]["pattern"] = json!(OPTIONS_PATTERN);
    of_subject(&mut schemas["BindingPut"]["properties"]["subject"]);
    for name in FLATTENED {
        for part in schemas[name]["allOf"].as_array_mut().into_iter().flatten() {
            require_all(part);
        }
    }
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    let operations = paths.filter_map(Value::as_object_mut).flat_map(|item| item.values_mut());
    for operation in operations {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        parameters.into_iter().flatten().for_each(parameter);
    }
}

/// Types of integers without a sign. JSON's formats have none for them.
fn integers(value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        let is_unsigned = fields.get("minimum").and_then(Value::as_u64) == Some(0);
        let format = fields.get("format").and_then(Value::as_str);
        let whole = match format {
            Some("int32") if is_unsigned => Some(("uint32", u64::from(u32::MAX))),
            Some("int64") if is_unsigned => Some(("uint64", u64::MAX)),
            _ => None,
        };
        if let Some((format, most)) = whole {
            fields.insert("format".into(), json!(format));
            fields.entry("maximum").or_insert_with(|| json!(most));
        }
        fields.values_mut().for_each(integers);
    } else if let Some(items) = value.as_array_mut() {
        items.iter_mut().for_each(integers);
    }
}

fn bound(schema: &mut Value, (least, most): (u64, u64)) {
    assert!(schema.is_object(), "the document lacks a field that has a bound");
    schema["minimum"] = json!(least);
    schema["maximum"] = json!(most);
}

/// A parameter of a path or a query. It is absent or has a value: it cannot be `null`.
fn parameter(parameter: &mut Value) {
    let name = parameter["name"].as_str().unwrap_or_default().to_owned();
    let schema = &mut parameter["schema"];
    if let Some(kinds) = schema["type"].as_array() {
        let kind = kinds.iter().find(|kind| **kind != "null").cloned();
        schema["type"] = json!(kind);
    }
    match name.as_str() {
        "path" => schema["pattern"] = json!(ContainerPath::INSIDE_PATTERN),
        "subject" => of_subject(schema),
        _ => {}
    }
}

fn of_subject(schema: &mut Value) {
    schema["pattern"] = json!(Subject::PATTERN);
    // Of at most 4 bytes each: a path has at most 4096.
    schema["maxLength"] = json!(1024);
}

fn require_all(schema: &mut Value) {
    let Some(fields) = schema["properties"].as_object() else { return };
    let names: Vec<&String> = fields.keys().collect();
    schema["required"] = json!(names);
}
