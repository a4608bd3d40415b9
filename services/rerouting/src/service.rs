//! The callout service: looks recipients up in the map or directory, at RCPT one by one, at later points all of them.
//!
//! A recipient that is not known goes on as it is, or is refused at RCPT. A command that cannot be read, an entry that would
//! make an impossible address, or a directory that cannot be asked, is an error, so that the failure policy of the rule decides.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, TryStreamExt as _};
use opes_callout_server::{Answer, Command, CommandAnswer, Description, Message, Service};
use opes_directory::Metrics;
use opes_proto::smtp::{ContextField, Point};
use opes_smtp::command::{Command as Parsed, parse_line};
use opes_smtp::grammar::ForwardPath;

use crate::config::Source;
use crate::directory::{Located, OnUnknown};
use crate::verdict;

/// Recipients of one message that are asked for at once.
const AT_ONCE_MAX: usize = 8;

/// Rerouting as a callout service.
#[derive(Debug, Clone)]
pub struct Rerouting {
    source: Source,
}

// === impl Rerouting ===

impl Rerouting {
    /// From the `config` of a `CalloutService`: `mapFile: PATH`, `map:` with the entries, or `directory:`.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        Self::with_metrics(json, Metrics::default())
    }

    /// The same, with the metrics of a directory where they are shown.
    pub fn with_metrics(json: &serde_json::Value, metrics: Metrics) -> anyhow::Result<Self> {
        let source = Source::from_config(json, metrics).context("rerouting")?;
        Ok(Self { source })
    }

    /// The same, from a YAML file.
    pub fn from_config_file(path: &Path, metrics: Metrics) -> anyhow::Result<Self> {
        let place = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(place)?;
        let config = serde_saphyr::from_str(&text).with_context(place)?;
        Self::with_metrics(&config, metrics).with_context(place)
    }

    /// With the map of `path`, which is read again when it changes.
    pub fn from_map_file(path: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let source = Source::from_file(path.into()).context("rerouting")?;
        Ok(Self { source })
    }
}

impl Service for Rerouting {
    fn describe(&self) -> Description {
        // At RCPT the line says all; later there is no line, only the context.
        Description::new(concat!("rerouting/", env!("CARGO_PKG_VERSION")))
            .message_context([ContextField::Recipients])
    }

    async fn command(&self, command: Command) -> anyhow::Result<CommandAnswer> {
        if command.point != Point::RcptTo {
            return Ok(CommandAnswer::proceed());
        }
        let parsed = parse_line(&command.line).context("the processor sent a malformed command")?;
        let Parsed::Rcpt { path, parameters } = parsed else {
            bail!("the processor sent a command that does not fit its point");
        };
        Ok(match self.source.locate(&path).await? {
            Located::At(route) => verdict::command_answer(&route, &parameters),
            Located::Unknown if self.source.on_unknown() == OnUnknown::Reject => {
                verdict::unknown_recipient()
            }
            Located::Here | Located::Unknown => CommandAnswer::proceed(),
        })
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let recipients = message.context().recipients.clone();
        let mut located = futures_util::stream::iter(recipients)
            .map(async |recipient| {
                let path = ForwardPath::parse(&recipient.address)
                    .context("the processor sent a malformed recipient")?;
                let located = self.source.locate(&path).await?;
                anyhow::Ok((recipient.address, located))
            })
            .buffered(AT_ONCE_MAX);
        let mut answer = Answer::accept();
        while let Some((address, located)) = located.try_next().await? {
            if let Located::At(route) = located {
                answer = answer.recipient(verdict::recipient_change(&address, &route));
            }
        }
        Ok(answer)
    }
}
