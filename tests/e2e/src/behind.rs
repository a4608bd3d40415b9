//! An edge before one next hop, in the test's own process, with a callout service behind one rule: what a test of a service needs.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use opes_callout_server::Service;
use opes_edge::config::{DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};

use crate::embedded::{Embedded, service};
use crate::eventually;
use crate::hop::{Arrival, Hop, Manners};
use crate::smtp::Dialog;

/// Sender of the messages here.
pub const ANN: &str = "ann@example.org";
/// Their recipient.
pub const BOB: &str = "bob@example.com";

/// See the module.
pub struct Behind {
    /// With a listener `mx` that takes mail for example.com.
    pub edge: Embedded,
    /// Where it delivers to.
    pub hop: Hop,
    _folder: tempfile::TempDir,
}

/// How the rule calls the service.
#[derive(Debug, Clone, Copy)]
pub struct Rule<'a> {
    /// Of the service.
    pub class: &'a str,
    /// Points, with commas.
    pub at: &'a str,
    /// Permissions, with commas.
    pub allow: &'a str,
    /// Of the rule.
    pub on_failure: &'a str,
    /// A YAML flow mapping; empty: none.
    pub parameters: &'a str,
}

impl Default for Rule<'_> {
    fn default() -> Self {
        Self {
            class: "adapt",
            at: "content",
            allow: "",
            on_failure: "tempfail",
            parameters: "{}",
        }
    }
}

impl Rule<'_> {
    /// Objects for a service at `target`, which is `http://HOST:PORT`. `name` is that of service and rule.
    pub fn objects(&self, name: &str, target: &str) -> String {
        let Self {
            class,
            at,
            allow,
            on_failure,
            parameters,
        } = self;
        format!(
            "---\napiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: {name} }}\nspec: {{ class: {class}, endpoint: '{target}', limits: {{ connectTimeout: 20s }} }}\n\
             ---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec:\n  at: [{at}]\n  callout: {{ serviceRef: {{ name: {name} }}, \
             wants: {{ content: all }}, allow: [{allow}], timeout: 20s, onFailure: {on_failure}, parameters: {parameters} }}\n"
        )
    }
}

impl Behind {
    /// With one service behind one rule.
    pub async fn one(tested: impl Service, rule: Rule<'_>) -> Result<Self> {
        let target = service(tested).await?;
        Self::rules(&rule.objects("tested", &target)).await
    }

    /// With these objects, and a listener that believes the PROXY protocol: for [`Self::send_from`].
    pub async fn proxied(rules: &str) -> Result<Self> {
        let loopback: IpNet = "127.0.0.0/8".parse()?;
        let believes = |config: &mut EdgeConfig| {
            for listener in &mut config.listeners {
                listener.proxy_from = vec![loopback];
            }
        };
        Self::configured(rules, believes).await
    }

    /// With these objects.
    pub async fn rules(rules: &str) -> Result<Self> {
        Self::configured(rules, |_| {}).await
    }

    /// With these objects, and the last word on the edge's configuration.
    pub async fn configured(rules: &str, change: impl FnOnce(&mut EdgeConfig)) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let hop = Hop::start(Manners::default()).await?;
        let listener = ListenerConfig::new("mx", "127.0.0.1:0".parse()?, ListenerProtocol::Smtp);
        let mut config = EdgeConfig {
            listeners: vec![listener],
            domains: vec!["example.com".into()],
            delivery: DeliveryConfig {
                next_hop: Some(hop.address.to_string()),
                ..DeliveryConfig::default()
            },
            ..EdgeConfig::new("mail.example.com", folder.path().join("spool"))
        };
        change(&mut config);
        Ok(Self {
            edge: Embedded::start(config, rules).await?,
            hop,
            _folder: folder,
        })
    }

    /// A session after EHLO.
    pub async fn dialog(&self) -> Result<Dialog> {
        Dialog::open(self.edge.address("mx")?, false).await
    }

    /// From [`ANN`] to [`BOB`]; the reply to the content.
    pub async fn send(&self, content: &[u8]) -> Result<String> {
        self.dialog().await?.message(ANN, &[BOB], content).await
    }

    /// From this client and this sender to [`BOB`]; the reply to the content.
    pub async fn send_from(&self, client: IpAddr, from: &str, content: &[u8]) -> Result<String> {
        let mut dialog = Dialog::open_from(self.edge.address("mx")?, client).await?;
        dialog.message(from, &[BOB], content).await
    }

    /// The messages with these fields, one each and in this order, as soon as so many were delivered, and there must be no more. Deliveries run
    /// side by side, so that the order of their arrival says nothing.
    pub async fn delivered<const N: usize>(&self, fields: [&str; N]) -> Result<[Arrival; N]> {
        eventually("delivered", || self.hop.arrivals().len() >= N).await;
        let arrivals = self.hop.arrivals();
        ensure!(arrivals.len() == N, "{} deliveries", arrivals.len());
        let mut found = Vec::with_capacity(N);
        for field in fields {
            let line = format!("\r\n{field}\r\n");
            let arrival = arrivals.iter().find(|arrival| {
                let content = &arrival.content;
                content
                    .windows(line.len())
                    .any(|window| window == line.as_bytes())
            });
            found.push(arrival.with_context(|| field.to_owned())?.clone());
        }
        found
            .try_into()
            .map_err(|_| anyhow::anyhow!("one for each field"))
    }

    /// What the last step of the last message came to.
    pub fn verdict(&self) -> Result<String> {
        let reports = self.edge.reports();
        let step = reports.last().and_then(|report| report.steps.last());
        Ok(step.context("no step was reported")?.verdict.clone())
    }
}
