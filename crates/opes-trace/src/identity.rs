//! Who decided: the text that a refusal carries (C-61; R4902-15). Reports have the same words (`opes-dsn`).

use std::fmt;

use crate::entry::Entry;
use crate::uri::AgentUri;

/// An OPES system and the trace id that leads its people to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The system.
    pub system: AgentUri,
    /// Opaque; the same as in `OPES-System`.
    pub id: String,
}

impl Identity {
    /// Of the system `system`, for the dialog or message `id`.
    pub fn new(system: AgentUri, id: impl Into<String>) -> Self {
        Self {
            system,
            id: id.into(),
        }
    }

    /// The text of a refusal with the identity in parentheses at its end: on its last line, or on a line of its own where it does not
    /// fit. `line_octets_max` are the octets that a line's text may have, `lines_max` the lines of a reply. Text is cut only if there is
    /// no room for another line. A refusal that has the identity already stays as it is.
    pub fn in_reply<'a>(
        &self,
        lines: impl IntoIterator<Item = &'a str>,
        line_octets_max: usize,
        lines_max: usize,
    ) -> Vec<String> {
        let mark = cut(&format!("({self})"), line_octets_max).to_owned();
        let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
        let last = lines.pop().unwrap_or_default();
        if last.ends_with(&mark) {
            lines.push(last);
        } else if last.is_empty() {
            lines.push(mark);
        } else if last.len() + 1 + mark.len() <= line_octets_max {
            lines.push(format!("{last} {mark}"));
        } else if lines.len() + 2 <= lines_max {
            lines.extend([last, mark]);
        } else {
            let room = line_octets_max.saturating_sub(1 + mark.len());
            lines.push(
                format!("{} {mark}", cut(&last, room))
                    .trim_start()
                    .to_owned(),
            );
        }
        lines
    }

    fn entry(&self) -> Entry {
        Entry::new(self.system.clone()).with("id", &self.id)
    }
}

/// `https://mail.example.com/opes; id=18f3a-2.1`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.entry().words().collect();
        f.write_str(&words.join("; "))
    }
}

/// The longest beginning of at most `octets` octets that ends between two characters.
fn cut(text: &str, octets: usize) -> &str {
    text.get(..text.floor_char_boundary(octets)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE_OCTETS_MAX: usize = 496;

    fn identity() -> Identity {
        let system = AgentUri::system("https://mail.example.com/opes").unwrap();
        Identity::new(system, "18f3a-2.1")
    }

    #[test]
    fn c_61_a_refusal_says_who_refused() {
        let identity = identity();
        assert_eq!(
            identity.in_reply(["Not from there"], LINE_OCTETS_MAX, 128),
            ["Not from there (https://mail.example.com/opes; id=18f3a-2.1)"]
        );
        assert_eq!(
            identity.in_reply(["a", &"b".repeat(LINE_OCTETS_MAX)], LINE_OCTETS_MAX, 128),
            [
                "a",
                &"b".repeat(LINE_OCTETS_MAX),
                "(https://mail.example.com/opes; id=18f3a-2.1)"
            ]
        );
        let full = identity.in_reply(["ä".repeat(248).as_str()], LINE_OCTETS_MAX, 1);
        assert_eq!(full.len(), 1);
        assert!(full[0].starts_with("ää") && full[0].ends_with("id=18f3a-2.1)"));
    }

    proptest! {
        #[test]
        fn lines_stay_within_their_limits_and_the_mark_comes_once(
            lines in prop::collection::vec("[ -~ä]{0,20}", 0..6),
            octets in 0_usize..80,
            lines_max in 1_usize..6,
        ) {
            let fitting: Vec<&str> = lines.iter().map(|line| cut(line, octets)).take(lines_max).collect();
            let marked = identity().in_reply(fitting.iter().copied(), octets, lines_max);
            prop_assert!(marked.len() <= lines_max && !marked.is_empty());
            prop_assert!(marked.iter().all(|line| line.len() <= octets));
            let again = identity().in_reply(marked.iter().map(String::as_str), octets, lines_max);
            prop_assert_eq!(again, marked);
        }
    }
}
