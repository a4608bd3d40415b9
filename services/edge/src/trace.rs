//! Trace and bypass at the edge (RFC 3897, RFC 4902): what is written into messages and refusals, and whose bypass request counts.
//!
//! The edge alone writes trace: `OPES-System` goes in front of the mail data before any service sees it, `OPES-Via` on top when all have
//! returned (`seal`). Services have no say in either. Decisions: docs/adr/0008-trace-and-bypass.md.

mod calls;
mod metrics;
mod seal;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use opes_content::{ContentError, View};
use opes_rules::RoutingTable;
use opes_smtp::limits::{BYPASS_KEYWORD, REPLY_LINES_MAX};
use opes_smtp::reply::Reply;
use opes_trace::{
    AgentUri, Bypass, BypassMark, BypassRequest, BypassSyntax, HeaderTrace, Identity, Ran,
    SystemTrace, UriError, Via,
};

use crate::config::{BypassConfig, EdgeConfig};
use crate::dialog::Dialog;

use seal::read_header;

pub(crate) use calls::Calls;
pub(crate) use metrics::TraceMetrics;
pub(crate) use seal::{Pass, SealError, Sealed, seal};

/// Reason in the trace: whoever asked may not.
const REASON_UNAUTHORIZED: &str = "unauthorized";
/// Reason in the trace: the request cannot be read.
const REASON_SYNTAX: &str = "syntax";

/// Name and policy of one edge.
#[derive(Debug)]
pub(crate) struct Tracer {
    system: AgentUri,
    processor: AgentUri,
    bypass: Option<BypassConfig>,
}

/// URIs of the services of one routing table, by name (`namespace/name`).
#[derive(Debug, Default)]
pub(crate) struct Agents(BTreeMap<String, AgentUri>);

/// What a sender asked to have left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// By somebody who may. A service that does not allow it runs all the same.
    pub(crate) granted: Option<Arc<Bypass>>,
    /// Why nothing of it counts.
    pub(crate) refused: Option<&'static str>,
}

// === impl Tracer ===

impl Tracer {
    pub(crate) fn new(config: &EdgeConfig) -> Result<Self, UriError> {
        let system = AgentUri::system(&config.system)?;
        Ok(Self {
            processor: system.child(&["processor", &config.hostname])?,
            system,
            bypass: config.bypass.clone(),
        })
    }

    /// `reply`, which a rule caused, with system and trace id in it (R4902-15).
    pub(crate) fn refusal(&self, reply: &Reply, id: &str) -> Reply {
        let identity = Identity::new(self.system.clone(), id);
        let lines = identity.in_reply(reply.lines(), reply.text_octets_max(), REPLY_LINES_MAX);
        reply.with_text(lines.join("\n"))
    }

    /// `OPES-System` of one message: the first octets of the original, so that no service sees a message without it (R4902-10). Nothing if
    /// there are no rules: then no OPES system handles the message.
    pub(crate) fn first_octets(&self, id: &str, table: &RoutingTable) -> Bytes {
        if table.rules.is_empty() {
            return Bytes::new();
        }
        let trace = SystemTrace {
            system: &self.system,
            id,
            rules: &table.revision,
        };
        trace.field().into()
    }

    /// May this client have services left out?
    pub(crate) fn may_bypass(&self, client: IpAddr, identity: Option<&str>) -> bool {
        let Some(config) = &self.bypass else {
            return false;
        };
        let named = |identity: &str| {
            let mut named = config.identities.iter();
            named.any(|named| named == "*" || named == identity)
        };
        identity.is_some_and(named) || contains(&config.networks, client)
    }

    /// As [`Tracer::may_bypass`], for the client of `dialog`.
    pub(crate) fn may_bypass_in(&self, dialog: &Dialog) -> bool {
        let identity = dialog.auth.as_ref().map(|auth| auth.identity.as_str());
        self.may_bypass(dialog.client.ip(), identity)
    }

    /// What MAIL asked to have left out, if its client may ask.
    pub(crate) fn granted(&self, dialog: &Dialog, agents: &Agents) -> Option<Arc<Bypass>> {
        if self.bypass.is_none() || !self.may_bypass_in(dialog) {
            return None;
        }
        Self::asked(agents, true, dialog.mail_parameters(), None).granted
    }

