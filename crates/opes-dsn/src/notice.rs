//! Notifications: a text that a callout service wants somebody to read (RFC 4496 §5, RFC 3834).

use opes_mime::words::encode_words;

use crate::mime::{Part, is_plain};
use crate::{Author, Composed, DAEMON, date, field};

/// Longest subject, octets; services send more only by mistake.
pub const SUBJECT_OCTETS_MAX: usize = 200;

/// Longest text, octets.
pub const TEXT_OCTETS_MAX: usize = 64 * 1024;

/// Longest message id that is referred to, octets.
const MESSAGE_ID_OCTETS_MAX: usize = 250;

/// A notification to one address.
#[derive(Debug, Clone, Copy)]
pub struct Notice<'a> {
    /// Who writes.
    pub author: Author<'a>,
    /// Address without angle brackets.
    pub to: &'a str,
    /// Names this notification; unique.
    pub id: &'a str,
    /// Seconds since 1970.
    pub now: u64,
    /// Of the service; cut to [`SUBJECT_OCTETS_MAX`].
    pub subject: &'a str,
    /// Of the service; cut to [`TEXT_OCTETS_MAX`].
    pub text: &'a str,
    /// `Message-ID` of the message it is about, as it stands there.
    pub about: Option<&'a str>,
}

// === impl Notice ===

impl Notice<'_> {
    /// The message.
    pub fn compose(&self) -> Composed {
        let host = field::host(self.author.hostname);
        let to = field::address(self.to);
        let mut octets = format!(
            "From: Mail Service <{DAEMON}@{host}>\r\nTo: <{to}>\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: <{}@{host}>\r\n\
             Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n",
            subject(self.subject),
            date::date_time(self.now),
            field::id(self.id),
        )
        .into_bytes();
        if let Some(about) = self.about.and_then(message_id) {
            octets.extend_from_slice(
                format!("In-Reply-To: {about}\r\nReferences: {about}\r\n").as_bytes(),
            );
        }
        self.body().write_to(&mut octets);
        Composed {
            octets,
            smtputf8: !to.is_ascii(),
            body_8bit: false,
        }
    }

    fn body(&self) -> Part {
        let mut text = lines(field::cut(self.text, TEXT_OCTETS_MAX));
        text.push_str(&format!("\r\n-- \r\n{}\r\n", self.author.sentence()));
        let content_type = "text/plain; charset=utf-8";
        Part::encoded(content_type, text.as_bytes())
    }
}

/// Folded between encoded words, so that no line is long.
fn subject(text: &str) -> String {
    let text = field::shown(field::cut(text, SUBJECT_OCTETS_MAX));
    let text = text.trim();
    if text.is_empty() {
        return "Notification".to_owned();
    }
    // Something that looks like an encoded word would be shown as what it encodes.
    if text.is_ascii() && !text.contains("=?") {
        return text.to_owned();
    }
    encode_words(text).replace(' ', "\r\n ")
}

/// CRLF at the ends of lines and nowhere else; controls but TAB as `?`.
fn lines(text: &str) -> String {
    let mut lines = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        let visible = |c: char| if c.is_control() && c != '\t' { '?' } else { c };
        lines.extend(line.chars().map(visible));
        lines.push_str("\r\n");
    }
    lines
}

/// `<…>` of printable ASCII (RFC 5322 §3.6.4), if it is one.
fn message_id(text: &str) -> Option<&str> {
    let text = text.trim();
    let inner = text.strip_prefix('<')?.strip_suffix('>')?;
    let safe = |octet: u8| octet.is_ascii_graphic() && !matches!(octet, b'<' | b'>');
    let fits = inner.contains('@')
        && text.len() <= MESSAGE_ID_OCTETS_MAX
        && inner.bytes().all(safe)
        && is_plain(inner.as_bytes());
    fits.then_some(text)
}

#[cfg(test)]
mod tests {
    use mail_parser::MessageParser;
    use proptest::prelude::*;

    use super::*;

    fn notice<'a>(
        to: &'a str,
        subject: &'a str,
        text: &'a str,
        about: Option<&'a str>,
    ) -> Notice<'a> {
        Notice {
            author: Author {
                hostname: "mail.example.com",
                system: "https://mail.example.com/opes",
                trace: "18f3a-2",
            },
            to,
            id: "N1.0",
            now: 0,
            subject,
            text,
            about,
        }
    }

    #[test]
    fn a_notification_is_loop_proof_and_refers_to_its_message() {
        let notice = notice(
            "paul@example.com",
            "Virus found",
            "One\nTwo",
            Some("<1@example.org>"),
        );
        let text = String::from_utf8(notice.compose().octets).unwrap();
        assert_eq!(
            text,
            "From: Mail Service <MAILER-DAEMON@mail.example.com>\r\nTo: <paul@example.com>\r\nSubject: Virus found\r\n\
             Date: Thu, 1 Jan 1970 00:00:00 +0000\r\nMessage-ID: <N1.0@mail.example.com>\r\nAuto-Submitted: auto-generated\r\n\
             MIME-Version: 1.0\r\nIn-Reply-To: <1@example.org>\r\nReferences: <1@example.org>\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nOne\r\nTwo\r\n\r\n-- \r\n\
             This was written by the OPES mail system https://mail.example.com/opes. If you ask its operators, quote the reference 18f3a-2.\r\n"
        );
    }

    #[test]
    fn only_a_real_message_id_is_referred_to() {
        for (text, is_id) in [
            ("<a@example.org>", true),
            (" <a@example.org>\r\n", true),
            ("a@example.org", false),
            ("<a@example.org>\r\nX: y>", false),
            ("<a@b> <c@d>", false),
            ("<ä@example.org>", false),
        ] {
            assert_eq!(message_id(text).is_some(), is_id, "{text:?}");
        }
    }

    #[test]
    fn without_system_the_host_is_named() {
        let mut notice = notice("a@example.com", "", "", None);
        notice.author.system = "";
        let text = String::from_utf8(notice.compose().octets).unwrap();
        assert!(
            text.contains("by the mail system mail.example.com."),
            "{text}"
        );
        assert!(text.contains("Subject: Notification\r\n"), "{text}");
    }

    proptest! {
        #[test]
        fn whatever_a_service_says_it_stays_one_subject_and_one_text(
            to in "[^\\r\\n]{0,40}|\\PC{0,20}\r\n\\PC{0,20}",
            subject in "(\\PC|[\r\n\t\0]){0,120}",
            text in "(\\PC|[\r\n\t\0=.]){0,2000}",
            about in prop::option::of("(\\PC|[<>@\r\n]){0,40}"),
        ) {
            let composed = notice(&to, &subject, &text, about.as_deref()).compose();
            prop_assert!(is_plain(&composed.octets));
            let parsed = MessageParser::default().parse(&composed.octets).unwrap();
            let names: Vec<_> = parsed.headers().iter().map(|header| header.name.as_str().to_owned()).collect();
            let ours = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "In-Reply-To", "References",
                "Content-Type", "Content-Transfer-Encoding"];
            prop_assert!(names.iter().all(|name| ours.contains(&name.as_str())), "{:?}", names);
            let shown = field::shown(field::cut(&subject, SUBJECT_OCTETS_MAX));
            let shown = shown.trim();
            let expected = if shown.is_empty() { "Notification" } else { shown };
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            prop_assert_eq!(words(parsed.subject().unwrap_or_default()), words(expected));
            let body = parsed.body_text(0).unwrap();
            prop_assert!(body.starts_with(&lines(&text)), "{:?} {:?}", body, lines(&text));
        }
    }
}
