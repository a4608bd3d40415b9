use super::*;

fn routing(limits: &str) -> Routing {
    let rules = format!(
        "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: scan }}\n\
         spec: {{ class: analyze, endpoints: [\"unix:/run/a\", \"unix:/run/b\"], limits: {{ {limits} }} }}\n---\n\
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

#[test]
fn a_name_that_is_looked_up_needs_a_certificate_unless_tls_is_off() {
    let target = "dns://filter.example.com:9000";
    let refused = check_transport("default/scan", TlsMode::Mutual, target, None);
    assert!(matches!(refused, Err(RoutingError::NoCertificate { .. })));
    assert!(check_transport("default/scan", TlsMode::None, target, None).is_ok());
}
