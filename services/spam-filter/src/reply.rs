//! rspamd's reply, read as a whole, and what it comes to.

use std::collections::BTreeMap;

use opes_callout_server::Answer;
use serde::Deserialize;

use crate::config::{Config, OnAction};

/// Fields that rspamd may have added.
const FIELDS_MAX: usize = 100;

/// Symbols that the log names.
const SYMBOLS_SHOWN: usize = 8;

/// Characters of a reply's text.
const TEXT_MAX: usize = 400;

/// Why a reply cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// Not JSON, or not of this form.
    #[error("rspamd's reply cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It says so itself.
    #[error("rspamd failed: {0}")]
    Failed(String),
    /// An action of a later version.
    #[error("rspamd's action `{0}` is not known here")]
    Action(String),
}

#[derive(Debug, Deserialize)]
struct Written {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    action: String,
    #[serde(default)]
    score: f64,
    #[serde(default)]
    required_score: f64,
    #[serde(default)]
    symbols: BTreeMap<String, Symbol>,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    messages: serde_json::Value,
    #[serde(default)]
    milter: Option<Milter>,
}

#[derive(Debug, Deserialize)]
struct Symbol {
    #[serde(default)]
    score: f64,
}

#[derive(Debug, Default, Deserialize)]
struct Milter {
    #[serde(default)]
    add_headers: BTreeMap<String, Added>,
    #[serde(default)]
    remove_headers: BTreeMap<String, i64>,
}

/// A value alone, one with its place, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Added {
    Value(String),
    Placed { value: String },
    Several(Vec<Added>),
}

/// What rspamd wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Nothing,
    Greylist,
    AddHeader,
    RewriteSubject,
    Reject,
    Discard,
    Quarantine,
}

/// Read and understood.
#[derive(Debug)]
pub(crate) struct Reply {
    written: Written,
    action: Action,
}

// === impl Reply ===

impl Reply {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ReplyError> {
        let written: Written = serde_json::from_slice(body)?;
        if let Some(error) = written.error {
            return Err(ReplyError::Failed(error));
        }
        let action = match written.action.as_str() {
            "no action" => Action::Nothing,
            "greylist" | "soft reject" => Action::Greylist,
            "add header" => Action::AddHeader,
            "rewrite subject" => Action::RewriteSubject,
            "reject" => Action::Reject,
            "discard" => Action::Discard,
            "quarantine" => Action::Quarantine,
            other => return Err(ReplyError::Action(other.to_owned())),
        };
        Ok(Self { written, action })
    }

    /// As rspamd calls it.
    pub(crate) fn action(&self) -> &str {
        &self.written.action
    }

    pub(crate) fn score(&self) -> String {
        format!("{:.2}", self.written.score)
    }

    /// `forged`: fields of our name that the message brought.
    pub(crate) fn answer(&self, config: &Config, forged: bool) -> Answer {
        let answer = match self.done(config) {
            Done::Refused(code, enhanced) => {
                let text = self.text(config);
                return if code < 500 {
                    Answer::tempfail(code, enhanced, text)
                } else {
                    Answer::reject(code, enhanced, text)
                };
            }
            Done::Discarded => return Answer::discard(),
            Done::Held => Answer::accept().quarantine("rspamd says so"),
            Done::Marked => self.marked(config),
            Done::Passed => Answer::accept(),
        };
        self.with_fields(answer, config, forged)
    }

    fn done(&self, config: &Config) -> Done {
        let on = |on: OnAction| match on {
            OnAction::Reject => Done::Refused(550, "5.7.1"),
            OnAction::Tempfail => Done::Refused(451, "4.7.1"),
            OnAction::Mark => Done::Marked,
            OnAction::Accept => Done::Passed,
        };
        match self.action {
            Action::Nothing => Done::Passed,
            Action::Greylist => on(config.on_greylist),
            Action::AddHeader | Action::RewriteSubject => Done::Marked,
            Action::Reject => on(config.on_reject),
            Action::Discard => Done::Discarded,
            Action::Quarantine => Done::Held,
        }
    }

    fn marked(&self, config: &Config) -> Answer {
        let answer = Answer::accept();
        let answer = match (&self.written.subject, config.subject_mark.is_empty()) {
            (Some(subject), _) if self.action == Action::RewriteSubject => {
                answer.replace_header("Subject", 0, opes_mime::words::encode_words(&line(subject)))
            }
            (_, false) => answer.mark_subject(&config.subject_mark),
            (_, true) => answer,
        };
        if config.spam_queue.is_empty() {
            return answer;
        }
        answer.quarantine_in(&config.spam_queue, format!("score {}", self.score()))
    }

    fn with_fields(&self, mut answer: Answer, config: &Config, forged: bool) -> Answer {
        let name = &config.header;
        if !name.is_empty() {
            if forged {
                answer = answer.delete_headers(name);
            }
            answer = answer.add_header(name, self.status());
        }
        let Some(milter) = &self.written.milter else {
            return answer;
        };
        for name in milter.remove_headers.keys().take(FIELDS_MAX) {
            answer = answer.delete_headers(name);
        }
        let added = milter.add_headers.iter();
        let values = added
            .flat_map(|(name, added)| added.values().into_iter().map(move |value| (name, value)));
        for (name, value) in values.take(FIELDS_MAX) {
            answer = answer.add_header(name, value.replace("\r\n", "\n").replace('\n', "\r\n"));
        }
        answer
    }

    /// `Yes, score=7.00 required=15.00 action="add header"`.
    fn status(&self) -> String {
        let word = match self.action {
            Action::Nothing | Action::Greylist => "No",
            _ => "Yes",
        };
        let Written {
            score,
            required_score,
            action,
            ..
        } = &self.written;
        format!("{word}, score={score:.2} required={required_score:.2} action=\"{action}\"")
    }

    fn text(&self, config: &Config) -> String {
        let said = self
            .written
            .messages
            .get("smtp_message")
            .and_then(serde_json::Value::as_str);
        match said.map(line) {
            Some(said) if !said.is_empty() => said,
            _ => line(&config.text),
        }
    }

    /// For logs: the symbols that counted most.
    pub(crate) fn reason(&self) -> String {
        let mut symbols: Vec<_> = self.written.symbols.iter().collect();
        symbols.sort_by(|(_, a), (_, b)| b.score.abs().total_cmp(&a.score.abs()));
        let shown = symbols.iter().take(SYMBOLS_SHOWN);
        let shown: Vec<_> = shown
            .map(|(name, symbol)| format!("{}({:.2})", line(name), symbol.score))
            .collect();
        format!(
            "{} {} {}",
            self.written.action,
            self.score(),
            shown.join(" ")
        )
    }
}

/// What becomes of the message.
enum Done {
    Passed,
    Marked,
    Held,
    Discarded,
    Refused(u32, &'static str),
}

// === impl Added ===

impl Added {
    fn values(&self) -> Vec<&str> {
        match self {
            Self::Value(value) | Self::Placed { value } => vec![value],
            Self::Several(several) => several.iter().flat_map(Self::values).collect(),
        }
    }
}

/// One line of US-ASCII.
fn line(text: &str) -> String {
    let shown = |c: char| match c {
        ' '..='~' => c,
        c if c.is_whitespace() => ' ',
        _ => '?',
    };
    text.trim().chars().take(TEXT_MAX).map(shown).collect()
}

#[cfg(test)]
mod tests;
