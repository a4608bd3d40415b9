//! The callout service: the message as edits, commands refused where no repair is possible.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use opes_callout_server::{Answer, Command, CommandAnswer, Description, Message, Service};
use opes_mime::rope::Splice;
use opes_proto::smtp::{ContextField, Point};

use crate::commands::complaint;
use crate::config::Config;
use crate::normalise::{Facts, Normalised, normalise};

/// Annotation with what was repaired, words with commas; absent if nothing was.
pub const DONE_ANNOTATION: &str = "normalizer.done";

/// Edits of one answer; more are joined, with the octets between them.
const EDITS_MAX: usize = 2000;

/// Messages up to this size are looked at on the spot; larger ones on a thread that may block, octets.
const INLINE_OCTETS_MAX: usize = 256 * 1024;

/// Format normalisation as a callout service.
#[derive(Debug, Clone)]
pub struct Normalizer {
    config: Arc<Config>,
}

// === impl Normalizer ===

impl Normalizer {
    /// From the `config` of a `CalloutService`.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        let config = Arc::new(Config::from_json(json).context("normalizer")?);
        Ok(Self { config })
    }
}

impl Service for Normalizer {
    fn describe(&self) -> Description {
        // MAIL's parameters say whether header fields may be UTF-8.
        Description::new(concat!("normalizer/", env!("CARGO_PKG_VERSION")))
            .message_context([ContextField::MailFrom])
            .whole_content()
    }

    async fn command(&self, command: Command) -> anyhow::Result<CommandAnswer> {
        let wrong = complaint(&command.line);
        Ok(match (command.point, wrong) {
            (Point::MailFrom, Some(text)) => CommandAnswer::reply(553, "5.1.7", text),
            (Point::RcptTo, Some(text)) => CommandAnswer::reply(553, "5.1.3", text),
            _ => CommandAnswer::proceed(),
        })
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let Some(octets) = whole(message, self.config.message_size_max).await? else {
            return Ok(Answer::accept().reason("larger than messageSizeMax: not looked at"));
        };
        let from = message.context().mail_from.as_ref();
        let smtputf8 = from.is_some_and(|from| {
            let mut parameters = from.parameters.iter();
            parameters.any(|parameter| parameter.eq_ignore_ascii_case("SMTPUTF8"))
        });
        let config = Arc::clone(&self.config);
        let work = move || {
            let date = date(SystemTime::now());
            let facts = Facts {
                date: &date,
                smtputf8,
            };
            let normalised = normalise(&octets, &config, facts);
            normalised.map(|normalised| (normalised, octets))
        };
        let size = message.size().unwrap_or(u64::MAX);
        let normalised = if size <= INLINE_OCTETS_MAX as u64 {
            work()
        } else {
            tokio::task::spawn_blocking(work).await?
        };
        let (Normalised { edits, done }, octets) =
            normalised.context("the message would take too many repairs")?;
        if done.is_empty() {
            return Ok(Answer::accept());
        }
        let done = done.join(",");
        let answer = Answer::accept()
            .annotate(DONE_ANNOTATION, &done)
            .reason(done);
        let edits = joined(edits, &octets).into_iter();
        Ok(edits.fold(answer, |answer, edit| {
            answer.splice(edit.offset, edit.size, edit.replacement)
        }))
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
        bail!("only whole messages can be repaired; the rule's `wants.content` must be all");
    }
    Ok(Some(octets))
}

/// As few as there may be: neighbours become one edit, which has the octets between them in it.
fn joined(edits: Vec<Splice>, octets: &[u8]) -> Vec<Splice> {
    let group = edits.len().div_ceil(EDITS_MAX).max(1);
    if group == 1 {
        return edits;
    }
    let groups = edits.chunks(group).map(|group| {
        let mut text = Vec::new();
        let start = group.first().map_or(0, |edit| edit.offset);
        let mut at = start;
        for edit in group {
            text.extend_from_slice(between(octets, at, edit.offset));
            text.extend_from_slice(&edit.replacement);
            at = edit.offset + edit.size;
        }
        Splice {
            offset: start,
            size: at - start,
            replacement: text.into(),
        }
    });
    groups.collect()
}

fn between(octets: &[u8], from: u64, to: u64) -> &[u8] {
    let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    range
        .and_then(|(from, to)| octets.get(from..to))
        .unwrap_or_default()
}

/// RFC 5322 §3.3, in UTC.
fn date(now: SystemTime) -> String {
    /// The last second of the year 9999: the format has four digits for it.
    const MAX: Duration = Duration::from_secs(253_402_300_799);
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    httpdate::fmt_http_date(UNIX_EPOCH + since_epoch.min(MAX)).replace("GMT", "+0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_as_mail_has_it() {
        let at = UNIX_EPOCH + Duration::from_secs(1_732_424_730);
        assert_eq!(date(at), "Sun, 24 Nov 2024 05:05:30 +0000");
    }

    #[test]
    fn many_edits_become_few_that_say_the_same() {
        let octets = "ab".repeat(5000).into_bytes();
        let edits: Vec<_> = (0..5000)
            .map(|n| Splice {
                offset: n * 2,
                size: 1,
                replacement: "x".into(),
            })
            .collect();
        let few = joined(edits, &octets);
        assert!(few.len() <= EDITS_MAX, "{}", few.len());
        let rope = opes_mime::Rope::identity(octets.len() as u64)
            .splice_all(few)
            .unwrap();
        assert_eq!(rope.flatten(&octets), "xb".repeat(5000).into_bytes());
    }
}
