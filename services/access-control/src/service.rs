//! The callout service: from a command on its way to [`Facts`], from a [`Verdict`] to an answer.
//!
//! A command whose facts cannot be read, or a directory that cannot be asked, is an error, so that the failure policy of the
//! rule decides; nothing is let through because something was missing.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use opes_callout_server::{Command, CommandAnswer, Description, Service};
use opes_directory::Metrics;
use opes_proto::smtp::{Context, ContextField, Point};
use opes_smtp::command::{Command as Parsed, parse_line};

use crate::address::Address;
use crate::config::{Lookups, Source};
use crate::lookup::Answers;
use crate::policy::{Auth, Facts, Policy, Step};
use crate::verdict::Verdict;

/// Annotation with the name of the rule that allowed a command, for later rules to test.
pub const RULE_ANNOTATION: &str = "access-control.rule";

/// Access control as a callout service.
#[derive(Debug, Clone)]
pub struct AccessControl {
    source: Source,
    lookups: Lookups,
}

// === impl AccessControl ===

impl AccessControl {
    /// From the `config` of a `CalloutService`: `policyFile: PATH`, or a policy inline; and `lookups`.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        Self::with_metrics(json, &Metrics::default())
    }

    /// The same, with the metrics of look-ups where they are shown.
    pub fn with_metrics(json: &serde_json::Value, metrics: &Metrics) -> anyhow::Result<Self> {
        let (source, lookups) = Source::from_config(json, metrics).context("access-control")?;
        Ok(Self { source, lookups })
    }

    /// The same, from a YAML file.
    pub fn from_config_file(path: &Path, metrics: &Metrics) -> anyhow::Result<Self> {
        let place = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(place)?;
        let config = serde_saphyr::from_str(&text).with_context(place)?;
        Self::with_metrics(&config, metrics).with_context(place)
    }

    /// With the policy of `path`, which is read again when it changes.
    pub fn from_policy_file(path: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let lookups = Lookups::default();
        let source = Source::from_file(path.into(), &lookups).context("access-control")?;
        Ok(Self { source, lookups })
    }

    async fn judge(&self, command: &Command) -> anyhow::Result<Verdict> {
        if !is_decided_here(command.point) {
            return Ok(Verdict::Proceed(None));
        }
        let policy = self.source.policy();
        let facts = facts(command, &policy)?;
        // Ends, because each question is asked once, and each rule has one.
        let mut answers = Answers::new();
        loop {
            match policy.decide(&facts, &answers)? {
                Step::Decided(decision) => return Ok(Verdict::of(&decision, command.point)),
                Step::Ask(question) => {
                    let answer = self.lookups.ask(&question).await?;
                    answers.insert(question, answer);
                }
            }
        }
    }
}

impl Service for AccessControl {
    fn describe(&self) -> Description {
        // Not the recipients: the one in question stands in the line, and the list grows with every RCPT.
        Description::new(concat!("access-control/", env!("CARGO_PKG_VERSION"))).command_context([
            ContextField::Client,
            ContextField::Helo,
            ContextField::Tls,
            ContextField::Auth,
            ContextField::MailFrom,
        ])
    }

    async fn command(&self, command: Command) -> anyhow::Result<CommandAnswer> {
        Ok(match self.judge(&command).await? {
            Verdict::Proceed(None) => CommandAnswer::proceed(),
            Verdict::Proceed(Some(rule)) => {
                CommandAnswer::proceed().annotate(RULE_ANNOTATION, rule)
            }
            Verdict::Reply {
                code,
                enhanced,
                text,
                reason,
            } => {
                tracing::debug!(point = ?command.point, code, reason, "refused");
                CommandAnswer::reply(u32::from(code), &enhanced, text).reason(reason)
            }
        })
    }
}

fn is_decided_here(point: Point) -> bool {
    matches!(
        point,
        Point::Connect | Point::Helo | Point::Auth | Point::MailFrom | Point::RcptTo
    )
}

/// What is known once `command` has been said. From MAIL on, nothing before it is open any more: the client has had its
/// chance to say HELO, to start TLS, to authenticate.
fn facts<'a>(command: &'a Command, policy: &Policy) -> anyhow::Result<Facts<'a>> {
    let context = &command.context;
    let final_session = matches!(command.point, Point::MailFrom | Point::RcptTo);
    let encrypted = context.tls.is_some();
    let mut facts = Facts {
        client: client(context, policy)?,
        helo: (final_session || !context.helo.is_empty()).then_some(context.helo.as_str()),
        tls: (final_session || encrypted).then_some(encrypted),
        auth: match &context.auth {
            Some(auth) => Auth::Identity(&auth.identity),
            None if final_session => Auth::Anonymous,
            None => Auth::NotYet,
        },
        sender: None,
        recipient: None,
    };
    match command.point {
        // The context has the one before, if there was one.
        Point::Helo => facts.helo = Some(helo_of(&command.line)?),
        Point::MailFrom => facts.sender = Some(path_of(&command.line)?),
        Point::RcptTo => {
            facts.sender = Some(sender_of(context)?);
            facts.recipient = Some(path_of(&command.line)?);
        }
        _ => {}
    }
    Ok(facts)
}

fn client(context: &Context, policy: &Policy) -> anyhow::Result<Option<IpAddr>> {
    let ip = context
        .client
        .as_ref()
        .map(|client| client.ip.as_str())
        .unwrap_or_default();
    match ip.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) if policy.looks_at_client() => {
            bail!("the policy looks at the client, but its address `{ip}` is none")
        }
        Err(_) => Ok(None),
    }
}

fn sender_of(context: &Context) -> anyhow::Result<Address> {
    let sender = context
        .mail_from
        .as_ref()
        .context("RCPT came without the sender of MAIL")?;
    Ok(Address::new(&sender.address))
}

fn helo_of(line: &[u8]) -> anyhow::Result<&str> {
    let parsed = parse_line(line).context("the processor sent a malformed command")?;
    let Parsed::Hello { argument, .. } = parsed else {
        bail!("the processor sent a command that does not fit its point");
    };
    let line = std::str::from_utf8(line).context("the processor sent a malformed command")?;
    let from = line.rfind(&argument).unwrap_or_default();
    Ok(line.get(from..from + argument.len()).unwrap_or_default())
}

fn path_of(line: &[u8]) -> anyhow::Result<Address> {
    match parse_line(line).context("the processor sent a malformed command")? {
        Parsed::Mail { path, .. } => Ok(Address::new(path.as_str())),
        Parsed::Rcpt { path, .. } => Ok(Address::new(path.as_str())),
        _ => bail!("the processor sent a command that does not fit its point"),
    }
}
