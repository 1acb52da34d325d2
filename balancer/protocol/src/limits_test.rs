use super::*;

#[test]
fn a_bare_amount_is_max() {
    let patch: LimitsPatch = "512M".parse().unwrap();
    assert_eq!(patch, LimitsPatch { max_bytes: Some(Some(512 << 20)), ..Default::default() });
}

#[test]
fn all_keys_of_an_option_string() {
    let patch: LimitsPatch = "max=2G,high=1.5G,low=512M,min=256M,weight=200".parse().unwrap();
    let limits = Limits::default().patched(&patch);
    assert_eq!(
        limits,
        Limits { min_bytes: 256 << 20, low_bytes: 512 << 20, high_bytes: Some(3 << 29), max_bytes: Some(2 << 30), weight: 200 }
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
        ("most=1G", ["most", "no key", "max"]),
        ("max=1G,max=2G", ["max", "given", "twice"]),
        ("max=64T,high=65T", ["high", "65T", "64T"]),
    ] {
        let message = text.parse::<LimitsPatch>().expect_err(text).to_string();
        for word in words {
            assert!(message.contains(word), "{text}: {message:?} does not say {word:?}");
        }
    }
}

#[test]
fn null_takes_a_limit_away_and_absence_keeps_it() {
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
