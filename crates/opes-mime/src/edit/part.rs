//! Replacing an entity by a text (RFC 4496 §4.1).
//!
//! Owns the rendering of the new entity. It never contains a line that starts with `--`, so it cannot end a multipart.

use std::fmt::Write as _;

use super::{EditError, LINE_OCTETS_MAX, Target};
use crate::rope::Splice;
use crate::structure::{Part, slice};

/// Longest line in quoted-printable, RFC 2045 §6.7 (5).
const QUOTED_LINE_OCTETS_MAX: usize = 76;
/// Longest name of a new part, in characters.
const NAME_CHARS_MAX: usize = 200;

impl Target<'_> {
    pub(super) fn replace_part(
        &mut self,
        path: &str,
        text: &str,
        name: &str,
    ) -> Result<(), EditError> {
        if name.chars().any(char::is_control) || name.chars().count() > NAME_CHARS_MAX {
            return Err(EditError::InvalidText("name of the new part"));
        }
        let part = self
            .structure
            .part(path)
            .ok_or_else(|| EditError::NoSuchPart(path.to_owned()))?;
        let (fields, body) = render(text, name);
        if part.parent.is_none() {
            return self.replace_content(&fields, &body);
        }
        let mut entity = [fields.as_bytes(), b"\r\n", &body].concat();
        if !ends_at_delimiter_line_end(part, self.structure.len) {
            entity.extend_from_slice(b"\r\n");
        }
        self.body.push(Splice {
            offset: part.header_start,
            size: part.body_end - part.header_start,
            replacement: entity.into(),
        });
        Ok(())
    }

    /// The message itself: its describing fields and all of its content.
    fn replace_content(&mut self, fields: &str, body: &[u8]) -> Result<(), EditError> {
        let is_describing = |field: &&crate::Field| {
            let name = slice(self.octets, &field.name);
            name.get(..8)
                .is_some_and(|start| start.eq_ignore_ascii_case(b"content-"))
        };
        let describing = self.structure.fields.iter().filter(is_describing);
        let spans: Vec<_> = describing.map(|field| field.whole.clone()).collect();
        for span in &spans {
            self.delete(span);
        }
        let version = if self.fields_named("mime-version").next().is_none() {
            "MIME-Version: 1.0\r\n"
        } else {
            ""
        };
        self.append([version, fields].concat().as_bytes())?;
        let header_end = self.structure.header_end;
        self.body.push(Splice {
            offset: header_end,
            size: self.structure.len - header_end,
            replacement: body.to_vec().into(),
        });
        Ok(())
    }
}

/// Is there a line end, or nothing, between the entity and what follows? Not so if its delimiter follows its header at once.
fn ends_at_delimiter_line_end(part: &Part, message_len: u64) -> bool {
    part.body_end < part.entity_end || part.entity_end == message_len
}

/// The describing fields and the body of a text/plain entity.
fn render(text: &str, name: &str) -> (String, Vec<u8>) {
    let text = with_crlf(text);
    let lines_fit = text
        .split("\r\n")
        .all(|line| line.len() <= LINE_OCTETS_MAX && !line.starts_with("--"));
    let (encoding, body) = if text.is_ascii() && lines_fit {
        ("7bit", text.into_bytes())
    } else {
        ("quoted-printable", quoted_printable(text.as_bytes()))
    };
    let mut fields = String::from("Content-Type: text/plain; charset=utf-8\r\n");
    // Writing to a string cannot fail.
    let _ = write!(
        fields,
        "Content-Transfer-Encoding: {encoding}\r\nContent-Disposition: "
    );
    match name {
        "" => fields.push_str("inline\r\n"),
        name => {
            fields.push_str("attachment;\r\n ");
            push_filename(name, &mut fields);
            fields.push_str("\r\n");
        }
    }
    (fields, body)
}

/// RFC 2183 for plain names, RFC 2231 §4 for others.
fn push_filename(name: &str, fields: &mut String) {
    if name.is_ascii() {
        fields.push_str("filename=\"");
        for character in name.chars() {
            if matches!(character, '"' | '\\') {
                fields.push('\\');
            }
            fields.push(character);
        }
        return fields.push('"');
    }
    // A character takes up to 4 octets, each 3 when encoded: sections of 5 fit a line of 78.
    let characters: Vec<char> = name.chars().collect();
    for (index, section) in characters.chunks(5).enumerate() {
        let (start, charset) = if index == 0 {
            ("", "utf-8''")
        } else {
            (";\r\n ", "")
        };
        let _ = write!(fields, "{start}filename*{index}*={charset}");
        for octet in section.iter().collect::<String>().bytes() {
            match octet {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
                    fields.push(char::from(octet));
                }
                _ => {
                    let _ = write!(fields, "%{octet:02X}");
                }
            }
        }
    }
}

/// Every line end becomes CRLF; NUL is dropped.
pub(super) fn with_crlf(text: &str) -> String {
    let unified = text
        .replace("\r\n", "\n")
        .replace('\r', "\n")
        .replace('\0', "");
    unified.replace('\n', "\r\n")
}

/// RFC 2045 §6.7. `text` has CRLF line ends; a leading `-` is escaped so that no line looks like a delimiter.
pub fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8);
    let mut column = 0;
    let mut rest = text;
    while let Some((octet, tail)) = rest.split_first() {
        if rest.starts_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
            column = 0;
            rest = rest.get(2..).unwrap_or_default();
            continue;
        }
        let at_end = matches!(tail, [] | [b'\r', b'\n', ..]);
        let literal = match octet {
            b' ' | b'\t' => !at_end,
            b'-' => column > 0,
            b'=' => false,
            octet => octet.is_ascii_graphic(),
        };
        let width = if literal { 1 } else { 3 };
        if column + width >= QUOTED_LINE_OCTETS_MAX {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if literal && !(column == 0 && *octet == b'-') {
            out.push(*octet);
            column += 1;
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'=', digit(octet >> 4), digit(octet & 15)]);
            column += 3;
        }
        rest = tail;
    }
    out
}
