//! rspamd's reply, read as a whole, and what it comes to.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::RspamdConfig;
use crate::verdict::{Done, Judgement, POLICY, line};

/// Fields that rspamd may have added.
const FIELDS_MAX: usize = 100;

/// Symbols that the log names.
const SYMBOLS_SHOWN: usize = 8;

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
    fn action(&self) -> &str {
        &self.written.action
    }

    /// What it comes to.
    pub(crate) fn judgement(&self, config: &RspamdConfig) -> Judgement {
        let subject = match (&self.written.subject, self.action) {
            (Some(subject), Action::RewriteSubject) => Some(line(subject)),
            _ => None,
        };
        let done = match self.action {
            Action::Nothing => Done::Passed,
            Action::Greylist => Done::on(config.on_greylist, POLICY),
            Action::AddHeader | Action::RewriteSubject => Done::Marked { hold: true },
            Action::Reject => Done::Refused(POLICY),
            Action::Discard => Done::Discarded,
            Action::Quarantine => Done::Held("rspamd says so"),
        };
        let mut judgement = Judgement {
            subject,
            text: self.text(),
            ..Judgement::new(done, self.action(), self.written.score, self.status())
        };
        if let Some(milter) = &self.written.milter {
            milter.changes(&mut judgement);
        }
        judgement.reason = self.reason();
        judgement
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

    fn text(&self) -> Option<String> {
        let said = self.written.messages.get("smtp_message")?.as_str()?;
        Some(line(said)).filter(|said| !said.is_empty())
    }

    /// For logs: the symbols that counted most.
    fn reason(&self) -> String {
        let mut symbols: Vec<_> = self.written.symbols.iter().collect();
        symbols.sort_by(|(_, a), (_, b)| b.score.abs().total_cmp(&a.score.abs()));
        let shown = symbols.iter().take(SYMBOLS_SHOWN);
        let shown: Vec<_> = shown
            .map(|(name, symbol)| format!("{}({:.2})", line(name), symbol.score))
            .collect();
        format!(
            "{} {:.2} {}",
            self.written.action,
            self.written.score,
            shown.join(" ")
        )
    }
}

// === impl Milter ===

impl Milter {
    fn changes(&self, judgement: &mut Judgement) {
        let removed = self.remove_headers.keys().take(FIELDS_MAX);
        judgement.removed = removed.map(|name| (name.clone(), None)).collect();
        let added = self.add_headers.iter();
        let values = added
            .flat_map(|(name, added)| added.values().into_iter().map(move |value| (name, value)));
        for (name, value) in values.take(FIELDS_MAX) {
            let value = value.replace("\r\n", "\n").replace('\n', "\r\n");
            judgement.added.push((name.clone(), value));
        }
    }
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

#[cfg(test)]
mod tests;
