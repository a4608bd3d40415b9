use std::path::Path;

use opes_smtp::grammar::ForwardPath;

use super::{Map, MapError};

const TEXT: &str = "
# address                target
joe@example.org          joe@fr.example.org
Ann@example.org          mx.de.example.org:25
ops@example.org          ops@example.net [2001:db8::25]:24/lmtp
joe+private@example.org  joe@example.com
@example.net             @it.example.net
@example.com             192.0.2.25:2525
postmaster               root@example.org
";

fn text(text: &str) -> Result<Map, MapError> {
    Map::from_file(Path::new("routes.map"), text)
}

fn yaml(text: &str) -> Result<Map, MapError> {
    Map::from_file(Path::new("routes.yaml"), text)
}

fn route(map: &Map, recipient: &str) -> Option<String> {
    let route = map
        .look_up(&ForwardPath::parse(recipient).unwrap())
        .unwrap()?;
    let address = route.address.map(|address| address.to_string());
    let next_hop = route.next_hop.map(|hop| hop.to_string());
    Some(
        [address, next_hop]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" via "),
    )
}

#[test]
fn both_variants_of_the_seed() {
    let map = text(TEXT).unwrap();
    assert_eq!(
        route(&map, "joe@example.org").as_deref(),
        Some("joe@fr.example.org")
    );
    assert_eq!(
        route(&map, "ann@example.org").as_deref(),
        Some("mx.de.example.org:25")
    );
    assert_eq!(
        route(&map, "OPS@example.org").as_deref(),
        Some("ops@example.net via [2001:db8::25]:24/lmtp")
    );
    assert_eq!(route(&map, "paul@example.org"), None);
}

#[test]
fn details_are_carried_along_unless_listed() {
    let map = text(TEXT).unwrap();
    assert_eq!(
        route(&map, "joe+News@example.org").as_deref(),
        Some("joe+News@fr.example.org")
    );
    assert_eq!(
        route(&map, "joe+a+b@example.org").as_deref(),
        Some("joe+a+b@fr.example.org")
    );
    assert_eq!(
        route(&map, "Joe+PRIVATE@example.org").as_deref(),
        Some("joe@example.com")
    );
    assert_eq!(route(&map, "+joe@example.org"), None);
}

#[test]
fn a_domain_entry_keeps_the_local_part_as_written() {
    let map = text(TEXT).unwrap();
    assert_eq!(
        route(&map, "Jim+X@Example.NET").as_deref(),
        Some("Jim+X@it.example.net")
    );
    assert_eq!(
        route(&map, "\"a b\"@example.net").as_deref(),
        Some("\"a b\"@it.example.net")
    );
    assert_eq!(
        route(&map, "x@example.com").as_deref(),
        Some("192.0.2.25:2525")
    );
    assert_eq!(route(&map, "x@sub.example.com"), None);
}

#[test]
fn quoting_does_not_hide_a_recipient() {
    let map = text(TEXT).unwrap();
    assert_eq!(
        route(&map, "\"j\\oe\"@example.org").as_deref(),
        Some("joe@fr.example.org")
    );
    assert_eq!(
        route(&map, "\"joe+private\"@example.org").as_deref(),
        Some("joe@example.com")
    );
    assert_eq!(
        route(&map, "Postmaster").as_deref(),
        Some("root@example.org")
    );
}

#[test]
fn results_are_not_looked_up_again_and_identity_is_no_change() {
    let map = text(
        "a@example.org b@example.org\nb@example.org a@example.org\nc@example.org c@example.org",
    )
    .unwrap();
    assert_eq!(
        route(&map, "a@example.org").as_deref(),
        Some("b@example.org")
    );
    assert_eq!(route(&map, "c@example.org"), None);
}

#[test]
fn an_address_that_grows_too_long_is_an_error() {
    let long = format!("@{}.example.org", ["a"; 100].join("."));
    let map = text(&format!("@example.org {long}")).unwrap();
    let recipient = ForwardPath::parse(&format!("{}@example.org", "x".repeat(64))).unwrap();
    assert_eq!(map.look_up(&recipient).unwrap_err().key, "@example.org");
}

#[test]
fn yaml_takes_words_and_spelt_out_targets() {
    let map = yaml(
        "joe@example.org: joe@fr.example.org\n\
         ann@example.org: { address: ann@de.example.org, nextHop: 'mx.de.example.org:24/lmtp' }\n",
    )
    .unwrap();
    assert_eq!(
        route(&map, "joe@example.org").as_deref(),
        Some("joe@fr.example.org")
    );
    assert_eq!(
        route(&map, "ann@example.org").as_deref(),
        Some("ann@de.example.org via mx.de.example.org:24/lmtp")
    );
}

#[test]
fn errors_name_place_and_remedy() {
    let cases = [
        (
            "joe@example.org",
            "routes.map:1: the new address or next hop is missing",
        ),
        (
            "\njoe a@example.org",
            "routes.map:2: `joe` is no key; write joe@example.org",
        ),
        (
            "a@example.org mx.example.org",
            "`mx.example.org` is no next hop; write",
        ),
        ("a@example.org mx.example.org:0", "is no next hop"),
        ("a@example.org mx.example.org:25/esmtp", "is no next hop"),
        ("a@example.org b@@example.org", "is no address"),
        ("a@example.org b@exämple.org", "xn--"),
        ("a@example.org b@example.org c@example.org", "two addresses"),
        (
            "a@example.org b@example.org\nA@example.org c@example.org",
            "routes.map:2: `A@example.org` stands twice",
        ),
    ];
    for (input, expected) in cases {
        let error = text(input).unwrap_err().to_string();
        assert!(error.contains(expected), "{input:?}: {error}");
    }
    let error = yaml("a@example.org: b@example.org\nc@example.org: nowhere\n")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("routes.yaml:2:") && error.contains("no next hop"),
        "{error}"
    );
    let json = serde_json::json!({ "a@example.org": { "nexthop": "mx.example.org:25" } });
    let error = Map::from_json(&json).unwrap_err().to_string();
    assert!(error.starts_with("map.\"a@example.org\": "), "{error}");
}
