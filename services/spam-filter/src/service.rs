//! The callout service: the whole message to rspamd, its verdict to an answer.

use anyhow::{Context as _, bail};
use opes_callout_server::{Answer, Description, Message, Service};
use opes_http::Engine;
use opes_proto::smtp::ContextField;

use crate::config::Config;
use crate::question;
use crate::reply::Reply;

/// Annotation with the score, for later rules.
pub const SCORE_ANNOTATION: &str = "spam.score";
/// Annotation with rspamd's action, for later rules.
pub const ACTION_ANNOTATION: &str = "spam.action";

/// The spam filter.
#[derive(Debug, Clone)]
pub struct SpamFilter {
    config: Config,
    rspamd: Engine,
}

// === impl SpamFilter ===

impl SpamFilter {
    /// From the `config` of a `CalloutService`.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        let config = Config::from_json(json).context("spam-filter")?;
        let rspamd = config.engine().context("spam-filter")?;
        Ok(Self { config, rspamd })
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
        let Some(octets) = whole(message, self.config.message_size_max).await? else {
            return Ok(Answer::accept().reason("larger than messageSizeMax: not looked at"));
        };
        let forged = has_field(&octets, &self.config.header);
        let fields = question::fields(message.context());
        let asked = self.rspamd.ask("message/rfc822", &fields, octets);
        let reply = Reply::parse(&asked.await.context("rspamd")?)?;
        Ok(reply
            .answer(&self.config, forged)
            .annotate(SCORE_ANNOTATION, reply.score())
            .annotate(ACTION_ANNOTATION, reply.action())
            .reason(reply.reason()))
    }
}

/// `None`: larger than `max`.
async fn whole(message: &mut Message, max: usize) -> anyhow::Result<Option<Vec<u8>>> {
    let too_large = |octets: u64| octets > max as u64;
    let mut octets = Vec::new();
    while let Some(chunk) = message.chunk().await? {
        octets.extend_from_slice(&chunk);
        if too_large(octets.len() as u64) || message.size().is_some_and(too_large) {
            message.stop_receiving().await?;
            return Ok(None);
        }
    }
    if message.is_whole() != Some(true) {
        bail!("rspamd wants whole messages; the rule's `wants.content` must be all");
    }
    Ok(Some(octets))
}

fn has_field(octets: &[u8], name: &str) -> bool {
    let structure = opes_mime::scan(octets);
    let mut fields = structure.fields.iter();
    fields.any(|field| {
        let range = usize::try_from(field.name.start)
            .ok()
            .zip(usize::try_from(field.name.end).ok());
        let found = range.and_then(|(from, to)| octets.get(from..to));
        found.is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
    })
}
