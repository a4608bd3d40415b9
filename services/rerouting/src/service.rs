//! The callout service: looks recipients up in the map, at RCPT one by one, at later points all of them.
//!
//! A recipient that the map does not know goes on as it is. A command that cannot be read, or an entry that would make an
//! impossible address, is an error, so that the failure policy of the rule decides.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use opes_callout_server::{Answer, Command, CommandAnswer, Description, Message, Service};
use opes_proto::smtp::{ContextField, Point};
use opes_smtp::command::{Command as Parsed, parse_line};
use opes_smtp::grammar::ForwardPath;

use crate::config::Source;
use crate::verdict;

/// Rerouting as a callout service.
#[derive(Debug, Clone)]
pub struct Rerouting {
    source: Source,
}

// === impl Rerouting ===

impl Rerouting {
    /// From the `config` of a `CalloutService`: `mapFile: PATH`, or `map:` with the entries.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        let source = Source::from_config(json).context("rerouting")?;
        Ok(Self { source })
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
        let route = self.source.map().look_up(&path)?;
        Ok(route.map_or_else(CommandAnswer::proceed, |route| {
            verdict::command_answer(&route, &parameters)
        }))
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let map = self.source.map();
        let mut answer = Answer::accept();
        for recipient in &message.context().recipients {
            let path = ForwardPath::parse(&recipient.address)
                .context("the processor sent a malformed recipient")?;
            if let Some(route) = map.look_up(&path)? {
                answer = answer.recipient(verdict::recipient_change(&recipient.address, &route));
            }
        }
        Ok(answer)
    }
}
