//! One `CalloutService`.

use super::Report;
use crate::object::{CalloutService, CalloutServiceSpec, HumanDuration, TlsMode};
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
/// Most instances of a service.
const INSTANCES_MAX: u32 = 10_000;

pub(super) fn compile(service: &CalloutService, report: &mut Report<'_>) -> Service {
    let spec = &service.spec;
    check_pool(spec, report);
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
        max_transactions_per_connection: transactions,
        tls,
        server_name: server_name(spec, tls, report),
        idempotent: spec.idempotent,
        bypassable: spec.bypass.allowed,
        uri: uri(spec, report),
    }
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

fn check_pool(spec: &CalloutServiceSpec, report: &mut Report<'_>) {
    let pool = &spec.pool;
    if pool.min == 0 {
        let remedy = "write 1 or more";
        report.error(
            "spec.pool.min",
            "a service without instances fails every message",
            remedy,
        );
    }
    if pool.max < pool.min || pool.max > INSTANCES_MAX {
        let message = format!(
            "{} is not between min ({}) and {INSTANCES_MAX}",
            pool.max, pool.min
        );
        report.error("spec.pool.max", message, "");
    }
    if pool.target_in_flight == 0 {
        report.error(
            "spec.pool.targetInFlight",
            "0 would scale without end",
            "write 1 or more",
        );
    }
    if pool.pdb.min_available > pool.max {
        report.error("spec.pool.pdb.minAvailable", "is more than max", "");
    }
}

fn target(spec: &CalloutServiceSpec, report: &mut Report<'_>) -> Target {
    let given = [
        ("builtin", spec.builtin.is_some()),
        ("image", spec.image.is_some()),
        ("endpoint", spec.endpoint.is_some()),
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
        let message =
            format!("exactly one of builtin, image and endpoint is needed, found {found}");
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
    let endpoint = spec.endpoint.clone().unwrap_or_default();
    if !endpoint.is_empty() || given.contains(&"endpoint") {
        check_endpoint(&endpoint, report);
    }
    Target::Endpoint(endpoint)
}

fn check_endpoint(endpoint: &str, report: &mut Report<'_>) {
    let remedy = "write http://HOST:PORT, https://HOST:PORT or unix:/absolute/path";
    let why = match (endpoint.strip_prefix("unix:"), host_and_port(endpoint)) {
        (Some(path), _) if !path.starts_with('/') => "the path of the socket is not absolute",
        (Some(path), _) if path.contains('\0') => "the path of the socket is not a path",
        (Some(_), _) | (None, Ok(_)) => return,
        (None, Err(why)) => why,
    };
    report.error("spec.endpoint", format!("`{endpoint}`: {why}"), remedy);
}

/// Host and port of an `http://` or `https://` endpoint.
fn host_and_port(endpoint: &str) -> Result<(&str, u16), &'static str> {
    let rest = endpoint
        .strip_prefix("http://")
        .or_else(|| endpoint.strip_prefix("https://"))
        .ok_or("the scheme is not http, https or unix")?;
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
    let Some(endpoint) = &spec.endpoint else {
        return spec.transport.tls.unwrap_or(TlsMode::Mutual);
    };
    let local = endpoint.starts_with("unix:")
        || host_and_port(endpoint).is_ok_and(|(host, _)| is_loopback(host));
    let clear = endpoint.starts_with("http://") && host_and_port(endpoint).is_ok();
    match spec.transport.tls {
        Some(TlsMode::Mutual) if clear => {
            let remedy = "write https://, or transport: { tls: none }";
            report.error(
                "spec.endpoint",
                "http:// cannot be used with tls: mutual",
                remedy,
            );
        }
        None if clear && !local => {
            let message = "mail would leave this machine in the clear";
            let remedy = "write https://, or transport: { tls: none } if the network is trusted";
            report.error("spec.endpoint", message, remedy);
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
    let default = if local && !endpoint.starts_with("https://") {
        TlsMode::None
    } else {
        TlsMode::Mutual
    };
    spec.transport.tls.unwrap_or(default)
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
