//! Questions to resolvers: few at once, answers kept, and never longer than a message may take.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mail_auth::MessageAuthenticator;
use mail_auth::hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use mail_auth::hickory_resolver::proto::rr::{Name, RData};
use mail_auth::hickory_resolver::system_conf::read_system_conf;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::config::own::{OwnConfig, OwnError};

/// Further attempts after the first.
const REPEATS: usize = 2;
/// Longest that an answer is kept, whatever its record says.
const KEPT_MAX: Duration = Duration::from_hours(24);
/// The same for the answer that there is nothing.
const NOTHING_KEPT_MAX: Duration = Duration::from_hours(1);
/// Where a system without resolvers has one (resolv.conf(5)).
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// No answer, or none in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoAnswer;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dns {
    resolver: MessageAuthenticator,
    /// One for each check that runs: a check has one open question at most.
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

// === impl Dns ===

impl Dns {
    pub(crate) fn new(config: &OwnConfig) -> Result<Self, OwnError> {
        let mut addresses = config.addresses()?;
        let servers = if addresses.is_empty() {
            let system = read_system_conf();
            let (system, _) = system.map_err(|error| OwnError::System(error.to_string()))?;
            system.name_servers().to_vec()
        } else {
            addresses.drain(..).map(server).collect()
        };
        let servers = if servers.is_empty() {
            vec![server(LOCAL)]
        } else {
            servers
        };
        // No search domains: what is asked for is a whole name.
        let resolvers = ResolverConfig::from_parts(None, Vec::new(), servers);
        let resolver = MessageAuthenticator::new(resolvers, options(config))
            .map_err(|error| OwnError::Resolver(error.to_string()))?;
        Ok(Self {
            resolver,
            places: Arc::new(Semaphore::new(config.dns_queries_max)),
        })
    }

    pub(crate) fn resolver(&self) -> &MessageAuthenticator {
        &self.resolver
    }

    /// Runs a check that asks one question after the other.
    pub(crate) async fn check<T>(
        &self,
        until: Instant,
        check: impl Future<Output = T>,
    ) -> Result<T, NoAnswer> {
        let placed = async {
            let _place = self.places.acquire().await.map_err(|_| NoAnswer)?;
            Ok(check.await)
        };
        timeout_at(until, placed).await.unwrap_or(Err(NoAnswer))
    }

    /// A records; empty if there are none.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Vec<Ipv4Addr>, NoAnswer> {
        let name = Name::from_str_relaxed(name).map_err(|_| NoAnswer)?;
        match self.resolver.resolver().ipv4_lookup(name).await {
            Ok(lookup) => {
                let addresses = lookup.answers().iter().filter_map(|record| {
                    if let RData::A(address) = &record.data {
                        Some(address.0)
                    } else {
                        None
                    }
                });
                Ok(addresses.collect())
            }
            Err(error) if error.is_no_records_found() => Ok(Vec::new()),
            Err(_) => Err(NoAnswer),
        }
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let connections = connections.map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

fn options(config: &OwnConfig) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = Duration::from_millis(config.dns_timeout_ms);
    options.attempts = REPEATS;
    options.cache_size = config.dns_cache_size;
    options.positive_max_ttl = Some(KEPT_MAX);
    options.negative_max_ttl = Some(NOTHING_KEPT_MAX);
    // The names are strangers', so this machine's hosts file has nothing to say about them.
    options.use_hosts_file = ResolveHosts::Never;
    // One after the other, so that a place is a question.
    options.num_concurrent_reqs = 1;
    options.max_active_requests = config.dns_queries_max;
    options
}
