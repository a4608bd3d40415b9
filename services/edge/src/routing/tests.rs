use super::*;

fn routing(limits: &str) -> Routing {
    routing_at(r#"["unix:/run/a", "unix:/run/b"]"#, limits)
}

fn routing_at(endpoints: &str, limits: &str) -> Routing {
    let rules = format!(
        "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: scan }}\n\
         spec: {{ class: analyze, endpoints: {endpoints}, limits: {{ {limits} }} }}\n---\n\
         apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: all }}\n\
         spec: {{ at: [content], callout: {{ serviceRef: {{ name: scan }} }} }}\n"
    );
    let (objects, wrong) = opes_rules::parse("test", &rules);
    assert!(wrong.is_empty(), "{wrong:?}");
    let table = opes_rules::compile(objects).unwrap();
    Routing::new(table, &Endpoints::new(), "https://mx.example.com/opes").unwrap()
}

fn endpoints(routing: &Routing) -> Vec<String> {
    let binding = &routing.bindings["default/all"];
    let endpoints = binding.client.snapshot().endpoints;
    endpoints.into_iter().map(|e| e.target).collect()
}

#[test]
fn a_service_that_has_not_changed_keeps_its_client_and_one_that_has_does_not() {
    let first = routing("maxQueued: 1");
    assert_eq!(endpoints(&first), ["unix:/run/a", "unix:/run/b"]);
    // Seen only by those who share the client.
    first.clients()[0].1.set_endpoints(&["unix:/run/c".into()]);
    let same = routing("maxQueued: 1").with_clients_of(&first);
    assert_eq!(endpoints(&same), ["unix:/run/c"]);
    let other = routing("maxQueued: 2").with_clients_of(&same);
    assert_eq!(endpoints(&other), ["unix:/run/a", "unix:/run/b"]);
}

/// Distinguishes endpoints that stayed from ones that were made anew: those count from 1 again.
#[tokio::test]
async fn a_service_that_only_moves_keeps_its_client() {
    let first = routing_at(r#"["unix:/nowhere/a", "unix:/nowhere/b"]"#, "maxQueued: 1");
    let failing = first.clients()[0].1.clone();
    failing.wants().await.unwrap_err();
    let failures = |routing: &Routing| routing.clients()[0].1.snapshot().refused_unreachable;
    assert_eq!(failures(&first), 1);
    let moved = routing_at(r#"["unix:/nowhere/b", "unix:/nowhere/c"]"#, "maxQueued: 1");
    let moved = moved.with_clients_of(&first);
    assert_eq!(endpoints(&moved), ["unix:/nowhere/b", "unix:/nowhere/c"]);
    assert_eq!(failures(&moved), 1, "what is known of the service is kept");
    // The revision before shares the client: its transactions use the new endpoints too.
    assert_eq!(endpoints(&first), ["unix:/nowhere/b", "unix:/nowhere/c"]);
    // And once more from there, back and forth.
    let back = routing_at(r#"["unix:/nowhere/a"]"#, "maxQueued: 1").with_clients_of(&moved);
    assert_eq!(endpoints(&back), ["unix:/nowhere/a"]);
    let other = routing_at(r#"["unix:/nowhere/a"]"#, "maxQueued: 2").with_clients_of(&back);
    assert_eq!(failures(&other), 0, "another limit is another client");
}

#[test]
fn a_name_that_is_looked_up_needs_a_certificate_unless_tls_is_off() {
    let target = "dns://filter.example.com:9000";
    let refused = check_transport("default/scan", TlsMode::Mutual, target, None);
    assert!(matches!(refused, Err(RoutingError::NoCertificate { .. })));
    assert!(check_transport("default/scan", TlsMode::None, target, None).is_ok());
}

/// A service that OPES runs, in a cluster.
fn ours(instances: Instances, transport: &str) -> Routing {
    let rules = format!(
        "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: scan }}\n\
         spec: {{ class: analyze, builtin: {{ name: security-filter }}, transport: {transport} }}\n---\n\
         apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: all }}\n\
         spec: {{ at: [content], callout: {{ serviceRef: {{ name: scan }} }} }}\n"
    );
    let (objects, wrong) = opes_rules::parse("test", &rules);
    assert!(wrong.is_empty(), "{wrong:?}");
    let table = opes_rules::compile(objects).unwrap();
    let known = Endpoints::from([("default/scan".to_owned(), instances)]);
    Routing::new(table, &known, "https://mx.example.com/opes").unwrap()
}

fn at(endpoints: &[&str]) -> Instances {
    Instances {
        endpoints: endpoints
            .iter()
            .map(|&endpoint| endpoint.to_owned())
            .collect(),
        server_name: Some("opes-scan.default.svc".into()),
        on_demand: true,
    }
}

#[test]
fn a_service_of_ours_may_have_no_instance_and_moves_without_another_table() {
    let routing = ours(at(&[]), "{ tls: none }");
    assert!(endpoints(&routing).is_empty());
    let moved = at(&["http://192.0.2.1:9000", "http://192.0.2.2:9000"]);
    routing.set_endpoints(&Endpoints::from([("default/scan".to_owned(), moved)]));
    let two = ["http://192.0.2.1:9000", "http://192.0.2.2:9000"];
    assert_eq!(endpoints(&routing), two);
    // The next table says what was so before the move; it comes later and counts.
    let next = ours(at(&[]), "{ tls: none }").with_clients_of(&routing);
    assert!(endpoints(&next).is_empty());
    routing.set_endpoints(&Endpoints::new());
    assert!(endpoints(&routing).is_empty(), "who is not named has none");
}

#[test]
fn mail_does_not_go_in_the_clear_because_somebody_names_such_an_endpoint() {
    let kept = protected(
        &ours(at(&[]), "{ tls: none }").services["default/scan"].service,
        at(&["http://192.0.2.1:9000", "https://192.0.2.2:9000"]),
        false,
    );
    assert_eq!(
        kept.endpoints,
        ["http://192.0.2.1:9000"],
        "no certificate for the other"
    );
    let mutual = Service {
        tls: TlsMode::Mutual,
        ..Service::clone(&ours(at(&[]), "{ tls: none }").services["default/scan"].service)
    };
    let named = at(&[
        "http://192.0.2.1:9000",
        "https://192.0.2.2:9000",
        "http://127.0.0.1:9000",
    ]);
    let kept = protected(&mutual, named, true);
    assert_eq!(
        kept.endpoints,
        ["https://192.0.2.2:9000", "http://127.0.0.1:9000"]
    );
}
