use proptest::prelude::*;

use super::*;

fn uri(text: &str) -> AgentUri {
    AgentUri::parse(text).unwrap()
}

fn field(text: &str) -> BypassRequest {
    BypassRequest::parse_field(text.as_bytes()).unwrap()
}

#[test]
fn everything_or_a_list() {
    assert_eq!(field(" *"), BypassRequest::All);
    assert_eq!(field("https://a.example/x, *"), BypassRequest::All);
    let two = BypassRequest::Named(vec![uri("https://a.example/x"), uri("urn:example:y")]);
    assert_eq!(
        field(" https://a.example/x,\r\n\turn:example:y, https://a.example/x"),
        two
    );
    assert_eq!(two.parameter(), "https://a.example/x,urn:example:y");
    assert_eq!(
        BypassRequest::parse_parameter("https://a.example/?b+3Dc"),
        Ok(BypassRequest::Named(vec![uri("https://a.example/?b=c")]))
    );
}

#[test]
fn what_is_no_request() {
    assert_eq!(BypassRequest::parse_field(b" , "), Err(BypassSyntax::Empty));
    assert!(matches!(
        BypassRequest::parse_field(b"please"),
        Err(BypassSyntax::Uri { .. })
    ));
    assert_eq!(
        BypassRequest::parse_parameter("u:r=x"),
        Err(BypassSyntax::Xtext)
    );
}

#[test]
fn who_names_more_than_is_looked_at_asks_for_everything() {
    let many: Vec<String> = (0..=URIS_MAX).map(|n| format!("urn:example:{n}")).collect();
    assert_eq!(field(&many.join(",")), BypassRequest::All);
}

#[test]
fn c_62_a_uri_that_nobody_here_has_means_everything() {
    let services = [
        ("default/scan", uri("https://mail.example.com/opes/scan")),
        (
            "default/french",
            uri("https://mail.example.com/opes/translate"),
        ),
        (
            "default/german",
            uri("https://mail.example.com/opes/translate"),
        ),
    ];
    let known = || services.iter().map(|(name, uri)| (*name, uri));
    let names =
        |names: &[&str]| Bypass::Services(names.iter().map(|name| (*name).to_owned()).collect());
    let translate = field("https://MAIL.example.com/opes/translate");
    assert_eq!(
        translate.resolve(&known()),
        names(&["default/french", "default/german"])
    );
    let twice = translate.and(field("https://mail.example.com/opes/scan"));
    assert!(twice.resolve(&known()).covers("default/scan"));
    for unknown in [
        "https://mail.example.com/opes",
        "https://other.example.net/x",
        "https://mail.example.com/opes/translate, urn:example:unknown",
    ] {
        assert_eq!(field(unknown).resolve(&known()), Bypass::All, "{unknown}");
    }
    assert!(!names(&["default/scan"]).covers("default/french"));
}

proptest! {
    #[test]
    fn the_parameter_is_read_back(paths in prop::collection::vec("[a-z=+?/]{0,12}", 1..5)) {
        let uris = paths.iter().map(|path| uri(&format!("https://a.example/{path}")));
        let request = uris
            .map(|uri| BypassRequest::Named(vec![uri]))
            .reduce(BypassRequest::and)
            .unwrap();
        prop_assert_eq!(BypassRequest::parse_parameter(&request.parameter()), Ok(request));
    }

    #[test]
    fn never_panics(text in "\\PC{0,60}") {
        let _ = BypassRequest::parse_field(text.as_bytes());
        let _ = BypassRequest::parse_parameter(&text);
    }
}
