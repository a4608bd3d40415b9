use super::*;

const SMALLEST: &str = "hostname: mail.example.com\nspool: /var/spool/opes\ndelivery: { nextHop: 'mx.example.com:25' }\nlisteners:\n  - { name: mx, address: '0.0.0.0:2525' }\n";

fn error(text: &str) -> String {
    EdgeConfig::parse(text, Path::new("edge.yaml"))
        .unwrap_err()
        .to_string()
}

#[test]
fn smallest_file_has_safe_defaults() {
    let config = EdgeConfig::parse(SMALLEST, Path::new("edge.yaml")).unwrap();
    assert!(config.domains.is_empty() && config.relay_networks.is_empty());
    assert_eq!(config.memory_budget, 64 << 20);
    assert_eq!(config.listeners[0].size_max, 35 << 20);
}

#[test]
fn unknown_key_is_named() {
    let message = error(&SMALLEST.replace("spool:", "memoryBuget: 1Mi\nspool:"));
    assert!(
        message.contains("memoryBuget") && message.contains("edge.yaml"),
        "{message}"
    );
}

#[test]
fn both_deliveries_are_refused() {
    let message = error(&SMALLEST.replace("nextHop:", "maildir: /tmp/x, nextHop:"));
    assert!(message.contains("exactly one"), "{message}");
}

#[test]
fn submission_without_users_is_refused() {
    let message = error(&SMALLEST.replace("name: mx,", "name: mx, protocol: submission,"));
    assert!(message.contains("listeners[0].users"), "{message}");
}

#[test]
fn tls_that_nobody_can_start_is_not_required() {
    let message = error(&SMALLEST.replace("name: mx,", "name: mx, requireTls: true,"));
    assert!(message.contains("listeners[0].requireTls"), "{message}");
    let message = error(&SMALLEST.replace("name: mx,", "name: mx, errorsMax: 0,"));
    assert!(message.contains("errorsMax"), "{message}");
}

#[test]
fn an_address_that_is_none_is_refused() {
    for (key, field) in [
        ("bounces: { postmaster", "bounces.postmaster"),
        (
            "notifications: { administrator",
            "notifications.administrator",
        ),
    ] {
        let message = error(&format!("{key}: nobody }}\n{SMALLEST}"));
        assert!(message.contains(field), "{message}");
    }
}

#[test]
fn the_system_has_a_name_of_its_own() {
    let config = |text: &str| EdgeConfig::parse(text, Path::new("edge.yaml"));
    assert_eq!(
        config(SMALLEST).unwrap().system,
        "https://mail.example.com/opes"
    );
    let set = SMALLEST.replace("spool:", "system: 'urn:example:opes'\nspool:");
    assert_eq!(config(&set).unwrap().system, "urn:example:opes");
    for (from, to) in [
        ("spool:", "system: opes\nspool:"),
        ("spool:", "system: 'https://a.example/;b'\nspool:"),
        ("mail.example.com", "mail"),
    ] {
        let text = SMALLEST.replacen(from, to, 1) + "rules: /etc/opes/rules\n";
        assert!(error(&text).contains("edge.yaml: system:"), "{text}");
    }
}

#[test]
fn nobody_may_bypass_unless_named() {
    let text = SMALLEST.to_owned() + "bypass: { identities: ['*'], networks: [192.0.2.0/24] }\n";
    let config = EdgeConfig::parse(&text, Path::new("edge.yaml")).unwrap();
    assert_eq!(config.bypass.unwrap().identities, ["*"]);
    assert!(
        EdgeConfig::parse(SMALLEST, Path::new("edge.yaml"))
            .unwrap()
            .bypass
            .is_none()
    );
}

#[test]
fn a_spool_that_is_not_durable_has_nothing_to_promise() {
    let volatile = format!("spoolDurable: false\n{SMALLEST}");
    let message = error(&volatile);
    assert!(message.contains("listeners[0].delivery"), "{message}");
    let strict = volatile.replace("name: mx,", "name: mx, delivery: cutThrough,");
    let config = EdgeConfig::parse(&strict, Path::new("edge.yaml")).unwrap();
    assert!(!config.spool_durable && config.drain_delay.is_zero());
    let config = EdgeConfig::parse(SMALLEST, Path::new("edge.yaml")).unwrap();
    assert!(config.spool_durable);
}

#[test]
fn sizes_and_durations() {
    assert_eq!(parse_octets("30Mi"), Ok(30 << 20));
    assert!(parse_octets("30 MB").is_err());
    assert_eq!(parse_duration("5m"), Ok(Duration::from_mins(5)));
    assert!(parse_duration("5").is_err());
}