    /// The same with what the header section of `view`, which is complete, asks for.
    pub(crate) async fn granted_with_header(
        &self,
        dialog: &Dialog,
        agents: &Agents,
        view: &View,
    ) -> Result<Option<Arc<Bypass>>, ContentError> {
        let header = read_header(view, 0).await?;
        let request = HeaderTrace::scan(&header).bypass_request(&header);
        let asked = Self::asked(agents, true, dialog.mail_parameters(), request);
        Ok(asked.granted)
    }

    /// What the parameters of MAIL and the header section ask for, as far as they are known.
    pub(crate) fn asked(
        agents: &Agents,
        may: bool,
        parameters: &[String],
        header: Option<Result<BypassRequest, BypassSyntax>>,
    ) -> Asked {
        let requests = [parameter(parameters), header];
        let mut readable = requests.into_iter().flatten().peekable();
        if readable.peek().is_none() {
            return Asked::default();
        }
        let request = readable.filter_map(Result::ok).reduce(BypassRequest::and);
        match request {
            _ if !may => Asked::refused(REASON_UNAUTHORIZED),
            None => Asked::refused(REASON_SYNTAX),
            Some(request) => Asked {
                granted: Some(Arc::new(agents.resolve(&request))),
                refused: None,
            },
        }
    }

    /// `OPES-Via` of one copy. `ran` and `bypassed` are services by name, in the order in which they count.
    pub(crate) fn via(
        &self,
        id: &str,
        agents: &Agents,
        asked: &Asked,
        ran: &[&str],
        bypassed: &[&str],
    ) -> String {
        let mut services: Vec<Ran<'_>> = Vec::new();
        let granted = asked.granted.as_deref();
        let ran = agents
            .named(ran)
            .map(|(name, service)| Ran::in_spite_of(granted, name, service));
        let bypassed = agents.named(bypassed).map(|(_, service)| Ran {
            service,
            bypass: Some(BypassMark::Granted),
        });
        for service in ran.chain(bypassed) {
            if !services.contains(&service) {
                services.push(service);
            }
        }
        let via = Via {
            processor: &self.processor,
            id,
            refused: asked.refused,
            services,
        };
        via.field()
    }
}

// === impl Agents ===

impl Agents {
    /// The URI that a service's object states, or one below the system's.
    pub(crate) fn new(table: &RoutingTable, system: &AgentUri) -> Self {
        let uri = |name: &str| {
            let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
            let below = system.child(&["service", namespace, name]);
            below.unwrap_or_else(|_too_long| system.clone())
        };
        let services = table.services.values();
        let named = services.map(|service| {
            let stated = service.uri.clone();
            (
                service.name.clone(),
                stated.unwrap_or_else(|| uri(&service.name)),
            )
        });
        Self(named.collect())
    }

    fn resolve(&self, request: &BypassRequest) -> Bypass {
        request.resolve(&self.0.iter().map(|(name, uri)| (name.as_str(), uri)))
    }

    fn named<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a AgentUri)> {
        names
            .iter()
            .filter_map(|name| Some((*name, self.0.get(*name)?)))
    }
}

// === impl Asked ===

impl Asked {
    fn refused(reason: &'static str) -> Self {
        Self {
            granted: None,
            refused: Some(reason),
        }
    }
}

/// Is the bypass request in the parameters of MAIL one that can be read, if there is one?
pub(crate) fn is_readable(parameters: &[String]) -> bool {
    !matches!(parameter(parameters), Some(Err(_)))
}

fn parameter(parameters: &[String]) -> Option<Result<BypassRequest, BypassSyntax>> {
    let mut pairs = parameters
        .iter()
        .filter_map(|parameter| parameter.split_once('='));
    let (_, value) = pairs.find(|(keyword, _)| keyword.eq_ignore_ascii_case(BYPASS_KEYWORD))?;
    Some(BypassRequest::parse_parameter(value))
}

fn contains(networks: &[ipnet::IpNet], client: IpAddr) -> bool {
    let client = client.to_canonical();
    networks.iter().any(|network| network.contains(&client))
}

#[cfg(test)]
mod tests;
