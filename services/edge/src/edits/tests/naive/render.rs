//! What is inserted, octet by octet.

use super::{Entity, Refusal};

pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let good = |c: char| c.is_ascii_graphic() && c != ':';
    if name.is_empty() || name.len() > 76 || !name.chars().all(good) {
        return Err(Refusal::Name);
    }
    Ok(())
}

pub(super) fn field(name: &str, value: &[u8]) -> Result<Vec<u8>, Refusal> {
    check_name(name)?;
    let text: String = value.iter().copied().map(char::from).collect();
    for (number, line) in text.split("\r\n").enumerate() {
        let folded = line.starts_with([' ', '\t']) && !line.trim_matches([' ', '\t']).is_empty();
        if line.contains(['\r', '\n', '\0']) || (number > 0 && !folded) {
            return Err(Refusal::Value);
        }
    }
    let space = if value.is_empty() || text.starts_with([' ', '\t', '\r']) {
        ""
    } else {
        " "
    };
    let field = [name.as_bytes(), b":", space.as_bytes(), value].concat();
    let too_long = |line: &[u8]| line.strip_suffix(b"\r").unwrap_or(line).len() > 998;
    if field.split(|octet| *octet == b'\n').any(too_long) {
        return Err(Refusal::LineTooLong);
    }
    Ok([&field[..], b"\r\n"].concat())
}

/// A mark as it may stand in a field; before an encoded word it brings its own space.
pub(super) fn words(mark: &str, before_word: bool) -> String {
    if mark.is_ascii() && !mark.contains("=?") && mark.len() <= 256 {
        return mark.to_owned();
    }
    let text = format!("{mark}{}", if before_word { " " } else { "" });
    let mut words: Vec<String> = vec![String::new()];
    for character in text.chars() {
        // 45 octets are 60 of base64, and 72 with what is around them.
        if words.last().unwrap().len() + character.len_utf8() > 45 {
            words.push(String::new());
        }
        words.last_mut().unwrap().push(character);
    }
    let encoded: Vec<String> = words
        .iter()
        .map(|word| format!("=?UTF-8?B?{}?=", base64(word.as_bytes())))
        .collect();
    encoded.join("\r\n ")
}

/// Where in the subject what is to be inserted; `None`: the mark is there.
pub(super) fn marked(value: &[u8], mark: &str) -> Option<(usize, String)> {
    if unfolded_words(value).contains(mark) {
        return None;
    }
    let blanks = value
        .iter()
        .take_while(|octet| octet.is_ascii_whitespace())
        .count();
    let rest = &value[blanks..];
    let mark = words(mark, rest.starts_with(b"=?"));
    let lead = if blanks == 0 { " " } else { "" };
    let line = rest.split(|octet| *octet == b'\r').next().unwrap();
    let gap = match rest.len() {
        0 => "",
        _ if "Subject: ".len() + blanks + mark.len() + 1 + line.len() > 998 => "\r\n ",
        _ => " ",
    };
    Some((blanks, format!("{lead}{mark}{gap}")))
}

/// RFC 2047, as far as the generated subjects go.
fn unfolded_words(value: &[u8]) -> String {
    let value: Vec<u8> = value
        .iter()
        .copied()
        .filter(|o| !matches!(o, b'\r' | b'\n'))
        .collect();
    let mut text = String::from_utf8_lossy(&value).into_owned();
    while let Some((before, word, after)) = first_word(&text) {
        text = format!("{before}{word}{after}");
    }
    text
}

fn first_word(text: &str) -> Option<(String, String, String)> {
    let start = text.to_ascii_uppercase().find("=?UTF-8?")?;
    let mut pieces = text[start + 2..].splitn(3, '?');
    let (_, encoding, rest) = (pieces.next()?, pieces.next()?, pieces.next()?);
    let (content, after) = rest.split_once("?=")?;
    let octets = match encoding {
        "Q" => quoted(&content.replace('_', " ")),
        "B" => from_base64(content),
        _ => return None,
    };
    let word = String::from_utf8_lossy(&octets).into_owned();
    let after = if after.trim_start().starts_with("=?") {
        after.trim_start()
    } else {
        after
    };
    Some((text[..start].to_owned(), word, after.to_owned()))
}

fn quoted(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(octet) if *first == b'=' => {
                octets.push(octet);
                rest = &tail[2..];
            }
            _ => {
                octets.push(*first);
                rest = tail;
            }
        }
    }
    octets
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(octets: &[u8]) -> String {
    let mut text = String::new();
    for three in octets.chunks(3) {
        let bits = three
            .iter()
            .fold(0_u32, |bits, octet| bits << 8 | u32::from(*octet));
        let bits = bits << (8 * (3 - three.len()));
        for digit in 0..4 {
            let used = digit <= three.len();
            let index = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if used {
                char::from(ALPHABET[index])
            } else {
                '='
            });
        }
    }
    text
}

fn from_base64(text: &str) -> Vec<u8> {
    let digits = text
        .bytes()
        .filter_map(|c| ALPHABET.iter().position(|a| *a == c));
    let bits: Vec<bool> = digits
        .flat_map(|d| (0..6).rev().map(move |bit| d >> bit & 1 == 1))
        .collect();
    let octet = |bits: &[bool]| {
        bits.iter()
            .fold(0_u8, |octet, bit| octet << 1 | u8::from(*bit))
    };
    bits.chunks_exact(8).map(octet).collect()
}

