//! What to do about findings: pure, so that every combination can be tested without a message on its way.
//!
//! Owns the texts. Keeps to what the rule allows: if a part may not be replaced, the message is refused, and if that is not
//! allowed either, quarantine is advised; if nothing of the kind is allowed, it fails, so that the rule's failure policy decides.

use crate::archive::Unseen;
use crate::config::{NotifyTo, OnUnscannable, OnViolation, Settings};
use crate::inspect::{Cause, Finding};

/// Longest name or reason that is shown in a reply or a header field, in characters; of a longer one the start and the end.
const SHOWN_CHARS_MAX: usize = 80;
const SHOWN_START_CHARS: usize = 30;

/// What the rule allows the filter to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "one per permission of the profile"
)]
pub struct Allowed {
    /// Header operations.
    pub header: bool,
    /// Subject mark.
    pub subject: bool,
    /// Replacing a part.
    pub replace_part: bool,
    /// Body mark.
    pub body: bool,
    /// Refusal, for good or for now.
    pub reject: bool,
    /// Quarantine advice.
    pub quarantine: bool,
    /// Notifications.
    pub notify: bool,
    /// Incident reports.
    pub report: bool,
}

/// Why a message could not be looked at completely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unscannable {
    /// Larger than `sizeMax`.
    TooLarge,
    /// Its structure goes beyond a limit.
    Structure,
    /// Something in it, for this reason.
    Part(String, Unseen),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Let it through.
    Accept,
    /// Replace these entities: path and text.
    Replace(Vec<(String, String)>),
    /// Reply with code, enhanced code and text; 4xx or 5xx.
    Refuse(u32, &'static str, String),
    /// Let it through with quarantine advice only.
    Quarantine,
}

/// Everything that goes into the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// To the message.
    pub action: Action,
    /// Mark for the subject.
    pub subject_mark: Option<String>,
    /// Mark for the text.
    pub body_mark: Option<String>,
    /// Field name and value to add.
    pub header: Option<(String, String)>,
    /// Reason for quarantine advice.
    pub quarantine: Option<String>,
    /// Whom to notify, and the text.
    pub notify: Vec<(NotifyTo, String)>,
    /// Incident report, JSON.
    pub incident: Option<String>,
    /// `clean`, `violation` or `unscannable`.
    pub label: &'static str,
    /// One line for people: why.
    pub reason: String,
}

/// The rule allows nothing that would keep the forbidden part from the recipient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "forbidden content found ({0}), but the rule allows neither replacePart nor reject nor quarantine; add one to its callout.allow"
)]
pub struct NothingAllowed(String);

/// Decides about a message with these findings.
pub fn decide(
    findings: &[Finding],
    settings: &Settings,
    allowed: Allowed,
) -> Result<Decision, NothingAllowed> {
    let (doubts, forbidden): (Vec<_>, Vec<_>) = findings
        .iter()
        .cloned()
        .partition(|finding| finding.cause.is_doubt());
    let Some(doubt) = doubts.first() else {
        return violation(&forbidden, settings, allowed);
    };
    // A text can take the place of a part, not of a message of which only the start was seen.
    let may_replace = doubts.iter().all(|doubt| !doubt.path.is_empty());
    match settings.on_unscannable {
        // What was seen counts all the same.
        OnUnscannable::Accept if !forbidden.is_empty() => violation(&forbidden, settings, allowed),
        OnUnscannable::Replace if allowed.replace_part && may_replace => {
            violation(&[forbidden, doubts].concat(), settings, allowed)
        }
        _ => unscannable(&why(doubt), settings, allowed),
    }
}

fn why(doubt: &Finding) -> Unscannable {
    match doubt.cause {
        Cause::Unseen(why) => Unscannable::Part(shown(&doubt.name), why),
        _ => Unscannable::Structure,
    }
}

fn violation(
    findings: &[Finding],
    settings: &Settings,
    allowed: Allowed,
) -> Result<Decision, NothingAllowed> {
    let Some(first) = findings.first() else {
        return Ok(clean(settings, allowed));
    };
    let reason = format!(
        "{} forbidden, first: {} {}",
        findings.len(),
        shown(&first.name),
        first.cause
    );
    let action =
        action(findings, settings, allowed).ok_or_else(|| NothingAllowed(reason.clone()))?;
    let replaced = matches!(action, Action::Replace(_));
    let done = match action {
        Action::Replace(_) => "replaced",
        Action::Refuse(..) => "refused",
        _ => "quarantined",
    };
    let mark =
        |text: &str, may: bool| (may && replaced && !text.is_empty()).then(|| text.to_owned());
    let value = format!(
        "{done}; count={}; cause={}",
        findings.len(),
        first.cause.label()
    );
    let wants_quarantine = settings.quarantine || action == Action::Quarantine;
    Ok(Decision {
        subject_mark: mark(&settings.subject_mark, allowed.subject),
        body_mark: mark(&settings.body_mark, allowed.body),
        header: header(settings, allowed, value),
        quarantine: (wants_quarantine && allowed.quarantine).then(|| reason.clone()),
        notify: notifications(findings, settings, allowed, done),
        incident: (settings.report && allowed.report).then(|| incident(findings, done)),
        label: "violation",
        action,
        reason,
    })
}

