use serde_json::json;

use super::*;

fn with(field: &str, value: serde_json::Value) -> Result<Config, String> {
    let mut config =
        json!({ "baseUrl": "https://files.example.com/", "store": { "folder": "/x" } });
    config[field] = value;
    Config::from_json(&config).map_err(|error| error.to_string())
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    for (field, value, said) in [
        ("size", json!(1), "unknown field `size`"),
        ("sizeMin", json!(0), "sizeMin"),
        ("sizeMax", json!(1), "sizeMax"),
        ("countMax", json!(501), "countMax"),
        ("lifetime", json!("30"), "30d"),
        ("lifetime", json!("0s"), "lifetime"),
        ("types", json!(["pdf"]), "types: "),
        ("typesExcluded", json!(["/"]), "typesExcluded"),
        ("text", json!("gone"), "{link}"),
        ("text", json!(format!("{{link}}{}", "x".repeat(200))), "200"),
        ("text", json!("{link}{name}".repeat(2)), "more than 3"),
        ("replacement", json!("hide"), "hide"),
        ("baseUrl", json!(""), "baseUrl: is missing"),
        ("baseUrl", json!("http://files.example.com"), "https"),
        ("baseUrl", json!("http://localhost.example.com"), "https"),
        ("baseUrl", json!("https://a b"), "baseUrl"),
        ("baseUrl", json!("https://"), "no host"),
        ("store", json!(null), "store: is missing"),
        ("store", json!({ "disk": "/x" }), "disk"),
        ("store", json!({ "s3": { "bucket": "b" } }), "keyFile"),
        ("uploadsMax", json!(0), "uploadsMax"),
        ("connectionsMax", json!(0), "connectionsMax"),
    ] {
        let error = with(field, value).unwrap_err();
        assert!(error.contains(said), "{field}: {error}");
    }
    let plain = json!({ "baseUrl": "https://f.example.com", "keyFile": "/k", "store": { "s3": { "bucket": "b", "endpoint": "http://s3.example.com" } } });
    let error = Config::from_json(&plain).unwrap_err().to_string();
    assert!(error.contains("in the clear"), "{error}");
}

#[test]
fn defaults_are_modest() {
    let config = with("web", json!("127.0.0.1:8080")).unwrap();
    assert_eq!(config.base_url, "https://files.example.com");
    assert_eq!(config.settings.lifetime.as_secs(), 30 * 86400);
    for loopback in [
        "http://127.0.0.1:80",
        "http://[::1]:1/a",
        "http://localhost",
    ] {
        with("baseUrl", json!(loopback)).unwrap();
    }
}

#[test]
fn a_rule_overrides_what_is_of_a_rule() {
    let config = with("sizeMin", json!(10)).unwrap();
    let settings = config.with_parameters(r#"{"lifetime":"2h"}"#).unwrap();
    assert_eq!((settings.size_min, settings.lifetime.as_secs()), (10, 7200));
    for (parameters, said) in [
        (r#"{"store":{"folder":"/y"}}"#, "not of a rule"),
        (r#"{"sizeMin":0}"#, "sizeMin"),
        (r#"{"x":1}"#, "parameters: unknown field"),
        ("[]", "parameters: "),
    ] {
        let error = config.with_parameters(parameters).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
