//! One revision of the rules with the clients of the services they name. Swapped as a whole; a transaction keeps the one it began with.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opes_callout_client::{ClientTls, Group, ServiceClient, ServiceClientConfig};
use opes_host::Host;
use opes_proto::smtp;
use opes_rules::table::Service;
use opes_rules::{CalloutSpec, Permission, RoutingTable, Rule, Target, TlsMode};
use opes_trace::{AgentUri, UriError};

use crate::metrics::CalloutLabel;
use crate::quiet::Quiet;
use crate::trace::Agents;

/// Time between two log lines about the same kind of failure of one rule.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Where services that are not named by an endpoint are to be found: name of the `CalloutService` → instances.
pub type Endpoints = BTreeMap<String, Instances>;

/// Where a service is that OPES runs itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Instances {
    /// As in `CalloutService.spec.endpoint`. May be empty: callouts fail as their rules' `onFailure` says, until there are some.
    pub endpoints: Vec<String>,
    /// Name that their certificates are for; none: the host of the endpoint.
    pub server_name: Option<String>,
    /// Whoever runs them starts them when they are wanted: while there are none, a callout waits a little for the first.
    pub on_demand: bool,
}

/// A table that can be run.
pub struct Routing {
    pub(crate) table: RoutingTable,
    /// By the name of the rule.
    bindings: HashMap<String, Binding>,
    pub(crate) agents: Agents,
    /// By the name of the `CalloutService`.
    services: HashMap<String, Pooled>,
}

/// The client of one service, and all that it was made of.
struct Pooled {
    client: ServiceClient,
    service: Arc<Service>,
    /// What the client was told last.
    instances: Mutex<Instances>,
    system: String,
    has_tls: bool,
}

/// A rule's way to its service.
pub(crate) struct Binding {
    pub(crate) client: ServiceClient,
    pub(crate) group: Arc<Group>,
    /// What a log has of failures.
    pub(crate) failures: Quiet<CalloutLabel>,
    /// What a log has of outcomes beyond the `allow` list.
    pub(crate) refusals: Quiet<Permission>,
}

/// Why a table cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// The table leaves it to the operator where the service is.
    #[error(
        "CalloutService {service}: `{kind}` is deployed by the operator, and this process has no address for it\n  help: set `spec.endpoint`, or run it with `opes dev`"
    )]
    NoEndpoint {
        /// `namespace/name`.
        service: String,
        /// Which kind of target it has.
        kind: &'static str,
    },
    /// Mutual TLS, and nothing to show.
    #[error(
        "CalloutService {service}: transport.tls is `mutual`, and this edge has no certificate to show\n  help: set `callouts: {{ certificate: FILE, key: FILE, ca: FILE }}` in the edge's configuration (docs/operate/callout-tls.md)"
    )]
    NoCertificate {
        /// `namespace/name`.
        service: String,
    },
    /// Mutual TLS, and an address without it.
    #[error(
        "CalloutService {service}: transport.tls is `mutual`, and {target} is in the clear beyond this machine\n  help: reach it by https://, or write transport: {{ tls: none }} if the network is trusted"
    )]
    InTheClear {
        /// `namespace/name`.
        service: String,
        /// Where it was to be reached.
        target: String,
    },
    /// Services are named after the system.
    #[error("system: `{system}` {error}")]
    System {
        /// As configured.
        system: String,
        /// What is wrong with it.
        error: UriError,
    },
}

impl RoutingError {
    /// `namespace/name` of the `CalloutService` that is at fault, if one is.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::NoEndpoint { service, .. }
            | Self::NoCertificate { service }
            | Self::InTheClear { service, .. } => Some(service),
            Self::System { .. } => None,
        }
    }
}

impl Routing {
    /// Makes the clients and names the services after `system`, an absolute URI. Connections are opened when first needed. Services that
    /// want TLS are refused.
    pub fn new(
        table: RoutingTable,
        endpoints: &Endpoints,
        system: &str,
    ) -> Result<Self, RoutingError> {
        Self::with(&Host::default(), None, table, endpoints, system)
    }

