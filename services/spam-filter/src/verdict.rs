//! What becomes of a message, whichever engine looked at it: a judgement, and the answer that it comes to.

use opes_callout_server::Answer;

use crate::config::{Config, OnAction};

/// Annotation with the score, for later rules.
pub const SCORE_ANNOTATION: &str = "spam.score";
/// Annotation with the engine's action, for later rules.
pub const ACTION_ANNOTATION: &str = "spam.action";

/// Delivery not authorised, in general (RFC 3463 §3.8).
pub(crate) const POLICY: &str = "7.1";
/// Several checks of who the sender is have failed (RFC 7372 §3.3).
pub(crate) const AUTHENTICATION: &str = "7.26";

/// Something about the content, in general (RFC 3463 §3.7).
pub(crate) const CONTENT: &str = "6.0";

/// Characters of a reply's text.
const TEXT_MAX: usize = 400;

/// What becomes of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// Nothing.
    Passed,
    /// The mark; with `hold` the queue for spam, if there is one.
    Marked { hold: bool },
    /// Kept, for this reason.
    Held(&'static str),
    /// Answered 250, delivered to nobody.
    Discarded,
    /// What `onReject` says, with subject and detail of the enhanced code.
    Refused(&'static str),
    /// Refused for now, with the same.
    Later(&'static str),
    /// Refused for good, whatever `onReject` says.
    Never(&'static str),
}

/// What an engine found, and what it wants.
#[derive(Debug, Clone)]
pub(crate) struct Judgement {
    pub(crate) done: Done,
    /// As the engine calls it.
    pub(crate) action: String,
    pub(crate) score: f64,
    /// Value of the field `header`.
    pub(crate) status: String,
    /// In place of the one with the mark.
    pub(crate) subject: Option<String>,
    /// Of a refusal, in place of the configured one.
    pub(crate) text: Option<String>,
    /// Fields that go: all of that name, or one, counted from the top.
    pub(crate) removed: Vec<(String, Option<u32>)>,
    /// Fields that come; the last one stands topmost.
    pub(crate) added: Vec<(String, String)>,
    /// Besides score and action.
    pub(crate) annotations: Vec<(&'static str, String)>,
    /// For logs.
    pub(crate) reason: String,
}

// === impl Done ===

impl Done {
    pub(crate) fn on(on: OnAction, detail: &'static str) -> Self {
        match on {
            OnAction::Reject => Self::Never(detail),
            OnAction::Tempfail => Self::Later(detail),
            OnAction::Mark => Self::Marked { hold: true },
            OnAction::Accept => Self::Passed,
        }
    }
}

// === impl Judgement ===

impl Judgement {
    pub(crate) fn new(done: Done, action: &str, score: f64, status: String) -> Self {
        Self {
            done,
            action: action.to_owned(),
            score,
            status,
            subject: None,
            text: None,
            removed: Vec::new(),
            added: Vec::new(),
            annotations: Vec::new(),
            reason: String::new(),
        }
    }

    /// `forged`: the message brought fields of the name `header`.
    pub(crate) fn answer(&self, config: &Config, forged: bool) -> Answer {
        let answer = match self.done {
            Done::Refused(detail) => self.done(Done::on(config.on_reject, detail), config, forged),
            done => self.done(done, config, forged),
        };
        let answer = answer
            .annotate(SCORE_ANNOTATION, format!("{:.2}", self.score))
            .annotate(ACTION_ANNOTATION, line(&self.action))
            .reason(self.reason.clone());
        let annotations = self.annotations.iter();
        annotations.fold(answer, |answer, (key, value)| {
            answer.annotate(*key, value.clone())
        })
    }

    fn done(&self, done: Done, config: &Config, forged: bool) -> Answer {
        let answer = match done {
            Done::Refused(detail) | Done::Never(detail) => {
                return Answer::reject(550, &format!("5.{detail}"), self.text(config));
            }
            Done::Later(detail) => {
                return Answer::tempfail(451, &format!("4.{detail}"), self.text(config));
            }
            Done::Discarded => return Answer::discard(),
            Done::Held(reason) => Answer::accept().quarantine(reason),
            Done::Marked { hold } => self.marked(config, hold),
            Done::Passed => Answer::accept(),
        };
        self.with_fields(answer, config, forged)
    }

    fn marked(&self, config: &Config, hold: bool) -> Answer {
        let answer = Answer::accept();
        let answer = match (&self.subject, config.subject_mark.is_empty()) {
            (Some(subject), _) => {
                answer.replace_header("Subject", 0, opes_mime::words::encode_words(subject))
            }
            (None, false) => answer.mark_subject(&config.subject_mark),
            (None, true) => answer,
        };
        if !hold || config.spam_queue.is_empty() {
            return answer;
        }
        answer.quarantine_in(&config.spam_queue, format!("score {:.2}", self.score))
    }

    fn with_fields(&self, mut answer: Answer, config: &Config, forged: bool) -> Answer {
        let name = &config.header;
        if !name.is_empty() {
            if forged {
                answer = answer.delete_headers(name);
            }
            answer = answer.add_header(name, self.status.clone());
        }
        for (name, index) in &self.removed {
            answer = match index {
                Some(index) => answer.delete_header(name, *index),
                None => answer.delete_headers(name),
            };
        }
        for (name, value) in &self.added {
            answer = answer.add_header(name, value.clone());
        }
        answer
    }

    fn text(&self, config: &Config) -> String {
        self.text.clone().unwrap_or_else(|| line(&config.text))
    }
}

/// One line of US-ASCII.
pub(crate) fn line(text: &str) -> String {
    let shown = |c: char| match c {
        ' '..='~' => c,
        c if c.is_whitespace() => ' ',
        _ => '?',
    };
    text.trim().chars().take(TEXT_MAX).map(shown).collect()
}