pub(super) fn crlf(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' => {
                characters.next_if_eq(&'\n');
                out.push_str("\r\n");
            }
            '\n' => out.push_str("\r\n"),
            '\0' => {}
            other => out.push(other),
        }
    }
    out
}

/// Describing fields and body of the text that stands for a part.
pub(super) fn text_part(text: &str, name: &str) -> (String, Vec<u8>) {
    let text = crlf(text);
    let plain = text.is_ascii()
        && text
            .split("\r\n")
            .all(|line| line.len() <= 998 && !line.starts_with("--"));
    let (encoding, body) = if plain {
        ("7bit", text.into_bytes())
    } else {
        ("quoted-printable", quoted_octets(text.as_bytes()))
    };
    let disposition = match name {
        "" => "inline".to_owned(),
        name => format!("attachment;\r\n {}", file_name(name)),
    };
    let fields = format!(
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\nContent-Disposition: {disposition}\r\n"
    );
    (fields, body)
}

fn file_name(name: &str) -> String {
    if name.is_ascii() {
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("filename=\"{escaped}\"");
    }
    let characters: Vec<char> = name.chars().collect();
    let mut sections = Vec::new();
    for (number, five) in characters.chunks(5).enumerate() {
        let charset = if number == 0 { "utf-8''" } else { "" };
        let mut section = format!("filename*{number}*={charset}");
        for octet in five.iter().collect::<String>().bytes() {
            if octet.is_ascii_alphanumeric() || b".-_".contains(&octet) {
                section.push(char::from(octet));
            } else {
                section += &format!("%{octet:02X}");
            }
        }
        sections.push(section);
    }
    sections.join(";\r\n ")
}

/// At most 75 octets, then the `=` of a soft line end.
fn quoted_line(line: &[u8]) -> String {
    let mut out = String::new();
    let mut column = 0;
    for (at, octet) in line.iter().enumerate() {
        let last = at + 1 == line.len();
        let plain = |column: usize| match octet {
            b' ' | b'\t' => !last,
            b'-' => column > 0,
            b'=' => false,
            other => other.is_ascii_graphic(),
        };
        let mut width = if plain(column) { 1 } else { 3 };
        if column + width > 75 {
            out += "=\r\n";
            column = 0;
            width = if plain(column) { 1 } else { 3 };
        }
        if width == 1 {
            out.push(char::from(*octet));
        } else {
            out += &format!("={octet:02X}");
        }
        column += width;
    }
    out
}

/// The mark in the language, character set and encoding of the text before which it will stand.
pub(super) fn body_mark(text: &str, entity: &Entity) -> Result<Vec<u8>, Refusal> {
    let text = if entity.content_type == "text/html" {
        let escaped: String = text
            .chars()
            .map(|c| match c {
                '&' => "&amp;".to_owned(),
                '<' => "&lt;".to_owned(),
                '>' => "&gt;".to_owned(),
                other => other.to_string(),
            })
            .collect();
        format!(
            "<div>{}</div>\r\n",
            escaped.split("\r\n").collect::<Vec<_>>().join("<br>\r\n")
        )
    } else {
        format!("{text}\r\n\r\n")
    };
    let octets: Option<Vec<u8>> = match entity.charset.as_str() {
        "utf-8" => Some(text.into_bytes()),
        "iso-8859-1" => text
            .chars()
            .map(|c| u8::try_from(u32::from(c)).ok())
            .collect(),
        _ if text.is_ascii() => Some(text.into_bytes()),
        _ => None,
    };
    let octets = octets.ok_or(Refusal::Unsupported)?;
    match entity.encoding.as_str() {
        "base64" => Ok(base64_lines(octets)),
        "quoted-printable" => Ok(quoted_octets(&octets)),
        "" | "7bit" if !octets.is_ascii() => Err(Refusal::Unsupported),
        "" | "7bit" | "8bit" => {
            let lines: Vec<&[u8]> = octets.split(|octet| *octet == b'\n').collect();
            if lines
                .iter()
                .any(|line| line.strip_suffix(b"\r").unwrap_or(line).len() > 998)
            {
                return Err(Refusal::Unsupported);
            }
            let dashed = |line: &&[u8]| line.starts_with(b"--");
            let lines = lines.iter().map(|line| {
                if dashed(line) {
                    [b" ", *line].concat()
                } else {
                    line.to_vec()
                }
            });
            Ok(lines.collect::<Vec<_>>().join(&b'\n'))
        }
        _ => Err(Refusal::Unsupported),
    }
}

/// Quoted-printable of octets with CRLF line ends, in any character set.
fn quoted_octets(octets: &[u8]) -> Vec<u8> {
    let mut lines = vec![Vec::new()];
    let mut rest = octets;
    while let [first, tail @ ..] = rest {
        if rest.starts_with(b"\r\n") {
            lines.push(Vec::new());
            rest = &rest[2..];
        } else {
            lines.last_mut().unwrap().push(*first);
            rest = tail;
        }
    }
    let lines: Vec<String> = lines.iter().map(|line| quoted_line(line)).collect();
    lines.join("\r\n").into_bytes()
}

/// Blanks before the last line end, until no padding is needed; lines of 57 octets.
fn base64_lines(mut octets: Vec<u8>) -> Vec<u8> {
    while !octets.len().is_multiple_of(3) {
        octets.insert(octets.len() - 2, b' ');
    }
    let lines: Vec<String> = octets
        .chunks(57)
        .map(|line| base64(line) + "\r\n")
        .collect();
    lines.concat().into_bytes()
}
