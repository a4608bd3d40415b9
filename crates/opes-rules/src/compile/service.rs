//! One `CalloutService`.

mod pool;

use super::Report;
use crate::object::{CalloutService, CalloutServiceSpec, HumanDuration, ServiceLimits, TlsMode};
use crate::table::{Service, Target};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use opes_trace::AgentUri;

/// Longest connect or idle timeout: a client waits 5 minutes for most replies (RFC 5321 §4.5.3.2).
const TIMEOUT_MAX: Duration = Duration::from_mins(10);
/// Shortest timeout that a network can meet.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// Most transactions on one connection.
const TRANSACTIONS_MAX: u32 = 65_536;
/// Most endpoints written out; more are better found by a name.
const ENDPOINTS_MAX: usize = 256;
/// Most transactions open or waiting per service and edge.
const IN_FLIGHT_MAX: u32 = 1_000_000;

pub(super) fn compile(service: &CalloutService, report: &mut Report<'_>) -> Service {
    let spec = &service.spec;
    pool::check(spec, report);
    let limits = &spec.limits;
    let transactions = spec.transport.max_transactions_per_connection;
    if !(1..=TRANSACTIONS_MAX).contains(&transactions) {
        let message = format!("{transactions} is not between 1 and {TRANSACTIONS_MAX}");
        report.error("spec.transport.maxTransactionsPerConnection", message, "");
    }
    let tls = tls(spec, report);
    Service {
        name: service.metadata.qualified_name(),
        class: spec.class,
        target: target(spec, report),
        connect_timeout: timeout("spec.limits.connectTimeout", limits.connect_timeout, report),
        idle_timeout: timeout("spec.limits.idleTimeout", limits.idle_timeout, report),
        max_in_flight: in_flight(limits, report),
        max_queued: queued(limits, report),
        max_transactions_per_connection: transactions,
        tls,
        server_name: server_name(spec, tls, report),
        idempotent: spec.idempotent,
        bypassable: spec.bypass.allowed,
        uri: uri(spec, report),
    }
}

fn in_flight(limits: &ServiceLimits, report: &mut Report<'_>) -> u32 {
    let most = limits.max_in_flight;
    if !(1..=IN_FLIGHT_MAX).contains(&most) {
        let message = format!("{most} is not between 1 and {IN_FLIGHT_MAX}");
        report.error("spec.limits.maxInFlight", message, "");
    }
    most
}

fn queued(limits: &ServiceLimits, report: &mut Report<'_>) -> u32 {
    let most = limits.max_queued;
    if most > IN_FLIGHT_MAX {
        let message = format!("{most} is not between 0 and {IN_FLIGHT_MAX}");
        report.error("spec.limits.maxQueued", message, "");
    }
    most
}

/// Its name in trace fields.
fn uri(spec: &CalloutServiceSpec, report: &mut Report<'_>) -> Option<AgentUri> {
    let written = spec.bypass.uri.as_ref()?;
    let parsed = AgentUri::parse(written);
    if let Err(error) = &parsed {
        let remedy = "or leave it out: the edge makes one below its system's";
        report.error("spec.bypass.uri", format!("`{written}` {error}"), remedy);
    }
    parsed.ok()
}

/// Checks a timeout's bounds.
pub(super) fn timeout(field: &str, written: HumanDuration, report: &mut Report<'_>) -> Duration {
    if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&written.0) {
        let message = format!("{written} is not between 10ms and 600s");
        report.error(
            field,
            message,
            "clients give up waiting for a reply after some minutes",
        );
    }
    written.0
}

fn target(spec: &CalloutServiceSpec, report: &mut Report<'_>) -> Target {
    let given = [
        ("builtin", spec.builtin.is_some()),
        ("image", spec.image.is_some()),
        ("endpoint", spec.endpoint.is_some()),
        ("endpoints", spec.endpoints.is_some()),
    ];
    let given: Vec<&str> = given
        .iter()
        .filter(|(_, is)| *is)
        .map(|(name, _)| *name)
        .collect();
    if given.len() != 1 {
        let found = if given.is_empty() {
            "none".to_owned()
        } else {
            given.join(" and ")
        };
        let message = format!(
            "exactly one of builtin, image, endpoint and endpoints is needed, found {found}"
        );
        report.error("spec", message, "say where the service is");
    }
    if let Some(builtin) = &spec.builtin {
        if !super::is_object_name(&builtin.name) {
            let message = format!("`{}` is not the name of a service", builtin.name);
            report.error("spec.builtin.name", message, "");
        }
        let config = serde_json::Value::Object(builtin.config.clone());
        return Target::Builtin {
            name: builtin.name.clone(),
            config,
        };
    }
    if let Some(image) = &spec.image {
        if image.reference.is_empty() || image.reference.contains(char::is_whitespace) {
            let remedy = "write registry.example.com/filter:1.2";
            report.error("spec.image.reference", "is not an image reference", remedy);
        }
        if image.port == 0 {
            report.error("spec.image.port", "0 is not a port", "");
        }
        return Target::Image(image.clone());
    }
    endpoints(spec, report);
    Target::Endpoints(
        written(spec)
            .map(|(_, endpoint)| endpoint.clone())
            .collect(),
    )
}

/// The endpoints with the fields that they stand in.
fn written(spec: &CalloutServiceSpec) -> impl Iterator<Item = (String, &String)> {
    let one = spec
        .endpoint
        .iter()
        .map(|e| ("spec.endpoint".to_owned(), e));
    let list = spec.endpoints.iter().flatten().enumerate();
    one.chain(list.map(|(at, e)| (format!("spec.endpoints[{at}]"), e)))
}

