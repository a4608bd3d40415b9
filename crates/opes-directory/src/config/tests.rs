use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;

fn ldap(url: &str, more: &serde_json::Value) -> LdapConfig {
    let mut config = json!({ "url": url, "base": "o=x", "filter": "(mail=%s)" });
    if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
        config.extend(more.clone());
    }
    LdapConfig::deserialize(config).unwrap()
}

#[test]
fn where_addresses_may_go() {
    for (url, said) in [
        ("ldap.example.org", "is no server"),
        ("http://ldap.example.org", "is no server"),
        ("ldap://", "is no server"),
        ("ldap://ldap.example.org:0", "is no server"),
        ("ldap://u@ldap.example.org", "is no server"),
        ("ldapi://", "is no server"),
        (
            "ldap://ldap.example.org",
            "in the clear to ldap://ldap.example.org",
        ),
    ] {
        let error = ldap(url, &json!({})).endpoints().unwrap_err().to_string();
        assert!(
            error.starts_with("ldap.url: ") && error.contains(said),
            "{error}"
        );
    }
    let error = ldap("ldaps://a.example", &json!({ "startTls": true })).endpoints();
    assert!(error.unwrap_err().to_string().contains("ldap:// only"));
    for (url, more) in [
        ("ldap://127.0.0.1:3389", json!({})),
        ("ldap://[::1]", json!({})),
        ("ldap://localhost/", json!({})),
        ("ldap://ldap.example.org", json!({ "startTls": true })),
        (
            "ldap://ldap.example.org",
            json!({ "insecurePlaintext": true }),
        ),
        ("ldaps://ldap.example.org", json!({})),
    ] {
        ldap(url, &more).endpoints().unwrap();
    }
    let path = Endpoint::Unix("/run/slapd/ldapi".into());
    for url in ["ldapi:///run/slapd/ldapi", "ldapi://%2frun%2Fslapd%2Fldapi"] {
        assert_eq!(
            ldap(url, &json!({})).endpoints().unwrap(),
            std::slice::from_ref(&path)
        );
    }
}

#[test]
fn a_name_and_its_password_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "").unwrap();
    for (more, said) in [
        (json!({ "bindDn": "cn=mail" }), "write both"),
        (
            json!({ "bindDn": "", "bindPasswordFile": file }),
            "write both",
        ),
        (
            json!({ "bindDn": "cn=mail", "bindPasswordFile": "/nowhere" }),
            "/nowhere: No such",
        ),
        (
            json!({ "bindDn": "cn=mail", "bindPasswordFile": file }),
            "it is empty",
        ),
    ] {
        let config = ldap("ldaps://ldap.example.org", &more);
        let error = config.credential().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    std::fs::write(&file, " secret \nmore\n").unwrap();
    assert_eq!(password(&file).unwrap().expose_secret(), " secret ");
}

#[test]
fn bounds_have_bounds() {
    for (field, value) in [
        ("timeoutMs", 0),
        ("timeoutMs", 3_600_000),
        ("connectionsMax", 0),
        ("entriesMax", 100_000),
        ("sizeMax", 0),
    ] {
        let mut config = json!({ "ldap": { "url": "ldapi:///x", "base": "", "filter": "(a=%s)" } });
        config[field] = value.into();
        let config = DirectoryConfig::deserialize(config).unwrap();
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
    let unknown = DirectoryConfig::deserialize(json!({ "timeout": 1 })).unwrap_err();
    assert!(unknown.to_string().contains("unknown field `timeout`"));
}
