//! The callout service: lists at MAIL and RCPT, words at the content.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use opes_callout_server::{
    Answer, Command, CommandAnswer, Description, GroupParameters, Message, Service,
};
use opes_proto::smtp::Point;
use opes_smtp::command::{Command as Parsed, parse_line};

use crate::config::{Config, Place};
use crate::text::readable;

/// Annotation with the entry that was found.
pub const MATCH_ANNOTATION: &str = "content-block.match";

/// Most sets of rule parameters kept compiled.
const PARAMETERS_MAX: usize = 1024;

/// Messages up to this size are looked at on the spot; larger ones on a thread that may block, octets.
const INLINE_OCTETS_MAX: usize = 256 * 1024;

/// Content block as a callout service.
#[derive(Debug)]
pub struct ContentBlock {
    config: Arc<Config>,
    /// Compiled parameters of rules, by their JSON text.
    by_parameters: Mutex<HashMap<String, Arc<Config>>>,
}

// === impl ContentBlock ===

impl ContentBlock {
    /// From the `config` of a `CalloutService`.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        Ok(Self {
            config: Arc::new(Config::from_json(json).context("content-block")?),
            by_parameters: Mutex::default(),
        })
    }

    /// The configuration for a rule with these parameters.
    fn config(&self, parameters: &GroupParameters) -> anyhow::Result<Arc<Config>> {
        if matches!(parameters.json.trim(), "" | "{}" | "null") {
            return Ok(Arc::clone(&self.config));
        }
        let compiled = self.by_parameters.lock();
        let mut compiled = compiled.unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = compiled.get(&parameters.json) {
            return Ok(Arc::clone(config));
        }
        let config = self.config.with_parameters(&parameters.json);
        let config =
            Arc::new(config.with_context(|| format!("parameters of rule {}", parameters.rule))?);
        if compiled.len() >= PARAMETERS_MAX {
            compiled.clear();
        }
        compiled.insert(parameters.json.clone(), Arc::clone(&config));
        Ok(config)
    }
}

impl Service for ContentBlock {
    fn describe(&self) -> Description {
        // The line says all at MAIL and RCPT.
        Description::new(concat!("content-block/", env!("CARGO_PKG_VERSION"))).whole_content()
    }

    async fn command(&self, command: Command) -> anyhow::Result<CommandAnswer> {
        if !matches!(command.point, Point::MailFrom | Point::RcptTo) {
            return Ok(CommandAnswer::proceed());
        }
        let config = self.config(&command.parameters)?;
        let parsed = parse_line(&command.line).context("the processor sent a malformed command")?;
        let found = match &parsed {
            Parsed::Mail { path, .. } => config.senders.find(path.as_str()),
            Parsed::Rcpt { path, .. } => config.recipients.find(path.as_str()),
            _ => bail!("the processor sent a command that does not fit its point"),
        };
        Ok(match found {
            Some(entry) => {
                let (code, enhanced, text) = config.reply();
                CommandAnswer::reply(code, enhanced, text).reason(format!("on the list as {entry}"))
            }
            None => CommandAnswer::proceed(),
        })
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let config = self.config(message.parameters())?;
        if config.words.is_empty() {
            message.stop_receiving().await?;
            return Ok(Answer::accept());
        }
        let octets = start(message, config.look_octets_max()).await?;
        let found = if octets.len() <= INLINE_OCTETS_MAX {
            look(&octets, &config)
        } else {
            let config = Arc::clone(&config);
            tokio::task::spawn_blocking(move || look(&octets, &config)).await?
        };
        Ok(match found {
            Some((place, entry)) => refusal(&config)
                .annotate(MATCH_ANNOTATION, &entry)
                .reason(format!("`{entry}` in the {place}")),
            None => Answer::accept(),
        })
    }
}

/// The first octets of the message; the rest is not asked for.
async fn start(message: &mut Message, max: usize) -> anyhow::Result<Vec<u8>> {
    let mut octets = Vec::new();
    while let Some(chunk) = message.chunk().await? {
        let room = max - octets.len();
        octets.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if octets.len() == max {
            message.stop_receiving().await?;
            break;
        }
    }
    Ok(octets)
}

/// Where what was found.
fn look(octets: &[u8], config: &Config) -> Option<(&'static str, String)> {
    let read = readable(octets, &opes_mime::scan(octets), octets.len());
    let places = [
        (Place::Subject, "subject", read.subjects),
        (Place::Text, "text", read.texts),
    ];
    places
        .into_iter()
        .filter(|(place, ..)| config.looks_at(*place))
        .find_map(|(_, name, texts)| {
            let found = texts.iter().find_map(|text| config.words.find(text))?;
            Some((name, found.entry))
        })
}

fn refusal(config: &Config) -> Answer {
    match config.reply() {
        (code, enhanced, text) if code < 500 => Answer::tempfail(code, enhanced, text),
        (code, enhanced, text) => Answer::reject(code, enhanced, text),
    }
}
