use super::*;
use protocol::limits::{Limits, LimitsPatch};
use serde_json::{Value, json};

#[test]
fn a_client_accepts_fields_that_it_does_not_know() {
    fn with_more<T: serde::Serialize>(object: &T) -> Value {
        let mut value = serde_json::to_value(object).unwrap();
        value["a_new_field"] = json!({"of": "a newer balancer"});
        value
    }
    let container = testing::container("/web");
    let limits = Limits { max_bytes: Some(1 << 30), max_vcpus: Some(3), ..Default::default() };
    let container = ContainerObject { limits: limits.clone(), ..container };
    let read: ContainerObject = serde_json::from_value(with_more(&container)).unwrap();
    assert_eq!((read.limits, read.path), (limits, container.path));
    let guest = testing::guest("a", "/web");
    let read: GuestObject = serde_json::from_value(with_more(&guest)).unwrap();
    assert_eq!((read.name, read.engine, read.state), (guest.name, guest.engine, guest.state));
    let policy = PolicyObject { knobs: ::policy::Knobs::default(), budget: None, stalled_age_ms: Some(3) };
    let read: PolicyObject = serde_json::from_value(with_more(&policy)).unwrap();
    assert_eq!((read.knobs, read.stalled_age_ms), (policy.knobs, Some(3)));
}

#[test]
fn a_request_with_an_unknown_field_is_refused() {
    let unknown = json!({"a_new_field": 1});
    assert!(serde_json::from_value::<LimitsPatch>(unknown.clone()).is_err());
    assert!(serde_json::from_value::<Limits>(unknown.clone()).is_err());
    assert!(serde_json::from_value::<KnobsPatch>(unknown.clone()).is_err());
    assert!(serde_json::from_value::<GuestPatch>(unknown).is_err());
    let mut binding = json!({"subject": "/srv", "container": "/web"});
    assert!(serde_json::from_value::<BindingPut>(binding.clone()).is_ok());
    binding["a_new_field"] = json!(1);
    assert!(serde_json::from_value::<BindingPut>(binding).is_err());
    let mut attach = json!({"qmp": "/run/a.qmp"});
    assert!(serde_json::from_value::<GuestPost>(attach.clone()).is_ok());
    attach["a_new_field"] = json!(1);
    assert!(serde_json::from_value::<GuestPost>(attach).is_err());
}

#[test]
fn words_of_the_json_are_stable() {
    let guest = serde_json::to_value(testing::guest("a", "/web")).unwrap();
    let words = ["engine", "state", "out_of_memory", "health"].map(|field| guest[field].clone());
    assert_eq!(words, [json!("kvm"), json!("running"), json!("no"), json!("well")]);
    let words = |sources: &[FrameSource]| serde_json::to_value(sources).unwrap();
    let sources = [FrameSource::Vmm, FrameSource::Pagemap, FrameSource::Guest];
    assert_eq!(words(&sources), json!(["vmm", "page_map", "guest"]));
    let states = [OutOfMemoryState::No, OutOfMemoryState::Holding, OutOfMemoryState::Returning];
    assert_eq!(serde_json::to_value(states).unwrap(), json!(["no", "holding", "returning"]));
    assert_eq!(serde_json::to_value(RunState::Paused).unwrap(), json!("paused"));
    assert_eq!(serde_json::to_value([Charges::Move, Charges::Leave]).unwrap(), json!(["move", "leave"]));
}

#[test]
fn a_change_of_a_guest_tells_null_from_absent() {
    let read = |text: &str| serde_json::from_str::<GuestPatch>(text).unwrap().charge_to;
    assert_eq!(read("{}"), None);
    assert_eq!(read(r#"{"charge_to": null}"#), Some(None));
    assert_eq!(read(r#"{"charge_to": "/a"}"#), Some(Some("/a".parse().unwrap())));
    let written = |patch| serde_json::to_string(&patch).unwrap();
    assert_eq!(written(GuestPatch::default()), "{}");
    assert_eq!(written(GuestPatch { charge_to: Some(None), ..Default::default() }), r#"{"charge_to":null}"#);
}
