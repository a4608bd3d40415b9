//! Conditions: what is to be said, against what was said.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use opes_rules::Diagnostic;

/// Longest message, in octets.
const MESSAGE_OCTETS_MAX: usize = 2_048;

/// True, False or Unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It is so.
    True,
    /// It is not.
    False,
    /// Nobody knows.
    Unknown,
}

/// A condition that is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Type of the condition.
    pub type_: &'static str,
    /// Whether it is so.
    pub truth: Truth,
    /// For programs.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The message may stay as it is while nothing else changes: it tells of things that change all the time.
    pub sticky: bool,
}

// === impl Truth ===

impl Truth {
    /// As Kubernetes writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

// === impl Said ===

impl Said {
    /// With everything that has to be there.
    pub fn new(
        type_: &'static str,
        truth: Truth,
        reason: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            type_,
            truth,
            reason: reason.to_owned(),
            message: message.into(),
            sticky: false,
        }
    }

    /// Its message may stay.
    #[must_use]
    pub fn sticky(mut self) -> Self {
        self.sticky = true;
        self
    }

    /// The condition that follows `before`: the time moves only if the truth does.
    pub fn after(&self, before: Option<&Condition>, generation: i64, now: Timestamp) -> Condition {
        let same_truth = before.filter(|before| before.status == self.truth.name());
        let same = same_truth.filter(|before| {
            before.reason == self.reason && before.observed_generation == Some(generation)
        });
        let message = match same.filter(|_| self.sticky) {
            Some(before) => before.message.clone(),
            None => cut(&self.message, MESSAGE_OCTETS_MAX),
        };
        Condition {
            type_: self.type_.to_owned(),
            status: self.truth.name().to_owned(),
            reason: self.reason.clone(),
            message,
            observed_generation: Some(generation),
            last_transition_time: same_truth
                .map_or(Time(now), |before| before.last_transition_time.clone()),
        }
    }
}

/// One of them by its type.
pub fn find<'c>(conditions: &'c [Condition], type_: &str) -> Option<&'c Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Field, what is wrong, remedy.
pub fn message(found: &Diagnostic) -> String {
    let mut text = String::new();
    if !found.field.is_empty() {
        text.push_str(&found.field);
        text.push_str(": ");
    }
    text.push_str(&found.message);
    if !found.remedy.is_empty() {
        text.push_str("; ");
        text.push_str(&found.remedy);
    }
    text
}

/// At most so many octets.
pub fn cut(text: &str, most: usize) -> String {
    let end = text.floor_char_boundary(most.min(text.len()));
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(truth: Truth, message: &str) -> Said {
        Said::new("Accepted", truth, "Why", message)
    }

    #[test]
    fn the_time_moves_only_when_the_truth_does() {
        let (then, now) = (Timestamp::UNIX_EPOCH, Timestamp::new(1_000, 0).unwrap());
        let first = said(Truth::False, "a").after(None, 1, then);
        let second = said(Truth::False, "b").after(Some(&first), 2, now);
        assert_eq!(second.last_transition_time, first.last_transition_time);
        assert_eq!(
            (second.message.as_str(), second.observed_generation),
            ("b", Some(2))
        );
        let third = said(Truth::True, "b").after(Some(&second), 2, now);
        assert_eq!(third.last_transition_time, Time(now));
    }

    #[test]
    fn a_sticky_message_stays_until_something_else_changes() {
        let now = Timestamp::UNIX_EPOCH;
        let first = said(Truth::False, "1 of 3").sticky().after(None, 1, now);
        let second = said(Truth::False, "2 of 3")
            .sticky()
            .after(Some(&first), 1, now);
        assert_eq!(first, second);
        let third = said(Truth::False, "2 of 3")
            .sticky()
            .after(Some(&second), 2, now);
        assert_eq!(third.message, "2 of 3");
    }
}
