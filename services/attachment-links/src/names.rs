//! File names from mail: as they may be shown, and as they may be proposed for saving (RFC 6266 §4.3, RFC 8187).

/// Longest name that is shown, in characters and in octets.
const SHOWN_CHARS_MAX: usize = 60;
const SHOWN_OCTETS_MAX: usize = 160;
/// Longest name for saving, octets: file systems end at 255, and a browser may append a number.
const FILE_OCTETS_MAX: usize = 200;
/// What a part without a name is saved as.
const NAMELESS: &str = "attachment";

/// A name on one line, not endless, with nothing that reverses what follows it on a screen. The end counts: it says what the file is.
pub(crate) fn shown(name: &str) -> String {
    let name = file(name);
    let count = name.chars().count();
    if count <= SHOWN_CHARS_MAX && name.len() <= SHOWN_OCTETS_MAX {
        return name;
    }
    let mut end = name.as_str();
    while end.chars().count() >= SHOWN_CHARS_MAX || end.len() > SHOWN_OCTETS_MAX - '…'.len_utf8()
    {
        let mut rest = end.chars();
        rest.next();
        end = rest.as_str();
    }
    format!("…{end}")
}

/// A name that is a name and no path, on any system.
pub(crate) fn file(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept = last
        .chars()
        .filter(|c| !c.is_control() && !is_invisible(*c));
    let plain = |c: char| {
        if matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*') {
            '_'
        } else {
            c
        }
    };
    let name: String = kept.map(plain).collect();
    // Windows drops dots and blanks at the end; at the beginning a dot hides the file.
    let name = name.trim_matches(|c: char| c == '.' || c.is_whitespace());
    let start = name.ceil_char_boundary(name.len().saturating_sub(FILE_OCTETS_MAX));
    match name.get(start..).unwrap_or_default() {
        "" => NAMELESS.to_owned(),
        name => name.to_owned(),
    }
}

/// A media type from mail, which can be anything, as US-ASCII.
pub(crate) fn media_type(kind: &str) -> String {
    let graphic = kind.chars().filter(char::is_ascii_graphic);
    graphic.take(SHOWN_CHARS_MAX).collect()
}

/// Characters that reverse or hide what is around them on a screen.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// `attachment` with the name for old and for new readers.
pub(crate) fn content_disposition(name: &str) -> String {
    let name = file(name);
    let ascii: String = name
        .chars()
        .map(|c| if is_quotable(c) { c } else { '_' })
        .collect();
    let mut field = format!("attachment; filename=\"{ascii}\"");
    if ascii != name {
        field.push_str("; filename*=UTF-8''");
        for octet in name.bytes() {
            match octet {
                // attr-char of RFC 8187 §3.2.1
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                    field.push(char::from(octet));
                }
                _ => field.push_str(&format!("%{octet:02X}")),
            }
        }
    }
    field
}

/// `%` in a quoted name is decoded by some readers (RFC 6266 appendix D).
fn is_quotable(c: char) -> bool {
    matches!(c, ' '..='~') && !matches!(c, '"' | '\\' | '%')
}

/// Octets for people: `25.0 MiB`.
pub(crate) fn size(octets: u64) -> String {
    let units = ["KiB", "MiB", "GiB"];
    let mut tenths = u128::from(octets) * 10;
    if octets < 1024 {
        return format!("{octets} octets");
    }
    let mut unit = "";
    for next in units {
        if !unit.is_empty() && tenths < 10 * 1024 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A second since 1970, for people.
pub(crate) fn date(seconds: u64) -> String {
    /// The last second of the year 9999: the format has four digits for it.
    const MAX: u64 = 253_402_300_799;
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.min(MAX));
    httpdate::fmt_http_date(at).replace(" GMT", " UTC")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_names() {
        for (name, expected) in [
            ("a.pdf", "a.pdf"),
            ("", "attachment"),
            ("..", "attachment"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Windows\\a.txt", "a.txt"),
            (".bashrc ", "bashrc"),
            ("a\r\nSet-Cookie: b", "aSet-Cookie_ b"),
            ("exe.\u{202e}fdp", "exe.fdp"),
            ("Müll.txt", "Müll.txt"),
        ] {
            assert_eq!(file(name), expected);
        }
        let long = format!("{}.pdf", "ü".repeat(300));
        assert!(file(&long).ends_with("ü.pdf") && shown(&long).starts_with('…'));
    }

    #[test]
    fn dispositions_of_rfc_6266() {
        for (name, expected) in [
            ("a b.pdf", "attachment; filename=\"a b.pdf\""),
            (
                "€.txt",
                "attachment; filename=\"_.txt\"; filename*=UTF-8''%E2%82%AC.txt",
            ),
            (
                "50%.txt",
                "attachment; filename=\"50_.txt\"; filename*=UTF-8''50%25.txt",
            ),
        ] {
            assert_eq!(content_disposition(name), expected);
        }
    }

    #[test]
    fn sizes_are_rounded_down() {
        for (octets, expected) in [
            (1023, "1023 octets"),
            (1024, "1.0 KiB"),
            (25 << 20, "25.0 MiB"),
            ((25 << 20) - 1, "24.9 MiB"),
            (3 << 40, "3072.0 GiB"),
        ] {
            assert_eq!(size(octets), expected);
        }
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 UTC");
        date(u64::MAX);
        size(u64::MAX);
    }

    proptest! {
        #[test]
        fn any_name_can_be_shown_and_saved(name in any::<String>()) {
            let (shown, file, field) = (shown(&name), file(&name), content_disposition(&name));
            prop_assert!(!shown.is_empty() && shown.chars().count() <= SHOWN_CHARS_MAX && shown.len() <= SHOWN_OCTETS_MAX);
            prop_assert!(!file.is_empty() && file.len() <= FILE_OCTETS_MAX && !file.contains(['/', '\\', '\0', '\n']));
            prop_assert!(field.bytes().all(|octet| (b' '..=b'~').contains(&octet)));
        }
    }
}
