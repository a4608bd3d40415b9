use serde_json::{Value, json};

use super::*;
use crate::config::{Config, ConfigError, EngineConfig};

fn read(more: &Value) -> Result<OwnConfig, ConfigError> {
    let mut own = json!({ "authservId": "mx.example.com" });
    own.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let config = Config::from_json(&json!({ "engine": { "own": own } }))?;
    let EngineConfig::Own(own) = config.engine else {
        unreachable!()
    };
    Ok(*own)
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    for (more, said) in [
        (json!({ "authservId": "" }), "engine.own.authservId"),
        (
            json!({ "nameservers": ["dns.example.net"] }),
            "nameservers: `dns.example.net`",
        ),
        (
            json!({ "nameservers": vec!["192.0.2.1"; 9] }),
            "nameservers: at most 8",
        ),
        (json!({ "dnsTimeoutMs": 0 }), "dnsTimeoutMs: 0"),
        (
            json!({ "dnsQueriesMax": 1_000_000 }),
            "dnsQueriesMax: at most 10000",
        ),
        (json!({ "dnsbl": [{ "zone": "net" }] }), "dnsbl.zone: `net`"),
        (
            json!({ "dnsbl": [{ "zone": "a..example.net" }] }),
            "dnsbl.zone",
        ),
        (
            json!({ "dnsbl": [{ "zone": "l.example.net", "name": "a b" }] }),
            "dnsbl.name: `a b`",
        ),
        (
            json!({ "dnsbl": [{ "zone": "a-b.example.net" }, { "zone": "a.b.example.net" }] }),
            "dnsbl.name: `DNSBL_A_B_EXAMPLE_NET` is there twice",
        ),
        (
            json!({ "dnsbl": [{ "zone": "l.example.net", "codes": { "192.0.2.1": 1 } }] }),
            "dnsbl.codes: 192.0.2.1",
        ),
        (
            json!({ "dnsbl": [{ "zone": "l.example.net", "codes": { "127.255.255.254": 1 } }] }),
            "dnsbl.codes: 127.255.255.254",
        ),
        (
            json!({ "weights": { "SPF_FIAL": 1 } }),
            "weights.SPF_FIAL: there is no such symbol",
        ),
        (
            json!({ "weights": { "SPF_TEMPERROR": 1 } }),
            "weights.SPF_TEMPERROR: what DNS",
        ),
        (
            json!({ "weights": { "SPF_FAIL": 1001 } }),
            "weights.SPF_FAIL: 1001",
        ),
        (
            json!({ "thresholds": { "reject": 3 } }),
            "thresholds.reject: 3 is below",
        ),
        (
            json!({ "trustedNetworks": ["192.0.2.1/33"] }),
            "docs/services/spam-filter.md",
        ),
    ] {
        let error = read(&more).unwrap_err().to_string();
        assert!(error.contains(said), "{more}: {error}");
    }
}

#[test]
fn what_is_left_out_has_a_default() {
    let own = read(&json!({})).unwrap();
    assert!(own.trusts([127, 3, 2, 1].into()) && !own.trusts([192, 0, 2, 1].into()));
    let difference = own.weight(Symbol::SpfFail) - Symbol::SpfFail.weight();
    assert!(difference.abs() < f64::EPSILON);
    assert_eq!(own.thresholds.reject, Some(12.0));
    let own = read(&json!({
        "nameservers": ["192.0.2.53", "[2001:db8::53]:5353"], "weights": { "SPF_FAIL": 9 }, "thresholds": { "reject": null },
        "dnsbl": [{ "zone": "zen.dnsbl.example.net", "codes": { "127.0.0.2": 3 } }, { "zone": "l.example.net", "name": "L" }],
    }));
    let own = own.unwrap();
    let addresses = ["192.0.2.53:53", "[2001:db8::53]:5353"].map(|text| text.parse().unwrap());
    assert_eq!(own.addresses().unwrap(), addresses);
    assert_eq!(
        (own.weight(Symbol::SpfFail), own.thresholds.reject),
        (9.0, None)
    );
    let names: Vec<_> = own.dnsbl.iter().map(DnsblConfig::symbol).collect();
    assert_eq!(names, ["DNSBL_ZEN_DNSBL_EXAMPLE_NET", "DNSBL_L"]);
    let [zen, list] = &own.dnsbl[..] else {
        panic!()
    };
    assert_eq!(zen.weight_of(Ipv4Addr::new(127, 0, 0, 2)), Some(3.0));
    assert_eq!(zen.weight_of(Ipv4Addr::new(127, 0, 0, 3)), None);
    assert_eq!(list.weight_of(Ipv4Addr::new(127, 0, 0, 3)), Some(4.0));
}
