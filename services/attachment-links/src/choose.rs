//! Which parts may be moved, by what the scanner says of them at the end of their header section.
//!
//! Never touched: text for reading, pictures in it (unless told to), and everything below what would be invalid or unreadable afterwards:
//! signed, encrypted and report multiparts, and messages in messages.

use opes_mime::{Encoding, Part, Structure};

use crate::config::Settings;

/// Multiparts of which no part may be taken out: signed and encrypted ones (RFC 1847), reports (RFC 6522), and the halves of Macintosh files (RFC 1740).
const WHOLE: [&str; 4] = [
    "multipart/signed",
    "multipart/encrypted",
    "multipart/report",
    "multipart/appledouble",
];

/// Types that mail readers need in the message: the cryptographic ones of RFC 8551 and RFC 3156.
const NEEDED: [&str; 7] = [
    "application/pkcs7-mime",
    "application/x-pkcs7-mime",
    "application/pkcs7-signature",
    "application/x-pkcs7-signature",
    "application/pgp-encrypted",
    "application/pgp-signature",
    "application/pgp-keys",
];

/// May this entity be moved? Its size is not known yet.
pub fn may_be_moved(structure: &Structure, index: usize, settings: &Settings) -> bool {
    let Some(part) = structure.parts.get(index) else {
        return false;
    };
    let kind = part.content_type.as_str();
    let is_chosen = settings.types.iter().any(|entry| fits(entry, kind))
        && !settings
            .types_excluded
            .iter()
            .any(|entry| fits(entry, kind));
    is_chosen
        && !part.is_container()
        && part.encoding != Encoding::Other
        && !NEEDED.contains(&kind)
        && !is_for_reading(part)
        && (settings.inline || !is_in_the_text(structure, index))
        && !is_untouchable(structure, index)
}

/// Is it below something that has to stay as it is?
pub fn is_untouchable(structure: &Structure, index: usize) -> bool {
    above(structure, index)
        .any(|part| part.is_message() || WHOLE.contains(&part.content_type.as_str()))
}

/// A text that is shown, not a file of text.
fn is_for_reading(part: &Part) -> bool {
    matches!(
        part.content_type.as_str(),
        "text/plain" | "text/html" | "text/enriched"
    ) && part.disposition != "attachment"
        && part.name.is_empty()
}

/// A picture, or something else that a text refers to by `cid:` (RFC 2387, RFC 2392).
fn is_in_the_text(structure: &Structure, index: usize) -> bool {
    let part = structure.parts.get(index);
    let is_inline_picture = part.is_some_and(|part| {
        part.content_type.starts_with("image/") && part.disposition == "inline"
    });
    is_inline_picture
        || above(structure, index).any(|part| part.content_type == "multipart/related")
}

fn above(structure: &Structure, index: usize) -> impl Iterator<Item = &Part> {
    let part = structure.parts.get(index);
    std::iter::successors(part, move |part| structure.parts.get(part.parent?)).skip(1)
}

/// `application/pdf`, `image/*` or `*/*`.
fn fits(entry: &str, kind: &str) -> bool {
    match entry.strip_suffix("/*") {
        Some("*") => true,
        Some(entry) => kind
            .split_once('/')
            .is_some_and(|(kind, _)| kind.eq_ignore_ascii_case(entry)),
        None => entry.eq_ignore_ascii_case(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "Content-Type: multipart/mixed; boundary=o\r\n\r\n\
        --o\r\nContent-Type: multipart/related; boundary=r\r\n\r\n--r\r\nContent-Type: text/html\r\n\r\nx\r\n\
        --r\r\nContent-Type: image/png\r\nContent-Disposition: attachment\r\n\r\nx\r\n--r--\r\n\
        --o\r\nContent-Type: image/png\r\nContent-Disposition: inline\r\n\r\nx\r\n\
        --o\r\nContent-Type: image/png; name=a.png\r\n\r\nx\r\n\
        --o\r\nContent-Type: text/plain; name=a.log\r\n\r\nx\r\n\
        --o\r\nContent-Type: text/plain\r\n\r\nx\r\n\
        --o\r\nContent-Type: Application/PDF\r\n\r\nx\r\n\
        --o\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: x-uue\r\n\r\nx\r\n\
        --o\r\nContent-Type: application/pkcs7-mime\r\n\r\nx\r\n\
        --o\r\nContent-Type: text/calendar\r\n\r\nx\r\n\
        --o\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: application/pdf\r\n\r\nx\r\n\
        --o\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\nContent-Type: application/pdf\r\n\r\nx\r\n--s--\r\n\
        --o--\r\n";

    fn moved(settings: &Settings) -> Vec<String> {
        let structure = opes_mime::scan(MESSAGE.as_bytes());
        let indices = 0..structure.parts.len();
        let moved = indices.filter(|index| may_be_moved(&structure, *index, settings));
        moved
            .filter_map(|index| structure.parts.get(index))
            .map(|part| part.path.clone())
            .collect()
    }

    #[test]
    fn attachments_are_moved_and_what_is_part_of_the_text_or_signed_stays() {
        assert_eq!(moved(&Settings::default()), ["3", "4", "6"]);
    }

    #[test]
    fn settings_say_more_or_less() {
        let inline = Settings {
            inline: true,
            ..Settings::default()
        };
        assert_eq!(moved(&inline), ["1.2", "2", "3", "4", "6"]);
        let pictures = Settings {
            types: vec!["IMAGE/*".to_owned()],
            ..Settings::default()
        };
        assert_eq!(moved(&pictures), ["3"]);
        let others = Settings {
            types_excluded: vec!["image/*".to_owned(), "application/pdf".to_owned()],
            ..Settings::default()
        };
        assert_eq!(moved(&others), ["4", "9"]);
    }
}
