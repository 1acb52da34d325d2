use super::document::Document;
use super::routes::routes;
use std::collections::BTreeSet;
use utoipa::OpenApi;

#[test]
fn the_document_and_the_routes_say_the_same() {
    let document = serde_json::to_value(Document::openapi()).unwrap();
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
