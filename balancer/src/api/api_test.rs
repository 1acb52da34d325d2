use super::document::document;
use super::routes::routes;
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn the_document_has_the_same_routes_as_the_router() {
    let document = document();
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let served: BTreeSet<(String, String)> =
        routes().iter().map(|route| (route.path.replace("{*", "{"), route.method.to_string())).collect();
    assert_eq!(documented, served);
    assert!(!served.is_empty());
}

#[test]
fn every_reference_in_the_document_has_its_schema() {
    let document = document();
    let mut pending = vec![document];
    let mut references = 0;
    while let Some(value) = pending.pop() {
        match value {
            Value::Object(fields) => pending.extend(fields.values()),
            Value::Array(items) => pending.extend(items),
            _ => {}
        }
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').expect(reference);
            assert!(document.pointer(pointer).is_some(), "{reference} does not exist");
            references += 1;
        }
    }
    assert!(references > 0);
}
