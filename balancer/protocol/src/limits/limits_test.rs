use super::*;

#[test]
fn a_bare_amount_is_max() {
    let patch: LimitsPatch = "512M".parse().unwrap();
    assert_eq!(patch, LimitsPatch { max_bytes: Some(Some(512 << 20)), ..Default::default() });
}

#[test]
fn an_option_string_has_all_keys_of_memory() {
    let patch: LimitsPatch = "max=2G,high=1.5G,low=512M,min=256M,weight=200".parse().unwrap();
    let limits = Limits::default().patched(&patch);
    assert_eq!(
        limits,
        Limits {
            min_bytes: 256 << 20,
            low_bytes: 512 << 20,
            high_bytes: Some(3 << 29),
            max_bytes: Some(2 << 30),
            weight: 200,
            ..Default::default()
        }
    );
    assert_eq!(limits.ceiling_bytes(), Some(3 << 29));
}

#[test]
fn bad_limits_name_field_value_and_bound() {
    for (text, words) in [
        ("0", ["max_bytes", "0", "at least 1"]),
        ("-1", ["max", "-1", "not an amount"]),
        ("1e30", ["max", "1e30", "not an amount"]),
        ("lots", ["max", "lots", "not an amount"]),
        ("max=1G,min=2G", ["min_bytes", "2147483648", "1073741824"]),
        ("max=1G,weight=0", ["weight", "0", "10000"]),
        ("max=1G,weight=much", ["weight", "much", "10000"]),
        ("most=1G", ["most", "not a key", "max"]),
        ("max=1G,max=2G", ["max", "given", "twice"]),
        ("max=1G,max-vcpus=-1", ["max-vcpus", "-1", "4294967295"]),
        ("max-fds=4294967296", ["max-fds", "4294967296", "between 0"]),
        ("max-guests=1,max-guests=none", ["max-guests", "given", "twice"]),
        ("max-cpus=1", ["max-cpus", "not a key", "max-vcpus"]),
        ("domain=web", ["domain", "not a key", "weight"]),
        ("max=64T,high=65T", ["high", "65T", "64T"]),
    ] {
        let message = text.parse::<LimitsPatch>().expect_err(text).to_string();
        for word in words {
            assert!(message.contains(word), "{text}: {message:?} does not say {word:?}");
        }
    }
}

#[test]
fn null_removes_a_limit_and_absence_keeps_it() {
    let limits = Limits { max_bytes: Some(1), high_bytes: Some(1), ..Default::default() };
    let patch: LimitsPatch = serde_json::from_str(r#"{"max_bytes": null}"#).unwrap();
    let changed = limits.patched(&patch);
    assert_eq!((changed.max_bytes, changed.high_bytes), (None, Some(1)));
    assert_eq!(serde_json::to_string(&patch).unwrap(), r#"{"max_bytes":null}"#);
}

#[test]
fn unknown_fields_are_refused() {
    let error = serde_json::from_str::<LimitsPatch>(r#"{"maximum": 1}"#).unwrap_err().to_string();
    assert!(error.contains("maximum") && error.contains("max_bytes"), "{error}");
}

#[test]
fn null_sets_any_limit_to_its_default() {
    let set: LimitsPatch = "max=4G,high=3G,low=2G,min=1G,weight=7".parse().unwrap();
    let text =
        r#"{"max_bytes": null, "high_bytes": null, "low_bytes": null, "min_bytes": null, "weight": null}"#;
    let nothing: LimitsPatch = serde_json::from_str(text).unwrap();
    assert_eq!(Limits::default().patched(&set).patched(&nothing), Limits::default());
    let absent: LimitsPatch = serde_json::from_str("{}").unwrap();
    assert_eq!(Limits::default().patched(&set).patched(&absent), Limits::default().patched(&set));
}

#[test]
fn limits_on_objects() {
    let patch: LimitsPatch = "512M,max-vcpus=4,max-guests=0,max-devices=none".parse().unwrap();
    let limits = Limits { max_devices: Some(3), max_threads: Some(9), ..Default::default() }.patched(&patch);
    let expected = Limits {
        max_bytes: Some(512 << 20),
        max_vcpus: Some(4),
        max_guests: Some(0),
        max_threads: Some(9),
        ..Default::default()
    };
    assert_eq!(limits, expected);
    let patch: LimitsPatch = serde_json::from_str(r#"{"max_vcpus": null, "max_threads": 7}"#).unwrap();
    let expected = Limits { max_vcpus: None, max_threads: Some(7), ..expected };
    assert_eq!(limits.patched(&patch), expected);
    assert_eq!(serde_json::to_string(&patch).unwrap(), r#"{"max_vcpus":null,"max_threads":7}"#);
}

#[test]
fn each_row_reads_what_it_shows() {
    for (key, text) in [
        ("min", "1M"),
        ("low", "2M"),
        ("high", "3M"),
        ("max", "4M"),
        ("weight", "7"),
        ("max-vcpus", "1"),
        ("max-guests", "2"),
        ("max-devices", "3"),
        ("max-fds", "4"),
        ("max-threads", "5"),
        ("domain", "web"),
    ] {
        let row = TABLE.iter().find(|row| row.key == key).unwrap();
        let mut patch = LimitsPatch::default();
        assert_eq!((row.read(&mut patch, text), row.read(&mut patch, text)), (Ok(false), Ok(true)), "{key}");
        let limits = Limits::default().patched(&patch);
        assert_eq!(row.text(&limits).as_deref(), Some(text), "{key}");
        let set: Vec<&str> = TABLE.iter().filter(|row| row.is_set(&limits)).map(|row| row.key).collect();
        assert_eq!(set, [key]);
        let json = serde_json::to_value(&patch).unwrap();
        assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), [row.field]);
    }
    assert_eq!(TABLE.len(), 11, "a new limit also stands in this test");
}
