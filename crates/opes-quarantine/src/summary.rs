//! From, Subject and Date of a message, for lists.

use mail_parser::{Address, MessageParser};

use crate::entry::{Summary, clean};

/// Octets of a message that are looked at.
pub(crate) const SUMMARY_OCTETS_MAX: usize = 64 * 1024;

/// Most octets of a decoded field.
const FIELD_OCTETS_MAX: usize = 256;

/// Of the first octets of a message; empty fields where there is nothing readable.
pub(crate) fn summary(head: &[u8]) -> Summary {
    let head = head.get(..SUMMARY_OCTETS_MAX).unwrap_or(head);
    let Some(message) = MessageParser::default().parse_headers(head) else {
        return Summary::default();
    };
    Summary {
        from: clean(
            &message.from().map(author).unwrap_or_default(),
            FIELD_OCTETS_MAX,
        ),
        subject: clean(message.subject().unwrap_or_default(), FIELD_OCTETS_MAX),
        date: message
            .date()
            .map(mail_parser::DateTime::to_rfc3339)
            .unwrap_or_default(),
    }
}

fn author(from: &Address<'_>) -> String {
    let Some(first) = from.first() else {
        return String::new();
    };
    match (first.name(), first.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (name, address) => name.or(address).unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encoded_words_are_decoded_and_control_characters_are_gone() {
        let head = b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nSubject: =?utf-8?q?a=1B[31mb=00c?=\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n\r\nx";
        let found = summary(head);
        assert_eq!(found.from, "Jürgen <j@example.org>");
        assert_eq!(found.subject, "a [31mb c");
        assert!(found.date.starts_with("1970-01-01T00:00:00"), "{found:?}");
    }

    proptest! {
        #[test]
        fn any_octets_give_a_bounded_summary(head: Vec<u8>) {
            let found = summary(&head);
            prop_assert!(found.subject.len() <= FIELD_OCTETS_MAX);
            prop_assert!(!found.from.chars().chain(found.subject.chars()).any(char::is_control));
        }
    }
}