fn endpoints(spec: &CalloutServiceSpec, report: &mut Report<'_>) {
    for (field, endpoint) in written(spec) {
        check_endpoint(&field, endpoint, report);
    }
    let Some(list) = &spec.endpoints else { return };
    if list.is_empty() || list.len() > ENDPOINTS_MAX {
        let message = format!(
            "{} endpoints are not between 1 and {ENDPOINTS_MAX}",
            list.len()
        );
        let remedy = "write one address per instance, or dns://NAME:PORT for all of a name";
        report.error("spec.endpoints", message, remedy);
    }
    for (at, endpoint) in list.iter().enumerate() {
        if list.iter().take(at).any(|earlier| earlier == endpoint) {
            let message = format!("`{endpoint}` stands there twice");
            report.error(
                format!("spec.endpoints[{at}]"),
                message,
                "remove one of them",
            );
        }
    }
}

fn check_endpoint(field: &str, endpoint: &str, report: &mut Report<'_>) {
    let remedy =
        "write http://HOST:PORT, https://HOST:PORT, dns://NAME:PORT or unix:/absolute/path";
    let why = match (endpoint.strip_prefix("unix:"), host_and_port(endpoint)) {
        (Some(path), _) if !path.starts_with('/') => "the path of the socket is not absolute",
        (Some(path), _) if path.contains('\0') => "the path of the socket is not a path",
        (Some(_), _) | (None, Ok(_)) => return,
        (None, Err(why)) => why,
    };
    report.error(field, format!("`{endpoint}`: {why}"), remedy);
}

/// Host and port of an `http://`, `https://` or `dns://` endpoint.
fn host_and_port(endpoint: &str) -> Result<(&str, u16), &'static str> {
    let rest = endpoint
        .strip_prefix("http://")
        .or_else(|| endpoint.strip_prefix("https://"))
        .or_else(|| endpoint.strip_prefix("dns://"))
        .ok_or("the scheme is not http, https, dns or unix")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = authority.rsplit_once(':').ok_or("the port is missing")?;
    let port: u16 = port
        .parse()
        .map_err(|_| "the port is not a number up to 65535")?;
    if port == 0 {
        return Err("port 0 cannot be called");
    }
    if is_host(host) {
        Ok((host, port))
    } else {
        Err("the host is not a name or an address")
    }
}

/// A host name or an address, an IPv6 one in brackets.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address
            .strip_suffix(']')
            .is_some_and(|a| a.parse::<Ipv6Addr>().is_ok());
    }
    is_host_name(host)
}

/// A host name (RFC 1123 §2.1) or an IPv4 address.
pub(super) fn is_host_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= super::NAME_OCTETS_MAX
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
}

/// TLS unless the octets stay on this machine or somebody has said that they may be read.
fn tls(spec: &CalloutServiceSpec, report: &mut Report<'_>) -> TlsMode {
    let mut all_local = true;
    for (field, endpoint) in written(spec) {
        check_tls(spec.transport.tls, &field, endpoint, report);
        all_local &= stays_here(endpoint);
    }
    let default = if all_local && written(spec).next().is_some() {
        TlsMode::None
    } else {
        TlsMode::Mutual
    };
    spec.transport.tls.unwrap_or(default)
}

/// In the clear, and on this machine only. Nobody knows what a name is found to be later on.
fn stays_here(endpoint: &str) -> bool {
    let tcp = endpoint.starts_with("http://");
    let loopback = host_and_port(endpoint).is_ok_and(|(host, _)| is_loopback(host));
    endpoint.starts_with("unix:") || (tcp && loopback)
}

fn check_tls(mode: Option<TlsMode>, field: &str, endpoint: &str, report: &mut Report<'_>) {
    let clear = endpoint.starts_with("http://") && host_and_port(endpoint).is_ok();
    match mode {
        Some(TlsMode::Mutual) if clear => {
            let remedy = "write https://, or transport: { tls: none }";
            report.error(field, "http:// cannot be used with tls: mutual", remedy);
        }
        None if clear && !stays_here(endpoint) => {
            let message = "mail would leave this machine in the clear";
            let remedy = "write https://, or transport: { tls: none } if the network is trusted";
            report.error(field, message, remedy);
        }
        Some(TlsMode::Mutual) if endpoint.starts_with("unix:") => {
            let remedy = "leave it out: the socket's file mode says who may call";
            report.error("spec.transport.tls", "a Unix socket has no TLS", remedy);
        }
        Some(TlsMode::None) if endpoint.starts_with("https://") => {
            report.error(
                "spec.transport.tls",
                "none cannot be used with https://",
                "write http://",
            );
        }
        _ => {}
    }
}

/// The name to check in place of the endpoint's host.
fn server_name(spec: &CalloutServiceSpec, tls: TlsMode, report: &mut Report<'_>) -> Option<String> {
    let name = spec.transport.server_name.clone()?;
    let field = "spec.transport.serverName";
    if tls == TlsMode::None {
        let remedy = "leave it out, or write https:// and tls: mutual";
        report.error(field, "there is no certificate without TLS", remedy);
    } else if !is_host_name(&name) && name.parse::<IpAddr>().is_err() {
        let message = format!("`{name}` is neither a host name nor an address");
        report.error(field, message, "write filter.example.com");
    }
    Some(name)
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
