use std::fmt::Write as _;
use std::path::Path;

use kube::api::DynamicObject;
use opes_rules::Resource;

use super::*;

/// Set: golden files are written instead of compared.
const BLESS: &str = "OPES_BLESS";

fn spec(text: &str) -> CalloutServiceSpec {
    let text = format!(
        "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: scan, namespace: mail }}\nspec: {text}\n"
    );
    let (mut objects, found) = opes_rules::parse("test", &text);
    assert!(found.is_empty(), "{found:?}");
    match objects.pop().unwrap().resource {
        Resource::CalloutService(service) => service.spec,
        Resource::OpesRule(_) => unreachable!(),
    }
}

fn config(text: &str) -> Config {
    let text = format!("images: {{ registry: registry.example.com/opes, tag: '1' }}\n{text}");
    Config::parse("operator.yaml", &text).unwrap()
}

fn plan(config_text: &str, features: Features, spec_text: &str) -> Plan {
    let end = "2026-03-01T00:00:00Z".parse().ok();
    plan_until(end, config_text, features, spec_text)
}

fn plan_until(
    certificate_end: Option<Timestamp>,
    config_text: &str,
    features: Features,
    spec_text: &str,
) -> Plan {
    Plan::of(&Input {
        config: &config(config_text),
        operator_namespace: "opes",
        features,
        namespace: "mail",
        name: "scan",
        uid: "00000000-0000-0000-0000-000000000001",
        spec: &spec(spec_text),
        certificate_end,
    })
}

fn features() -> Features {
    Features {
        keda: true,
        cert_manager: true,
        cpu_metrics: true,
        foreign_metrics: false,
        known: true,
    }
}

fn kinds(plan: &Plan) -> Vec<Kind> {
    plan.objects.iter().map(|planned| planned.kind).collect()
}

fn document(plan: &Plan, kind: Kind) -> Value {
    let planned = plan.objects.iter().find(|planned| planned.kind == kind);
    planned
        .map(|planned| planned.document.clone())
        .unwrap_or_default()
}

/// Compares with a file, or writes it.
fn golden(name: &str, plan: &Plan) {
    let mut text = String::new();
    for planned in &plan.objects {
        let json = serde_json::to_string_pretty(&planned.document).unwrap();
        writeln!(text, "{json}").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/plan/golden")
        .join(name);
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text, expected,
        "{name} has changed; if that is right, run with {BLESS}=1 and look at the difference"
    );
}

#[test]
fn plans_are_as_they_were() {
    let builtin =
        "{ class: adapt, builtin: { name: normalizer, config: { domain: example.com } } }";
    golden("builtin.expect", &plan("", features(), builtin));
    let keda = "{ class: observe, image: { reference: 'registry.example.com/reporting:1.4', port: 9100, args: [--quiet] }, pool: { min: 0, max: 20, engine: keda } }";
    golden(
        "keda.expect",
        &plan(
            "certificates: { issuer: certManager, issuerRef: { name: mail } }",
            features(),
            keda,
        ),
    );
    let fixed = "{ class: adapt, builtin: { name: normalizer }, transport: { tls: none }, replicas: 3, pool: { engine: none },\n  \
                 pod: { resources: { requests: { cpu: 200m } }, mounts: [{ secret: keys, path: /keys }], labels: { team: mail } } }";
    let egress = "networkPolicy: { egress: [{ services: [mail/scan], to: [{ ipBlock: { cidr: 192.0.2.0/24 } }], ports: [{ port: 389 }] }, { services: [mail/other], ports: [{ port: 1 }] }] }";
    golden("fixed.expect", &plan(egress, features(), fixed));
}

#[test]
fn replicas_are_planned_only_where_nothing_else_scales() {
    let replicas = |features, spec: &str| {
        document(&plan("", features, spec), Kind::Deployment)["spec"]["replicas"].clone()
    };
    let none = Features {
        known: true,
        ..Features::default()
    };
    assert_eq!(
        replicas(
            features(),
            "{ class: adapt, builtin: { name: normalizer } }"
        ),
        Value::Null
    );
    assert_eq!(
        replicas(
            features(),
            "{ class: adapt, builtin: { name: normalizer }, pool: { engine: keda } }"
        ),
        Value::Null
    );
    assert_eq!(
        replicas(
            none,
            "{ class: adapt, builtin: { name: normalizer }, pool: { engine: keda } }"
        ),
        json!(2)
    );
    assert_eq!(
        replicas(
            none,
            "{ class: adapt, builtin: { name: normalizer }, pool: { engine: none } }"
        ),
        json!(2)
    );
    assert_eq!(
        replicas(
            none,
            "{ class: adapt, builtin: { name: normalizer }, replicas: 5, pool: { engine: none } }"
        ),
        json!(5)
    );
}

