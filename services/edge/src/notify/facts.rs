//! What the header section says about answering a message (RFC 3834 §2, RFC 2369, RFC 2919).

use opes_content::View;

use crate::edits;
use crate::header::HeaderFields;

/// Fields that only mailing lists write.
const LIST_FIELDS: [&str; 8] = [
    "List-Id",
    "List-Help",
    "List-Subscribe",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Post",
    "List-Owner",
    "List-Archive",
];

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MessageFacts {
    /// `Auto-Submitted` is there and is not `no`.
    pub(crate) automatic: bool,
    /// It went to many: `Precedence` of mass mail, or a field of mailing lists.
    pub(crate) mass: bool,
    pub(crate) message_id: Option<String>,
}

// === impl MessageFacts ===

impl MessageFacts {
    /// Of a message as its client sent it. One whose header section cannot be read counts as automatic: silence is the safe side.
    pub(crate) async fn read(original: &View) -> Self {
        match edits::scan(original, true).await {
            Ok((structure, header)) => Self::of(&HeaderFields::new(&structure, &header)),
            Err(error) => {
                tracing::warn!(%error, "a header section cannot be read; nobody is notified of its message");
                Self {
                    automatic: true,
                    ..Self::default()
                }
            }
        }
    }

    fn of(header: &HeaderFields<'_>) -> Self {
        let says =
            |name: &str, is: fn(&str) -> bool| header.values(name).any(|value| is(&word(value)));
        Self {
            automatic: says("Auto-Submitted", |word| word != "no"),
            mass: says("Precedence", |word| {
                matches!(word, "bulk" | "list" | "junk")
            }) || LIST_FIELDS
                .iter()
                .any(|name| header.values(name).next().is_some()),
            message_id: header
                .values("Message-ID")
                .next()
                .map(|value| String::from_utf8_lossy(value).trim().to_owned()),
        }
    }
}

/// The first word of a value in lower case, without what may follow it (RFC 3834 §5: comments and parameters).
fn word(value: &[u8]) -> String {
    let value = String::from_utf8_lossy(value).trim().to_ascii_lowercase();
    let end = value.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    value
        .get(..end.unwrap_or(value.len()))
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(header: &str) -> MessageFacts {
        let message = format!("{header}\r\n\r\n");
        let structure = opes_mime::scan(message.as_bytes());
        MessageFacts::of(&HeaderFields::new(&structure, message.as_bytes()))
    }

    #[test]
    fn mail_that_must_not_be_answered_is_known() {
        for (header, automatic, mass) in [
            ("Subject: hello", false, false),
            ("Auto-Submitted: no", false, false),
            ("auto-submitted: No (really)", false, false),
            ("Auto-Submitted: auto-generated; owner=x", true, false),
            ("Auto-Submitted:\r\n auto-replied", true, false),
            (
                "Auto-Submitted: no\r\nAuto-Submitted: auto-replied",
                true,
                false,
            ),
            ("Auto-Submitted:", true, false),
            ("Precedence: bulk", false, true),
            ("Precedence: JUNK", false, true),
            ("Precedence: first-class", false, false),
            ("List-Id: <x.example.org>", false, true),
            ("LIST-UNSUBSCRIBE: <mailto:x@example.org>", false, true),
            ("Listless: x", false, false),
        ] {
            let facts = facts(header);
            assert_eq!((facts.automatic, facts.mass), (automatic, mass), "{header}");
        }
        assert_eq!(
            facts("Message-ID:  <1@example.org>").message_id.as_deref(),
            Some("<1@example.org>")
        );
    }
}
