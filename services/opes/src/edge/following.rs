//! An edge that follows an operator: tables and endpoints from the stream into the edge, and word back of what came of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opes_edge::config::{EdgeConfig, RoutingConfig};
use opes_edge::{Endpoints, Instances, LiveRouting, Metrics, Routing, RoutingError};
use opes_routing::{Fault, Follower, FollowerConfig, News, Pool, PoolLoad, Source, Update};
use opes_rules::{RoutingTable, Target};
use opes_telemetry::{Health, Registry};

use super::{Callouts, client_tls};

mod figures;

/// How often `/readyz` says anew why there is no table.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Part of readiness.
const PART: &str = "routing";

/// The follower, and what its tables are run with.
pub(crate) struct Following {
    follower: Follower,
    callouts: Arc<Callouts>,
}

// === impl Following ===

impl Following {
    /// Begins to call the operator. `metrics` knows how busy the pools are.
    pub(crate) fn start(
        config: &EdgeConfig,
        routing: &RoutingConfig,
        callouts: &Arc<Callouts>,
        metrics: &Arc<Metrics>,
        registry: &Registry,
    ) -> Result<Self> {
        let files = routing
            .files(config.callouts.as_ref())
            .context("routing: no certificate")?;
        let operator = routing.operator.parse().context("routing.operator")?;
        let tls = client_tls(&files).context("routing")?;
        let follower = FollowerConfig {
            namespace: pod("POD_NAMESPACE").unwrap_or_default(),
            cache: Some(routing.cache_folder(&config.spool)),
            ..FollowerConfig::new(operator, name(routing), tls)
        };
        let pools = Arc::clone(metrics);
        let follower = Follower::start(follower, move || loads(&pools));
        figures::register(registry, follower.view());
        Ok(Self {
            follower,
            callouts: Arc::clone(callouts),
        })
    }

    /// The first table that can be run. Until then nothing is ready, and `health` says why.
    pub(crate) async fn first(&mut self, health: &Health) -> Routing {
        let mut tell = tokio::time::interval(TELL_INTERVAL);
        loop {
            tokio::select! {
                _ = tell.tick() => health.not_ready(PART, self.why_none()),
                news = self.follower.next() => {
                    let News::Table(update) = news else {
                        continue;
                    };
                    let revision = update.table.revision.clone();
                    match self.routing(*update) {
                        // Not said to operators before connections are taken.
                        Ok(routing) => {
                            health.ready(PART);
                            return routing;
                        }
                        Err(error) => self.follower.refuse(&revision, vec![fault(&error)]).await,
                    }
                }
            }
        }
    }

    fn why_none(&self) -> String {
        let status = self.follower.status();
        let why = match (status.trouble, status.connected) {
            (Some(trouble), _) => trouble,
            (None, 0) => "no operator was reached yet".to_owned(),
            (None, _) if status.refused > 0 => {
                "what the operator sends cannot be run; see the log".to_owned()
            }
            (None, _) => "the operator has not sent one yet".to_owned(),
        };
        format!("no routing table yet: {why}")
    }

    /// Says that the first table is in force, then follows until dropped.
    pub(crate) async fn run(mut self, revision: String, edge: LiveRouting) {
        self.follower.in_force(&revision).await;
        loop {
            match self.follower.next().await {
                News::Endpoints(endpoints) => edge.set_endpoints(&all(&endpoints.pools)),
                News::Table(update) => self.replace(*update, &edge).await,
            }
        }
    }

    async fn replace(&self, update: Update, edge: &LiveRouting) {
        let revision = update.table.revision.clone();
        let pools = all(&update.endpoints.pools);
        match self.routing(update) {
            Ok(routing) => {
                edge.replace(routing);
                self.follower.in_force(&revision).await;
            }
            Err(error) => {
                // What runs may have moved all the same.
                edge.set_endpoints(&pools);
                self.follower.refuse(&revision, vec![fault(&error)]).await;
            }
        }
    }

    fn routing(&self, update: Update) -> Result<Routing, RoutingError> {
        if update.source == Source::Cache {
            tracing::warn!(
                revision = update.table.revision,
                "the routing table is the last good one; no operator has confirmed it"
            );
        }
        let endpoints = of_table(&update.table, &update.endpoints.pools);
        self.callouts.routing(update.table, &endpoints)
    }
}

/// Unique among the edges of the installation.
fn name(routing: &RoutingConfig) -> String {
    let configured = routing.edge.clone();
    configured.or_else(|| pod("POD_NAME")).unwrap_or_else(|| {
        let host = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname"));
        let host = host.unwrap_or_default();
        match host.trim() {
            "" => "edge".to_owned(),
            host => host.to_owned(),
        }
    })
}

fn pod(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|name| !name.is_empty())
}

fn loads(metrics: &Metrics) -> Vec<PoolLoad> {
    let each = metrics.pool_loads().into_iter();
    each.map(|load| PoolLoad {
        service: load.service,
        in_flight: load.in_flight,
        queued: load.queued,
    })
    .collect()
}

/// Of every pool that the operator names.
fn all(pools: &[Pool]) -> Endpoints {
    let each = pools.iter();
    each.map(|pool| (pool.service.clone(), instances(pool)))
        .collect()
}

/// Of every service of the table that OPES runs; none for those that the operator does not name.
fn of_table(table: &RoutingTable, pools: &[Pool]) -> Endpoints {
    let mut named = all(pools);
    let services = table.services.values();
    let ours = services.filter(|service| !matches!(service.target, Target::Endpoints(_)));
    ours.map(|service| {
        let instances = named.remove(&service.name).unwrap_or(Instances {
            on_demand: true,
            ..Instances::default()
        });
        (service.name.clone(), instances)
    })
    .collect()
}

fn instances(pool: &Pool) -> Instances {
    Instances {
        endpoints: pool.endpoints.clone(),
        server_name: Some(pool.server_name.clone()).filter(|name| !name.is_empty()),
        on_demand: true,
    }
}

fn fault(error: &RoutingError) -> Fault {
    let service = error.service().unwrap_or_default();
    Fault {
        kind: match service {
            "" => String::new(),
            _ => "CalloutService".to_owned(),
        },
        name: service.to_owned(),
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_of_ours_has_instances_and_be_it_none() {
        let rules = "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: { name: ours }\nspec: { class: analyze, builtin: { name: security-filter } }\n---\n\
                     apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: { name: fixed }\nspec: { class: analyze, endpoint: 'http://127.0.0.1:1' }\n---\n\
                     apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: a }\nspec: { at: [content], callout: { serviceRef: { name: ours } } }\n---\n\
                     apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: b }\nspec: { at: [content], callout: { serviceRef: { name: fixed } } }\n";
        let (objects, wrong) = opes_rules::parse("test", rules);
        assert!(wrong.is_empty(), "{wrong:?}");
        let table = opes_rules::compile(objects).unwrap();
        let none = of_table(&table, &[]);
        assert_eq!(none.keys().collect::<Vec<_>>(), ["default/ours"]);
        assert!(none["default/ours"].endpoints.is_empty() && none["default/ours"].on_demand);
        let pool = Pool {
            service: "default/ours".into(),
            endpoints: vec!["https://192.0.2.1:9000".into()],
            server_name: "opes-ours.default.svc".into(),
        };
        let some = of_table(&table, std::slice::from_ref(&pool));
        assert_eq!(
            some["default/ours"].server_name.as_deref(),
            Some("opes-ours.default.svc")
        );
        assert_eq!(all(&[pool]), some);
    }
}