    /// As [`Routing::new`], with services that are reached over the network of `host`, and certificates for those that want TLS.
    pub fn with(
        host: &Host,
        tls: Option<&ClientTls>,
        table: RoutingTable,
        endpoints: &Endpoints,
        system: &str,
    ) -> Result<Self, RoutingError> {
        let own = AgentUri::system(system).map_err(|error| RoutingError::System {
            system: system.to_owned(),
            error,
        })?;
        let agents = Agents::new(&table, &own);
        let mut services = HashMap::new();
        let mut bindings = HashMap::new();
        for rule in &table.rules {
            let Some(callout) = &rule.callout else {
                continue;
            };
            if !services.contains_key(&callout.service) {
                let pooled = pooled(host, tls, &table, &callout.service, endpoints, system)?;
                services.insert(callout.service.clone(), pooled);
            }
            let Some(Pooled { client, .. }) = services.get(&callout.service) else {
                continue;
            };
            let (client, group) = (client.clone(), group(rule, callout, &table.revision));
            let group = Arc::new(group);
            let binding = Binding {
                client,
                group,
                failures: Quiet::new(LOG_PERIOD),
                refusals: Quiet::new(LOG_PERIOD),
            };
            bindings.insert(rule.name.clone(), binding);
        }
        Ok(Self {
            table,
            bindings,
            agents,
            services,
        })
    }

    /// Goes on with the clients of `previous` where nothing about a service is different but its endpoints: what is known of those that
    /// stay, of the breaker and of repeats is kept, and transactions that run on one that goes finish there.
    #[must_use]
    pub(crate) fn with_clients_of(mut self, previous: &Self) -> Self {
        for (name, pooled) in &mut self.services {
            if let Some(earlier) = previous.services.get(name) {
                pooled.go_on_with(earlier);
            }
        }
        for rule in &self.table.rules {
            let service = rule.callout.as_ref().map(|callout| &callout.service);
            let pooled = service.and_then(|service| self.services.get(service));
            if let (Some(pooled), Some(binding)) = (pooled, self.bindings.get_mut(&rule.name)) {
                binding.client = pooled.client.clone();
            }
        }
        self
    }

    /// Tells the services that OPES runs itself where they are now. Rules, and what is known of instances that stay, stay as they are;
    /// services that `endpoints` does not name have none. Endpoints in the clear are refused where the service wants TLS.
    pub(crate) fn set_endpoints(&self, endpoints: &Endpoints) {
        for (name, pooled) in &self.services {
            if pooled.is_ours() {
                let now = endpoints.get(name).cloned().unwrap_or_default();
                pooled.move_to(now);
            }
        }
    }

    /// Of the table.
    pub fn revision(&self) -> &str {
        &self.table.revision
    }

    /// Services with their clients.
    pub(crate) fn clients(&self) -> Vec<(String, ServiceClient)> {
        let services = self.services.iter();
        services
            .map(|(name, pooled)| (name.clone(), pooled.client.clone()))
            .collect()
    }

    /// The way to the rule's service; none for rules that act by themselves.
    pub(crate) fn binding(&self, rule: &Rule) -> Option<&Binding> {
        self.bindings.get(&rule.name)
    }
}

// === impl Pooled ===

impl Pooled {
    fn go_on_with(&mut self, earlier: &Self) {
        if !self.is_same_service(earlier) {
            return;
        }
        let wanted = self.instances().clone();
        self.client = earlier.client.clone();
        *self.instances() = earlier.instances().clone();
        self.move_to(wanted);
    }

    /// Held for moments.
    fn instances(&self) -> std::sync::MutexGuard<'_, Instances> {
        let instances = self.instances.lock();
        instances.unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ours(&self) -> bool {
        !matches!(self.service.target, Target::Endpoints(_))
    }

    fn move_to(&self, wanted: Instances) {
        let wanted = protected(&self.service, wanted, self.has_tls);
        let mut instances = self.instances();
        if *instances != wanted {
            let name = wanted.server_name.as_deref();
            self.client.set_instances(&wanted.endpoints, name);
            *instances = wanted;
        }
    }

    /// Everything but where it is. What OPES runs itself with another configuration is another service.
    fn is_same_service(&self, earlier: &Self) -> bool {
        let moved = match (&self.service.target, &earlier.service.target) {
            (Target::Endpoints(_), Target::Endpoints(_)) => true,
            (now, before) => now == before,
        };
        let unmoved = Service {
            target: self.service.target.clone(),
            ..Service::clone(&earlier.service)
        };
        moved
            && *self.service == unmoved
            && self.system == earlier.system
            && self.has_tls == earlier.has_tls
    }
}

