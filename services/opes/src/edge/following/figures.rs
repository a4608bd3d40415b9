//! `opes_edge_routing_*`: read off the follower when somebody looks.

use std::fmt;

use opes_routing::{Source, Status, StatusView};
use opes_telemetry::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

#[derive(Debug)]
struct Figures(StatusView);

pub(super) fn register(registry: &Registry, view: StatusView) {
    registry.with(|registry| registry.register_collector(Box::new(Figures(view))));
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.0.now();
        let connected = i64::try_from(status.connected).unwrap_or(i64::MAX);
        let operators = encoder.encode_descriptor(
            "opes_edge_routing_operators",
            "Streams to operators that are open",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(connected).encode(operators)?;
        if let Some(age) = status.age {
            let family = encoder.encode_descriptor(
                "opes_edge_routing_age_seconds",
                "Since an operator last confirmed the routing table in force; 0 while one does",
                None,
                MetricType::Gauge,
            )?;
            ConstGauge::new(age.as_secs_f64()).encode(family)?;
        }
        info(&mut encoder, &status)?;
        let mut tables = encoder.encode_descriptor(
            "opes_edge_routing_tables",
            "Routing tables that were put in force, or refused",
            None,
            MetricType::Counter,
        )?;
        for (result, count) in [("Taken", status.taken), ("Refused", status.refused)] {
            let labels: [(&str, &str); 1] = [("result", result)];
            ConstCounter::new(count).encode(tables.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn info(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let Some(source) = status.source else {
        return Ok(());
    };
    let source = match source {
        Source::Stream => "Stream",
        Source::Cache => "Cache",
    };
    let mut family = encoder.encode_descriptor(
        "opes_edge_routing_revision",
        "1 for the routing table in force, and where it is from",
        None,
        MetricType::Gauge,
    )?;
    let labels: [(&str, &str); 2] = [("revision", &status.revision), ("source", source)];
    ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)
}
