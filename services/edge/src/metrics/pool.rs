//! The pools of the callout services, read when somebody looks: endpoints, breaker, repeats, refusals.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use opes_callout_client::{BreakerState, EndpointState, ServiceClient, Snapshot};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The services of the routing in force, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pools(Arc<Mutex<Vec<(String, ServiceClient)>>>);

/// How busy one service is, as this edge sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolLoad {
    /// `namespace/name` of the `CalloutService`.
    pub service: String,
    /// Transactions open.
    pub in_flight: u32,
    /// Transactions that wait for a place or for an instance; 1 for a minute after one failed for want of an instance.
    pub queued: u32,
}

type Pooled = Vec<(String, Snapshot)>;

/// A label's name and value.
type Label<'a> = (&'static str, &'a str);

/// What has happened so far.
struct Counted {
    name: &'static str,
    help: &'static str,
    /// Second label, empty if there is none; values with their figures.
    label: &'static str,
    of: fn(&Snapshot) -> Vec<(&'static str, u64)>,
}

const COUNTED: &[Counted] = &[
    Counted {
        name: "opes_callout_ejections",
        help: "Times that an endpoint was left alone because it failed again and again",
        label: "",
        of: |pool| vec![("", pool.ejections)],
    },
    Counted {
        name: "opes_callout_retries",
        help: "Callouts repeated on another endpoint, or not because the budget was spent",
        label: "result",
        of: |pool| {
            vec![
                ("Repeated", pool.retries),
                ("OverBudget", pool.retries_refused),
            ]
        },
    },
    Counted {
        name: "opes_callout_not_asked",
        help: "Callouts that failed at once without being asked for",
        label: "reason",
        of: |pool| {
            vec![
                ("Full", pool.refused_full),
                ("BreakerOpen", pool.refused_breaker),
                ("Unreachable", pool.refused_unreachable),
            ]
        },
    },
];

// === impl Pools ===

impl Pools {
    /// From now on these are shown.
    pub(crate) fn show(&self, services: Vec<(String, ServiceClient)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = services;
    }

    pub(crate) fn loads(&self) -> Vec<PoolLoad> {
        let snapshots = self.snapshots().into_iter();
        snapshots
            .map(|(service, pool)| PoolLoad {
                service,
                in_flight: pool.in_flight,
                queued: pool.queued.max(u32::from(pool.wanted)),
            })
            .collect()
    }

    fn snapshots(&self) -> Pooled {
        let services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        services
            .iter()
            .map(|(name, client)| (name.clone(), client.snapshot()))
            .collect()
    }
}

impl Collector for Pools {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let pools = self.snapshots();
        endpoints(&mut encoder, &pools)?;
        in_flight(&mut encoder, &pools)?;
        gauge(
            &mut encoder,
            "opes_callout_queued",
            "Callouts that wait for a place on a connection",
            &pools,
            |pool| i64::from(pool.queued),
        )?;
        gauge(
            &mut encoder,
            "opes_callout_breaker_open",
            "1 while callouts to the service fail at once because it only fails or cannot be reached",
            &pools,
            |pool| i64::from(pool.breaker != BreakerState::Closed),
        )?;
        COUNTED
            .iter()
            .try_for_each(|counted| counter(&mut encoder, counted, &pools))
    }
}

fn endpoints(encoder: &mut DescriptorEncoder<'_>, pools: &Pooled) -> fmt::Result {
    let (name, help) = (
        "opes_callout_endpoints",
        "Endpoints of a service by what they are good for just now",
    );
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (service, pool) in pools {
        for state in EndpointState::ALL {
            let endpoints = pool.endpoints.iter().filter(|e| e.state == state).count();
            let labels: [Label<'_>; 2] = [("service", service), ("state", state_name(state))];
            let value = i64::try_from(endpoints).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn state_name(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Ready => "Ready",
        EndpointState::Ejected => "Ejected",
        EndpointState::Unresponsive => "Unresponsive",
        EndpointState::Idle => "Idle",
        EndpointState::Unreachable => "Unreachable",
    }
}

fn in_flight(encoder: &mut DescriptorEncoder<'_>, pools: &Pooled) -> fmt::Result {
    let (name, help) = (
        "opes_callout_endpoint_inflight",
        "Callout transactions open on an endpoint",
    );
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (service, pool) in pools {
        for endpoint in &pool.endpoints {
            let labels: [Label<'_>; 2] = [("service", service), ("endpoint", &endpoint.target)];
            let value = i64::from(endpoint.in_flight);
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    pools: &Pooled,
    value: fn(&Snapshot) -> i64,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (service, pool) in pools {
        let labels: [Label<'_>; 1] = [("service", service)];
        ConstGauge::new(value(pool)).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counter(encoder: &mut DescriptorEncoder<'_>, counted: &Counted, pools: &Pooled) -> fmt::Result {
    let (name, help) = (counted.name, counted.help);
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (service, pool) in pools {
        for (value, count) in (counted.of)(pool) {
            let mut labels: Vec<Label<'_>> = vec![("service", service)];
            if !counted.label.is_empty() {
                labels.push((counted.label, value));
            }
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use opes_callout_client::ServiceClientConfig;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn every_service_is_shown_with_all_values() {
        let pools = Pools::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(pools.clone()));
        let config = ServiceClientConfig {
            endpoints: vec!["http://192.0.2.1:9000".into(), "unix:/run/x.sock".into()],
            ..ServiceClientConfig::new("default/scan", "")
        };
        pools.show(vec![("default/scan".into(), ServiceClient::new(config))]);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "opes_callout_endpoints{service=\"default/scan\",state=\"Idle\"} 2\n",
            "opes_callout_endpoint_inflight{service=\"default/scan\",endpoint=\"unix:/run/x.sock\"} 0\n",
            "opes_callout_breaker_open{service=\"default/scan\"} 0\n",
            "opes_callout_ejections_total{service=\"default/scan\"} 0\n",
            "opes_callout_not_asked_total{service=\"default/scan\",reason=\"Full\"} 0\n",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }
}
