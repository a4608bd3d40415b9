use super::*;
use crate::formats;
use serde_json::json;

fn error(config: &serde_json::Value) -> String {
    Config::from_json(config).unwrap_err().to_string()
}

#[test]
fn the_defaults_block_what_runs() {
    for config in [json!(null), json!({})] {
        let config = Config::from_json(&config).unwrap();
        assert_eq!(config.blocks_name("Invoice.PDF.exe"), Some("*.exe"));
        assert_eq!(config.blocks_name("report.pdf"), None);
        assert!(config.blocks_format(formats::detect(b"\x7fELF").unwrap()));
        assert!(!config.blocks_format(formats::detect(b"%PDF-1.7").unwrap()));
    }
}

#[test]
fn types_by_name_group_and_media_type() {
    let config = json!({ "blockTypes": ["archive", "pdf", "audio/*", "application/x-msdownload"], "blockNames": [] });
    let config = Config::from_json(&config).unwrap();
    for content in [&b"PK\x05\x06"[..], b"%PDF-1", b"MZ"] {
        assert!(config.blocks_format(formats::detect(content).unwrap()));
    }
    assert!(config.blocks_media_type("audio/mpeg") && !config.blocks_media_type("video/mpeg"));
    assert!(!config.blocks_format(formats::detect(b"\x7fELF").unwrap()));
}

#[test]
fn errors_name_field_and_remedy() {
    for (config, parts) in [
        (json!({ "blockType": [] }), ["blockType", "blockTypes"]),
        (json!({ "onViolation": "drop" }), ["onViolation", "replace"]),
        (
            json!({ "blockTypes": ["executables"] }),
            ["executables", "executable, "],
        ),
        (json!({ "blockNames": [" "] }), ["blockNames", "*.exe"]),
        (json!({ "header": "X Opes" }), ["header", "X-Opes-Security"]),
        (
            json!({ "subjectMark": "a\nb" }),
            ["subjectMark", "short text"],
        ),
        (json!({ "sizeMax": 0 }), ["sizeMax", "67108864"]),
        (json!({ "largeMessages": 0 }), ["largeMessages", "10000"]),
        (json!([]), ["config", "docs/"]),
    ] {
        let message = error(&config);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn a_rule_may_override() {
    let config = Config::from_json(&json!({ "quarantine": true })).unwrap();
    let rule = config
        .with_parameters(r#"{"onViolation":"reject","notify":["administrator"]}"#)
        .unwrap();
    assert_eq!(rule.settings.on_violation, OnViolation::Reject);
    assert_eq!(rule.settings.notify, [NotifyTo::Administrator]);
    assert!(rule.settings.quarantine && rule.blocks_name("a.exe").is_some());
    assert!(config.with_parameters("null").is_ok());
    let message = config
        .with_parameters(r#"{"sizeMax":1}"#)
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("sizeMax: ") && message.contains("builtin.config"),
        "{message}"
    );
    let message = config
        .with_parameters(r#"{"blockName":[]}"#)
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("parameters: blockName: unknown field `blockName`"),
        "{message}"
    );
}
