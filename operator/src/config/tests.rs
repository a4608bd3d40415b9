use super::*;

fn error(text: &str) -> String {
    Config::parse("operator.yaml", text)
        .unwrap_err()
        .to_string()
}

#[test]
fn nothing_is_all_defaults() {
    for text in ["", "# nothing\n", "{}"] {
        let config = Config::parse("operator.yaml", text).unwrap();
        assert_eq!(config.service, "opes-operator");
        assert_eq!(config.routing.listen.port(), 9443);
        assert_eq!(config.certificates.issuer, Issuer::Operator);
        assert!(config.network_policy.enabled);
    }
}

#[test]
fn mistakes_are_refused_by_field_and_remedy() {
    for (text, said) in [
        ("watching: {}", "unknown field `watching`"),
        ("watch: { namespace: [] }", "unknown field `namespace`"),
        (
            "watch: { namespaces: [Mail] }",
            "watch.namespaces[0]: `Mail` is not a name",
        ),
        (
            "certificates: { issuer: certManager }",
            "certificates.issuerRef: is missing",
        ),
        (
            "certificates: { issuerRef: { name: x } }",
            "certificates.issuerRef: is for issuer: certManager",
        ),
        (
            "images: { digests: { normalizer: abc } }",
            "images.digests.normalizer",
        ),
        ("images: { tag: '' }", "images.tag: is empty"),
        (
            "tenants: [{ namespace: a, domains: [] }]",
            "tenants[0].domains: is empty",
        ),
        (
            "pods: { listen: everywhere }",
            "pods.listen: `everywhere` is not an address",
        ),
        ("routing: { listen: 9443 }", "operator.yaml"),
    ] {
        let error = error(text);
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn an_image_has_registry_and_tag_or_digest() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let text = format!(
        "images: {{ registry: registry.example.com/opes/, tag: '1', digests: {{ normalizer: '{digest}' }} }}"
    );
    let config = Config::parse("operator.yaml", &text).unwrap();
    assert_eq!(
        config.image("spam-filter"),
        "registry.example.com/opes/opes-spam-filter:1"
    );
    assert_eq!(
        config.image("normalizer"),
        format!("registry.example.com/opes/opes-normalizer@{digest}")
    );
    let plain = Config::parse("operator.yaml", "images: { tag: '1' }").unwrap();
    assert_eq!(plain.image("spam-filter"), "opes-spam-filter:1");
}
