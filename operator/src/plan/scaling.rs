//! What makes a pool larger and smaller.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, ExternalMetricSource, HPAScalingPolicy, HPAScalingRules,
    HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec,
    MetricIdentifier, MetricSpec, MetricTarget, ResourceMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use opes_rules::object::Pool;
use serde_json::json;

use super::{Input, Planned, Scaling};
use crate::kinds::{Kind, SERVICE_LABEL};

/// Name of the external metric: transactions open and waiting at all edges.
pub(super) const LOAD_METRIC: &str = "opes-callout-in-flight";

/// The objects that scale it; none where nothing does.
pub(super) fn plan(input: &Input<'_>, scaling: Scaling) -> Vec<Planned> {
    match scaling {
        Scaling::Hpa => vec![hpa(input)],
        Scaling::Keda => vec![trigger_authentication(input), scaled_object(input)],
        Scaling::NotOurs | Scaling::Fixed | Scaling::KedaMissing | Scaling::NoMetrics => Vec::new(),
    }
}

fn hpa(input: &Input<'_>) -> Planned {
    let pool = &input.spec.pool;
    let scaler = HorizontalPodAutoscaler {
        metadata: input.metadata(),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some(Kind::Deployment.api_version()),
                kind: Kind::Deployment.name().into(),
                name: input.full_name(),
            },
            min_replicas: Some(count(pool.min)),
            max_replicas: count(pool.max),
            metrics: Some(metrics(input)),
            behavior: Some(behavior(pool)),
        }),
        status: None,
    };
    input.planned(Kind::HorizontalPodAutoscaler, scaler)
}

fn metrics(input: &Input<'_>) -> Vec<MetricSpec> {
    let pool = &input.spec.pool;
    let load = ExternalMetricSource {
        metric: MetricIdentifier {
            name: LOAD_METRIC.into(),
            selector: Some(LabelSelector {
                match_labels: Some([(SERVICE_LABEL.to_owned(), input.name.to_owned())].into()),
                ..LabelSelector::default()
            }),
        },
        target: MetricTarget {
            type_: "AverageValue".into(),
            average_value: Some(Quantity(pool.target_in_flight.to_string())),
            ..MetricTarget::default()
        },
    };
    let cpu = ResourceMetricSource {
        name: "cpu".into(),
        target: MetricTarget {
            type_: "Utilization".into(),
            average_utilization: Some(count(pool.target_cpu_percent)),
            ..MetricTarget::default()
        },
    };
    let load = input.has_load().then(|| MetricSpec {
        type_: "External".into(),
        external: Some(load),
        ..MetricSpec::default()
    });
    let cpu = (input.features.cpu_metrics && pool.target_cpu_percent > 0).then(|| MetricSpec {
        type_: "Resource".into(),
        resource: Some(cpu),
        ..MetricSpec::default()
    });
    load.into_iter().chain(cpu).collect()
}

fn seconds(pool: &Pool) -> i32 {
    i32::try_from(pool.scale_down_after.0.as_secs()).unwrap_or(i32::MAX)
}

/// Up at once, down slowly: an instance too many costs little, one too few costs mail time.
fn behavior(pool: &Pool) -> HorizontalPodAutoscalerBehavior {
    let policy = |type_: &str, value, period_seconds| HPAScalingPolicy {
        type_: type_.into(),
        value,
        period_seconds,
    };
    HorizontalPodAutoscalerBehavior {
        scale_up: Some(HPAScalingRules {
            stabilization_window_seconds: Some(0),
            policies: Some(vec![policy("Percent", 100, 15), policy("Pods", 4, 15)]),
            select_policy: Some("Max".into()),
            ..HPAScalingRules::default()
        }),
        scale_down: Some(HPAScalingRules {
            stabilization_window_seconds: Some(seconds(pool)),
            policies: Some(vec![policy("Percent", 10, 60), policy("Pods", 1, 60)]),
            select_policy: Some("Max".into()),
            ..HPAScalingRules::default()
        }),
    }
}

/// In the metadata of KEDA's trigger: when the certificate ends.
const CERTIFICATE_END: &str = "certificateNotAfter";

/// What KEDA shows to the operator, and whom it believes.
fn trigger_authentication(input: &Input<'_>) -> Planned {
    let parameter = |parameter: &str, key: &str| json!({ "parameter": parameter, "name": input.tls_secret(), "key": key });
    let spec = json!({
        "secretTargetRef": [
            parameter("caCert", "ca.crt"),
            parameter("tlsClientCert", "tls.crt"),
            parameter("tlsClientKey", "tls.key"),
        ],
    });
    input.planned_custom(Kind::TriggerAuthentication, &spec)
}

fn scaled_object(input: &Input<'_>) -> Planned {
    let pool = &input.spec.pool;
    let address = format!(
        "{}.{}.svc:9443",
        input.config.service, input.operator_namespace
    );
    // The last two are for nobody to read. KEDA asks for the aim, and reads the Secret, when the ScaledObject becomes another one, and
    // then no more: its stream would go on with a certificate that nobody believes.
    let mut metadata = json!({
        "scalerAddress": address,
        "service": format!("{}/{}", input.namespace, input.name),
        "enableTLS": "true",
        "targetInFlight": pool.target_in_flight.to_string(),
    });
    if let Some(end) = input.certificate_end {
        metadata[CERTIFICATE_END] = json!(end.to_string());
    }
    let spec = json!({
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": input.full_name() },
        "minReplicaCount": pool.min,
        "maxReplicaCount": pool.max,
        "pollingInterval": 15,
        "cooldownPeriod": seconds(pool),
        "advanced": { "horizontalPodAutoscalerConfig": { "behavior": behavior(pool) } },
        "triggers": [{
            "type": "external-push",
            "metricType": "AverageValue",
            "metadata": metadata,
            "authenticationRef": { "name": input.full_name() },
        }],
    });
    input.planned_custom(Kind::ScaledObject, &spec)
}

/// What a ScaledObject that is there says of its certificate.
pub(crate) fn certificate_end(live: &DynamicObject) -> Option<Timestamp> {
    let said = live
        .data
        .pointer("/spec/triggers/0/metadata")?
        .get(CERTIFICATE_END)?;
    said.as_str()?.parse().ok()
}

fn count(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