fn pooled(
    host: &Host,
    tls: Option<&ClientTls>,
    table: &RoutingTable,
    name: &str,
    known: &Endpoints,
    system: &str,
) -> Result<Pooled, RoutingError> {
    let no_endpoint = |kind| RoutingError::NoEndpoint {
        service: name.to_owned(),
        kind,
    };
    let service = table
        .services
        .get(name)
        .ok_or_else(|| no_endpoint("nothing"))?;
    let instances = match (&service.target, known.get(name)) {
        (Target::Endpoints(endpoints), _) => Instances::from(endpoints.clone()),
        (_, Some(instances)) if instances.on_demand => {
            check_tls(name, service.tls, tls)?;
            protected(service, instances.clone(), tls.is_some())
        }
        (_, Some(instances)) => instances.clone(),
        (Target::Builtin { .. }, None) => return Err(no_endpoint("builtin")),
        (Target::Image(_), None) => return Err(no_endpoint("image")),
    };
    for endpoint in &instances.endpoints {
        check_transport(name, service.tls, endpoint, tls)?;
    }
    let config = ServiceClientConfig {
        endpoints: Vec::new(),
        awaits_instances: instances.on_demand,
        tls: tls.filter(|_| service.tls == TlsMode::Mutual).cloned(),
        server_name: service.server_name.clone(),
        connect_timeout: service.connect_timeout,
        idle_timeout: service.idle_timeout,
        max_in_flight: service.max_in_flight,
        max_queued: service.max_queued,
        max_transactions_per_connection: service.max_transactions_per_connection,
        idempotent: service.idempotent,
        system: system.to_owned(),
        host: host.clone(),
        ..ServiceClientConfig::new(name, "")
    };
    let client = ServiceClient::new(config);
    client.set_instances(&instances.endpoints, instances.server_name.as_deref());
    Ok(Pooled {
        client,
        service: Arc::clone(service),
        instances: Mutex::new(instances),
        system: system.to_owned(),
        has_tls: tls.is_some(),
    })
}

/// Without the endpoints that mail must not go to: whoever names them cannot be told, and a callout that fails follows its rule.
fn protected(service: &Service, mut instances: Instances, has_tls: bool) -> Instances {
    instances.endpoints.retain(|endpoint| {
        let usable = if endpoint.starts_with("https://") {
            has_tls
        } else {
            is_fit_in_the_clear(service.tls, endpoint)
        };
        if !usable {
            tracing::error!(
                service = service.name,
                endpoint,
                "endpoint refused: this service is reached by mutual TLS only"
            );
        }
        usable
    });
    instances
}

/// There may be no endpoint yet to be checked.
fn check_tls(name: &str, mode: TlsMode, tls: Option<&ClientTls>) -> Result<(), RoutingError> {
    match (mode, tls) {
        (TlsMode::Mutual, None) => Err(RoutingError::NoCertificate {
            service: name.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Mail leaves this machine under TLS, or because somebody wrote that it may leave in the clear.
fn check_transport(
    name: &str,
    mode: TlsMode,
    target: &str,
    tls: Option<&ClientTls>,
) -> Result<(), RoutingError> {
    let service = name.to_owned();
    let named = target.starts_with("dns://") && mode == TlsMode::Mutual;
    if target.starts_with("https://") || named {
        return tls.map_or(Err(RoutingError::NoCertificate { service }), |_| Ok(()));
    }
    if is_fit_in_the_clear(mode, target) {
        return Ok(());
    }
    let target = target.to_owned();
    Err(RoutingError::InTheClear { service, target })
}

fn is_fit_in_the_clear(mode: TlsMode, target: &str) -> bool {
    let local = ["unix:", "http://127.", "http://[::1]:", "http://localhost:"];
    mode == TlsMode::None || local.iter().any(|start| target.starts_with(start))
}

// === impl Instances ===

impl From<Vec<String>> for Instances {
    fn from(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            ..Self::default()
        }
    }
}

fn group(rule: &Rule, callout: &CalloutSpec, revision: &str) -> Group {
    Group {
        rule: rule.name.clone(),
        revision: revision.to_owned(),
        parameters_json: callout.parameters_json.clone(),
        allow: callout.allow.iter().map(permission).collect(),
    }
}

/// The rule's word for a permission in the profile's.
fn permission(permission: Permission) -> smtp::Permission {
    smtp::Permission::try_from(i32::from(permission.number())).unwrap_or_default()
}

#[cfg(test)]
mod tests;
