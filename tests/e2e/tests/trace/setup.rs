//! An edge with services that do what their rule's parameters say, and a next hop.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use opes_callout_server::{Answer, Command, CommandAnswer, Description, Message, Service};
use opes_e2e::embedded::{Embedded, service};
use opes_e2e::eventually;
use opes_e2e::hop::{Arrival, Hop, Manners};
use opes_e2e::smtp::Dialog;
use opes_e2e::trace::fields;
use opes_edge::config::{DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};

pub(crate) const MESSAGE: &[u8] = b"From: a@example.org\r\nSubject: a\r\n\r\nbody\r\n";
pub(crate) const SYSTEM: &str = "https://mail.example.com/opes";
pub(crate) const CLAIM: &str = "OPES-System: https://mail.example.com/opes; id=forged\r\n";

pub(crate) const BYPASSABLE: &str =
    ", bypass: { allowed: true, uri: 'https://translate.example.net/' }";

/// Does what the rule's parameters say.
struct Tested;

impl Service for Tested {
    fn describe(&self) -> Description {
        Description::new("tested").whole_content()
    }

    async fn command(&self, command: Command) -> Result<CommandAnswer> {
        Ok(if command.parameters.json.contains("refuse") {
            CommandAnswer::reply(550, "5.7.1", "Not from there")
        } else {
            CommandAnswer::proceed()
        })
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        let seen = message.read_all(1 << 20).await?;
        let parameters = message.parameters().json.clone();
        let answer = Answer::accept();
        Ok(if parameters.contains("refuse") {
            Answer::reject(550, "5.7.1", "Not this")
        } else if parameters.contains("delete") {
            answer
                .delete_headers("OPES-System")
                .delete_headers("OPES-Via")
        } else if parameters.contains("forge") {
            answer
                .add_header("OPES-Via", format!("{SYSTEM}/service/default/forged"))
                .append_header("opes-system", format!("{SYSTEM}; id=forged"))
        } else if parameters.contains("nothing") {
            answer
        } else {
            let first = seen.split(|octet| *octet == b'\n').next();
            let traced = first.is_some_and(|line| line.starts_with(b"OPES-System: "));
            answer.add_header("X-Seen", if traced { "traced" } else { "bare" })
        })
    }
}

pub(crate) struct Setup {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) edge: Embedded,
    pub(crate) hop: Hop,
}

/// `rules`: name, class of the service, point, what it does, more of the service's object.
pub(crate) async fn start(
    rules: &[(&str, &str, &str, &str, &str)],
    change: impl FnOnce(&mut EdgeConfig) -> Result<()>,
) -> Result<Setup> {
    let folder = tempfile::tempdir()?;
    let hop = Hop::start(Manners::default()).await?;
    let endpoint = service(Tested).await?;
    let objects = rules.iter().map(|(name, class, point, does, more)| {
        let allow = match *class {
            "adapt" => "header",
            "analyze" => "reject",
            _ => "",
        };
        format!(
            "---\napiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: {name} }}\n\
             spec: {{ class: {class}, endpoint: '{endpoint}', limits: {{ connectTimeout: 20s }}{more} }}\n\
             ---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec:\n  at: [{point}]\n  \
             callout: {{ serviceRef: {{ name: {name} }}, allow: [{allow}], parameters: {{ do: {does} }} }}\n"
        )
    });
    let mut config = EdgeConfig {
        listeners: vec![ListenerConfig::new(
            "mx",
            "127.0.0.1:0".parse()?,
            ListenerProtocol::Smtp,
        )],
        domains: vec!["example.com".into()],
        delivery: DeliveryConfig {
            next_hop: Some(hop.address.to_string()),
            ..DeliveryConfig::default()
        },
        ..EdgeConfig::new("mail.example.com", folder.path().join("spool"))
    };
    change(&mut config)?;
    let edge = Embedded::start(config, &objects.collect::<String>()).await?;
    Ok(Setup { folder, edge, hop })
}

impl Setup {
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.edge.address("mx")
    }

    /// Sends from the client that tests have, with what MAIL has behind the path.
    pub(crate) async fn send(&self, parameters: &str, content: &[u8]) -> Result<Arrival> {
        let before = self.hop.arrivals().len();
        let mut dialog = Dialog::open(self.address()?, false).await?;
        let mail = format!("MAIL FROM:<a@example.org>{parameters}");
        for command in [&mail, "RCPT TO:<b@example.com>"] {
            let reply = dialog.command(command).await?;
            ensure!(reply.starts_with("250"), "{command}: {reply}");
        }
        dialog.command("DATA").await?;
        dialog.send(content).await?;
        let reply = dialog.command(".").await?;
        ensure!(reply.starts_with("250"), "{reply}");
        self.arrived(before).await
    }

    pub(crate) async fn arrived(&self, before: usize) -> Result<Arrival> {
        eventually("delivered", || self.hop.arrivals().len() > before).await;
        let arrivals = self.hop.arrivals();
        arrivals.get(before).cloned().context("no arrival")
    }

    /// What the report says of the rule's step.
    pub(crate) fn verdict(&self, rule: &str) -> Result<String> {
        let reports = self.edge.reports();
        let report = reports.last().context("no report")?;
        let step = report.steps.iter().find(|step| step.rule == rule);
        Ok(step.context("no such step")?.verdict.clone())
    }
}

/// The one field of this name.
pub(crate) fn only(arrival: &Arrival, name: &str) -> Result<String> {
    let mut found = fields(&arrival.content, name);
    let text = String::from_utf8_lossy(&arrival.content);
    ensure!(found.len() == 1, "{} {name} fields in\n{text}", found.len());
    found.pop().context("no field")
}

/// Our one `OPES-System`; its trace id.
pub(crate) fn trace_id(arrival: &Arrival) -> Result<String> {
    let system = only(arrival, "OPES-System")?;
    let id = system
        .strip_prefix(&format!("{SYSTEM}; id="))
        .and_then(|rest| rest.split(';').next());
    Ok(id.with_context(|| system.clone())?.to_owned())
}
