//! What is written into a message: the text with the link, in the first displayed section and in place of the part.
//!
//! Owns the rendering in the type, character set and transfer encoding of a text, and the place: the end of a plain text, before `</body>` of
//! an HTML text. Gives splices; octets outside them stay. Where a text cannot take the link (another kind of character set, an unknown
//! encoding) it is left alone: what stands in place of the part has the link too.

mod encode;

use opes_mime::rope::Splice;
use opes_mime::{Encoding, Part, Structure};

use crate::names;

/// What is said of one attachment.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As the mail had it.
    pub name: String,
    /// Media type.
    pub kind: String,
    /// Octets.
    pub size: u64,
    /// Second since 1970.
    pub expires: u64,
    /// The whole URL, US-ASCII.
    pub link: String,
}

/// The template with everything filled in, as plain text; lines end with LF.
pub fn plain(template: &str, entry: &Entry) -> String {
    fill(template, entry, str::to_owned, |_, value| value.to_owned())
}

/// The same in HTML, in US-ASCII, with the link to click on; lines end with CRLF.
pub fn html(template: &str, entry: &Entry) -> String {
    let filled = fill(template.trim_end(), entry, escaped, |field, value| {
        let value = escaped(value);
        if field == "link" {
            format!("<a href=\"{value}\">{value}</a>")
        } else {
            value
        }
    });
    format!("<p>{filled}</p>\r\n")
}

/// In one go: a name that looks like a place to fill in is a name.
fn fill(
    template: &str,
    entry: &Entry,
    literal: impl Fn(&str) -> String,
    filled: impl Fn(&str, &str) -> String,
) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(&literal(before));
        let field = after.split_once('}');
        let value = field.and_then(|(field, tail)| Some((field, value(field, entry)?, tail)));
        if let Some((field, value, tail)) = value {
            text.push_str(&filled(field, &value));
            rest = tail;
        } else {
            text.push('{');
            rest = after;
        }
    }
    text.push_str(&literal(rest));
    text
}

fn value(field: &str, entry: &Entry) -> Option<String> {
    Some(match field {
        "name" => names::shown(&entry.name),
        "type" => names::media_type(&entry.kind),
        "size" => names::size(entry.size),
        "expires" => names::date(entry.expires),
        "link" => entry.link.clone(),
        _ => return None,
    })
}

/// For text and attributes; what is not US-ASCII becomes a character reference, so that the character set of the text does not matter.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("<br>\r\n"),
            '&' | '<' | '>' | '"' | '\'' => out.push_str(&format!("&#{};", u32::from(c))),
            ' '..='~' => out.push(c),
            c if c.is_control() => {}
            c => out.push_str(&format!("&#{};", u32::from(c))),
        }
    }
    out
}

/// The links in a text, which has `body`; `None`: it cannot take them.
pub fn into_text(
    structure: &Structure,
    part: &Part,
    body: &[u8],
    template: &str,
    entries: &[Entry],
) -> Option<Splice> {
    let is_html = part.content_type == "text/html";
    let charset = encode::Charset::new(&part.charset)?;
    let octets = if is_html {
        let paragraphs: String = entries.iter().map(|entry| html(template, entry)).collect();
        format!("<div>{paragraphs}</div>").into_bytes()
    } else {
        let paragraphs = entries.iter().map(|entry| plain(template, entry));
        let paragraphs = paragraphs.map(|text| format!("\n\n{}", text.trim_end()));
        let text = paragraphs.collect::<String>().replace('\n', "\r\n");
        charset.encode(&text, part.encoding == Encoding::SevenBit)
    };
    let (at, size, mut replacement) = if is_html {
        before_end_of_html(part.encoding, body, &octets)?
    } else {
        at_end(part.encoding, body, &octets)?
    };
    // No line end belongs to the delimiter if it follows the header section at once.
    if part.body_end == part.entity_end && part.entity_end != structure.len {
        replacement.extend_from_slice(b"\r\n");
    }
    Some(Splice {
        offset: part.body_start + at as u64,
        size: size as u64,
        replacement: replacement.into(),
    })
}

/// Offset and size in the body, and what comes there.
type Change = (usize, usize, Vec<u8>);

fn at_end(encoding: Encoding, body: &[u8], octets: &[u8]) -> Option<Change> {
    match encoding {
        Encoding::Base64 => {
            let end = opes_mime::decode::base64(body).len();
            Some(encode::into_base64(body, end, octets))
        }
        Encoding::QuotedPrintable => {
            Some((body.len(), 0, opes_mime::edit::quoted_printable(octets)))
        }
        Encoding::SevenBit | Encoding::EightBit | Encoding::Binary => {
            Some((body.len(), 0, encode::without_delimiters(octets)))
        }
        Encoding::Other => None,
    }
}

fn before_end_of_html(encoding: Encoding, body: &[u8], octets: &[u8]) -> Option<Change> {
    match encoding {
        Encoding::Base64 => {
            let text = opes_mime::decode::base64(body);
            let at = end_of_html(&text).unwrap_or(text.len());
            Some(encode::into_base64(body, at, octets))
        }
        Encoding::QuotedPrintable => {
            let (text, starts) = encode::positions(body);
            let at = end_of_html(&text).and_then(|at| starts.get(at).copied());
            let soft: &[u8] = b"=\r\n";
            let quoted = opes_mime::edit::quoted_printable(octets);
            Some(match at {
                Some(at) => (at, 0, [soft, &quoted, soft].concat()),
                None => (body.len(), 0, [b"\r\n", quoted.as_slice()].concat()),
            })
        }
        Encoding::SevenBit | Encoding::EightBit | Encoding::Binary => {
            let line_end: &[u8] = b"\r\n";
            Some(match end_of_html(body) {
                Some(at) => (at, 0, [line_end, octets, line_end].concat()),
                None => (body.len(), 0, [line_end, octets].concat()),
            })
        }
        Encoding::Other => None,
    }
}

/// Where the document's last `</body` is, or its last `</html`.
fn end_of_html(text: &[u8]) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let last = |tag: &[u8]| memchr::memmem::rfind(&lower, tag);
    last(b"</body").or_else(|| last(b"</html"))
}

/// Takes an entity out with the delimiter before it; `None`: it is the first one, or the message itself.
pub fn removal(structure: &Structure, index: usize) -> Option<Splice> {
    let part = structure.parts.get(index)?;
    let before = structure
        .children(part.parent?)
        .filter(|child| *child < index);
    let offset = structure.parts.get(before.last()?)?.entity_end;
    Some(Splice {
        offset,
        size: part.entity_end.checked_sub(offset)?,
        replacement: Vec::new().into(),
    })
}

#[cfg(test)]
mod tests;