#[test]
fn what_keda_reads_once_makes_another_scaled_object() {
    let scaled_object = |aim: u32, end: Option<Timestamp>| {
        let spec = format!(
            "{{ class: adapt, builtin: {{ name: normalizer }}, pool: {{ engine: keda, targetInFlight: {aim} }} }}"
        );
        document(&plan_until(end, "", features(), &spec), Kind::ScaledObject)["spec"].clone()
    };
    let end: Option<Timestamp> = "2026-03-01T00:00:00Z".parse().ok();
    let renewed = end.and_then(|end| end.checked_add(std::time::Duration::from_secs(1)).ok());
    let first = scaled_object(20, end);
    assert_eq!(first, scaled_object(20, end));
    assert_ne!(first, scaled_object(10, end));
    assert_ne!(first, scaled_object(20, renewed));
    assert_ne!(first, scaled_object(20, None));
    let mut live = DynamicObject::new("opes-scan", &Kind::ScaledObject.resource());
    for end in [end, renewed, None] {
        live.data = json!({ "spec": scaled_object(20, end) });
        assert_eq!(scaling::certificate_end(&live), end, "it can be read again");
    }
}

#[test]
fn what_the_cluster_lacks_is_not_planned() {
    let none = Features {
        known: true,
        ..Features::default()
    };
    let keda = plan(
        "",
        none,
        "{ class: adapt, builtin: { name: normalizer }, pool: { engine: keda } }",
    );
    assert_eq!(keda.scaling, Scaling::KedaMissing);
    assert!(!kinds(&keda).contains(&Kind::ScaledObject));
    let off = plan(
        "metricsApi: { enabled: off }",
        none,
        "{ class: adapt, builtin: { name: normalizer } }",
    );
    assert_eq!(off.scaling, Scaling::NoMetrics);
    assert!(!kinds(&off).contains(&Kind::HorizontalPodAutoscaler));
    let foreign = Features {
        foreign_metrics: true,
        cpu_metrics: true,
        known: true,
        ..Features::default()
    };
    let cpu = plan(
        "",
        foreign,
        "{ class: adapt, builtin: { name: normalizer } }",
    );
    let metrics = document(&cpu, Kind::HorizontalPodAutoscaler)["spec"]["metrics"].clone();
    assert_eq!(metrics.as_array().map(Vec::len), Some(1), "{metrics}");
    assert_eq!(metrics[0]["type"], "Resource");
}

#[test]
fn a_service_that_runs_elsewhere_has_no_objects() {
    let plan = plan(
        "",
        features(),
        "{ class: adapt, endpoint: 'https://filter.example.com:9000' }",
    );
    assert!(plan.objects.is_empty() && plan.certificate.is_none());
    assert_eq!(plan.scaling, Scaling::NotOurs);
}

#[test]
fn certificates_are_the_operators_or_cert_managers() {
    let builtin = "{ class: adapt, builtin: { name: normalizer } }";
    let ours = plan("", features(), builtin);
    let wanted = ours.certificate.clone().unwrap();
    assert_eq!(wanted.dns_names, ["opes-scan.mail.svc"]);
    assert_eq!(wanted.secret, "opes-scan-tls");
    assert!(!kinds(&ours).contains(&Kind::Certificate));
    let theirs = plan(
        "certificates: { issuer: certManager, issuerRef: { name: mail } }",
        features(),
        builtin,
    );
    assert!(theirs.certificate.is_none());
    assert!(kinds(&theirs).contains(&Kind::Certificate));
    let clear = plan(
        "",
        features(),
        "{ class: adapt, builtin: { name: normalizer }, transport: { tls: none } }",
    );
    assert!(clear.certificate.is_none());
}

#[test]
fn a_changed_configuration_replaces_pods_and_a_changed_pool_does_not() {
    let template = |spec: &str| {
        document(&plan("", features(), spec), Kind::Deployment)["spec"]["template"].clone()
    };
    let one =
        template("{ class: adapt, builtin: { name: normalizer, config: { domain: a.example } } }");
    let other =
        template("{ class: adapt, builtin: { name: normalizer, config: { domain: b.example } } }");
    let larger = template(
        "{ class: adapt, builtin: { name: normalizer, config: { domain: a.example } }, pool: { min: 5, max: 50 } }",
    );
    assert_ne!(one, other);
    assert_eq!(one, larger);
}

#[test]
fn pods_are_restricted_and_told_apart_by_their_probes() {
    let pod = document(
        &plan(
            "",
            features(),
            "{ class: adapt, builtin: { name: normalizer } }",
        ),
        Kind::Deployment,
    )["spec"]["template"]["spec"]
        .clone();
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let container = &pod["containers"][0];
    assert_eq!(
        container["securityContext"]["capabilities"]["drop"],
        json!(["ALL"])
    );
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(
        container["securityContext"]["allowPrivilegeEscalation"],
        false
    );
    let probe = |name: &str| container[name].clone();
    assert_ne!(probe("startupProbe"), probe("livenessProbe"));
    assert_ne!(probe("livenessProbe"), probe("readinessProbe"));
    assert_ne!(probe("startupProbe"), probe("readinessProbe"));
}

#[test]
fn names_of_objects_are_those_of_the_page() {
    let plan = plan(
        "",
        features(),
        "{ class: adapt, builtin: { name: normalizer } }",
    );
    for planned in &plan.objects {
        assert_eq!(
            (planned.namespace.as_str(), planned.name.as_str()),
            ("mail", "opes-scan")
        );
        let labels = &planned.document["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/managed-by"], "opes-operator");
        assert_eq!(labels["opes.dev/callout-service"], "scan");
        assert_eq!(
            planned.document["metadata"]["ownerReferences"][0]["controller"],
            true
        );
        assert!(planned.document["metadata"]["annotations"][PLAN_HASH].is_string());
    }
}
