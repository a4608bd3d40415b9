//! The callout service: the message to the engine, its judgement to an answer.

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use opes_callout_server::{Answer, Description, Message, Service};
use opes_http::Engine;
use opes_mime::{Scanner, Structure};
use opes_proto::smtp::ContextField;
use prometheus_client::registry::Registry;

use crate::config::{Config, EngineConfig, RspamdConfig};
use crate::metrics::Metrics;
use crate::own::visible::fields;
use crate::own::{Mail, Own};
use crate::question;
use crate::reply::Reply;
use crate::verdict::Judgement;

/// The spam filter.
#[derive(Debug, Clone)]
pub struct SpamFilter {
    config: Config,
    asked: Asked,
    metrics: Metrics,
}

/// Who looks.
#[derive(Debug, Clone)]
enum Asked {
    Rspamd(Engine, RspamdConfig),
    Own(Box<Own>),
}

/// What was read of a message.
struct Read {
    octets: Bytes,
    /// Of the message itself; nothing is said of its parts.
    header: Structure,
    end: End,
}

/// Was that all? If not: is the message larger than may be, or did the rule ask for less?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    TooLarge,
    Part,
}

// === impl SpamFilter ===

impl SpamFilter {
    /// From the `config` of a `CalloutService`.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        let config = Config::from_json(json).context("spam-filter")?;
        let metrics = Metrics::default();
        let asked = match &config.engine {
            EngineConfig::Rspamd(rspamd) => {
                let engine = rspamd.engine().context("spam-filter")?;
                Asked::Rspamd(engine, rspamd.clone())
            }
            EngineConfig::Own(own) => {
                let own = Own::new(own, metrics.clone());
                Asked::Own(Box::new(own.context("spam-filter: engine.own")?))
            }
        };
        Ok(Self {
            config,
            asked,
            metrics,
        })
    }

    /// Registers what it counts.
    pub fn declare(&self, registry: &mut Registry) {
        self.metrics.declare(registry);
    }
}

impl Service for SpamFilter {
    fn describe(&self) -> Description {
        Description::new(concat!("spam-filter/", env!("CARGO_PKG_VERSION")))
            .message_context([
                ContextField::Client,
                ContextField::Helo,
                ContextField::Tls,
                ContextField::Auth,
                ContextField::MailFrom,
                ContextField::Recipients,
            ])
            .whole_content()
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let read = read(message, self.config.message_size_max).await?;
        let forged = has_field(&read, &self.config.header);
        let judgement = match &self.asked {
            Asked::Rspamd(..) if read.end == End::TooLarge => {
                return Ok(Answer::accept().reason("larger than messageSizeMax: not looked at"));
            }
            Asked::Rspamd(engine, config) => rspamd(engine, config, message, read).await?,
            Asked::Own(own) => {
                let mail = Mail {
                    context: message.context(),
                    octets: read.octets,
                    structure: &read.header,
                    is_whole: read.end == End::Whole,
                };
                own.judge(mail).await?
            }
        };
        Ok(judgement.answer(&self.config, forged))
    }
}

async fn rspamd(
    engine: &Engine,
    config: &RspamdConfig,
    message: &Message,
    read: Read,
) -> anyhow::Result<Judgement> {
    if read.end == End::Part {
        bail!("rspamd wants whole messages; the rule's `wants.content` must be all");
    }
    let fields = question::fields(message.context());
    let asked = engine.ask("message/rfc822", &fields, read.octets);
    let reply = Reply::parse(&asked.await.context("rspamd")?)?;
    Ok(reply.judgement(config))
}

/// At most `max` octets and the rest of the fragment that goes beyond; of a message that is known to be larger, the header section.
async fn read(message: &mut Message, max: usize) -> anyhow::Result<Read> {
    let too_large = |octets: u64| octets > max as u64;
    let mut octets = BytesMut::new();
    let mut scanner = Scanner::new();
    let mut end = None;
    while let Some(chunk) = message.chunk().await? {
        octets.extend_from_slice(&chunk);
        if !scanner.header_complete() {
            scanner.push(&chunk);
        }
        let known = scanner.header_complete() && message.size().is_some_and(too_large);
        if known || too_large(octets.len() as u64) {
            message.stop_receiving().await?;
            end = Some(End::TooLarge);
        }
    }
    let whole = message.is_whole() == Some(true);
    Ok(Read {
        octets: octets.freeze(),
        header: scanner.finish(),
        end: end.unwrap_or(if whole { End::Whole } else { End::Part }),
    })
}

fn has_field(read: &Read, name: &str) -> bool {
    let mut fields = fields(&read.octets, &read.header);
    fields.any(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
}