/// Decides about a message that was not looked at completely.
pub fn unscannable(
    why: &Unscannable,
    settings: &Settings,
    allowed: Allowed,
) -> Result<Decision, NothingAllowed> {
    let (code, enhanced, reason) = match why {
        Unscannable::TooLarge => (
            552,
            "5.3.4",
            "message is larger than the security filter looks at".to_owned(),
        ),
        Unscannable::Structure => (
            550,
            "5.6.0",
            "message structure goes beyond what the security filter looks at".to_owned(),
        ),
        Unscannable::Part(name, why) => {
            let text = format!("{name} cannot be looked at completely: {why}");
            match why {
                // Another time this machine may be faster.
                Unseen::Time(_) => (451, "4.3.1", text),
                Unseen::Scanner(_) => (552, "5.3.4", text),
                _ => (550, "5.6.0", text),
            }
        }
    };
    let action = match settings.on_unscannable {
        OnUnscannable::Accept => Some(Action::Accept),
        OnUnscannable::Reject | OnUnscannable::Replace if allowed.reject => {
            Some(Action::Refuse(code, enhanced, ascii(&reason)))
        }
        OnUnscannable::Tempfail if allowed.reject => {
            Some(Action::Refuse(451, "4.7.1", ascii(&reason)))
        }
        _ => allowed.quarantine.then_some(Action::Quarantine),
    };
    let action = action.ok_or_else(|| NothingAllowed(reason.clone()))?;
    let quarantine = (settings.quarantine || action == Action::Quarantine) && allowed.quarantine;
    Ok(Decision {
        action,
        subject_mark: None,
        body_mark: None,
        header: header(settings, allowed, "unscannable".to_owned()),
        quarantine: quarantine.then(|| reason.clone()),
        notify: Vec::new(),
        incident: None,
        label: "unscannable",
        reason,
    })
}

fn clean(settings: &Settings, allowed: Allowed) -> Decision {
    let value = settings.header_on_clean.then(|| "clean".to_owned());
    Decision {
        action: Action::Accept,
        subject_mark: None,
        body_mark: None,
        header: value.and_then(|value| header(settings, allowed, value)),
        quarantine: None,
        notify: Vec::new(),
        incident: None,
        label: "clean",
        reason: String::new(),
    }
}

fn action(findings: &[Finding], settings: &Settings, allowed: Allowed) -> Option<Action> {
    let replace = || {
        let text = |finding: &Finding| (finding.path.clone(), replacement(finding, settings));
        Action::Replace(findings.iter().map(text).collect())
    };
    match settings.on_violation {
        OnViolation::Replace if allowed.replace_part => Some(replace()),
        _ if allowed.reject => Some(refusal(findings)),
        _ if allowed.quarantine => Some(Action::Quarantine),
        // A rule that wants a refusal but allows only replacement still must not let the part through.
        OnViolation::Reject if allowed.replace_part => Some(replace()),
        _ => None,
    }
}

fn refusal(findings: &[Finding]) -> Action {
    let first = findings
        .first()
        .map(|finding| format!("{} {}", shown(&finding.name), finding.cause));
    let text = format!(
        "message refused by the security filter: {}",
        first.unwrap_or_default()
    );
    Action::Refuse(550, "5.7.1", ascii(&text))
}

fn replacement(finding: &Finding, settings: &Settings) -> String {
    // The reason first: a name may contain what looks like a placeholder.
    let text = settings
        .replacement_text
        .replace("{reason}", &finding.cause.to_string());
    text.replace("{name}", &shown(&finding.name))
}

fn header(settings: &Settings, allowed: Allowed, value: String) -> Option<(String, String)> {
    (allowed.header && !settings.header.is_empty()).then(|| (settings.header.clone(), value))
}

fn notifications(
    findings: &[Finding],
    settings: &Settings,
    allowed: Allowed,
    done: &str,
) -> Vec<(NotifyTo, String)> {
    if !allowed.notify {
        return Vec::new();
    }
    let lines = findings
        .iter()
        .map(|finding| format!("- {}: {}\n", shown(&finding.name), finding.cause));
    let text = format!(
        "The security filter has {done} parts of a message:\n\n{}",
        lines.collect::<String>()
    );
    settings
        .notify
        .iter()
        .map(|to| (*to, text.clone()))
        .collect()
}

fn incident(findings: &[Finding], done: &str) -> String {
    let parts: Vec<_> = findings
        .iter()
        .map(|finding| {
            serde_json::json!({
                "path": finding.path, "name": shown(&finding.name), "cause": finding.cause.label(), "detail": finding.cause.to_string()
            })
        })
        .collect();
    serde_json::json!({ "kind": "forbidden-content", "action": done, "parts": parts }).to_string()
}

/// A name as it may be shown: in quotes, one line, not endless; a part without a name is called so.
fn shown(name: &str) -> String {
    if name.is_empty() {
        return "(without a name)".to_owned();
    }
    let visible = |character: char| {
        if character.is_control() || is_direction(character) {
            '?'
        } else {
            character
        }
    };
    let count = name.chars().count();
    let characters = || name.chars().map(visible);
    if count <= SHOWN_CHARS_MAX {
        return format!("\"{}\"", characters().collect::<String>());
    }
    let start: String = characters().take(SHOWN_START_CHARS).collect();
    let end = SHOWN_CHARS_MAX - SHOWN_START_CHARS;
    let end: String = characters().skip(count - end).collect();
    format!("\"{start}...{end}\"")
}

/// Characters that reverse what follows on a screen.
fn is_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// For SMTP replies, RFC 5321 §4.2.
fn ascii(text: &str) -> String {
    text.chars()
        .map(|character| {
            if (' '..='~').contains(&character) {
                character
            } else {
                '?'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
