//! A mark in front of the text that a reader sees first.
//!
//! Owns the rendering of the mark in the type, character set and transfer encoding of that text ([`crate::display`] chooses it). The rest of
//! the body is not looked at: what is put in front of it decodes by itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::part::{quoted_printable, with_crlf};
use super::{Edit, EditError, LINE_OCTETS_MAX, Target};
use crate::display::first_texts;
use crate::rope::Splice;
use crate::structure::{Encoding, Part};

/// Octets of content in one base64 line of 76, RFC 2045 §6.8.
const BASE64_LINE_CONTENT_OCTETS: usize = 57;

impl Target<'_> {
    pub(super) fn mark_body(&mut self, text: &str, all: &[Edit]) -> Result<(), EditError> {
        let text = with_crlf(text.trim_end());
        if text.is_empty() {
            return Err(EditError::InvalidText("body mark"));
        }
        let marked: Vec<(u64, Vec<u8>)> = {
            let texts = self.first_texts(all);
            let render = |part: &&Part| Ok((part.body_start, self.rendered(part, &text)?));
            texts.iter().map(render).collect::<Result<_, EditError>>()?
        };
        if marked.is_empty() {
            return Err(EditError::Unsupported(
                "the message has no text part for a body mark",
            ));
        }
        for (offset, octets) in marked {
            self.body.push(Splice {
                offset,
                size: 0,
                replacement: octets.into(),
            });
        }
        Ok(())
    }

    /// What is shown once all edits are made.
    fn first_texts(&self, all: &[Edit]) -> Vec<&Part> {
        let is_replaced = |part: &Part| {
            all.iter()
                .any(|edit| matches!(edit, Edit::PartReplace { path, .. } if *path == part.path))
        };
        let texts = first_texts(self.structure, is_replaced).into_iter();
        texts
            .filter_map(|index| self.structure.parts.get(index))
            .collect()
    }

    /// The mark, ready to stand in front of the body of `part`.
    fn rendered(&self, part: &Part, text: &str) -> Result<Vec<u8>, EditError> {
        let text = if part.content_type == "text/html" {
            html(text)
        } else {
            format!("{text}\r\n\r\n")
        };
        let octets = in_charset(&text, &part.charset).ok_or(EditError::Unsupported(
            "the mark cannot be written in the character set of the text",
        ))?;
        if part.parent.is_none() {
            self.check_end_known()?;
        }
        in_encoding(octets, part.encoding)
    }
}

fn html(text: &str) -> String {
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!("<div>{}</div>\r\n", escaped.replace("\r\n", "<br>\r\n"))
}

/// `None`: the set has other characters, or is not a superset of US-ASCII.
fn in_charset(text: &str, charset: &str) -> Option<Vec<u8>> {
    let other_octets = [
        "utf-16",
        "utf-32",
        "utf-7",
        "ucs-",
        "ibm",
        "ebcdic",
        "cp037",
        "iso-10646",
    ];
    match charset {
        "utf-8" | "utf8" => Some(text.as_bytes().to_vec()),
        "iso-8859-1" | "latin1" => text.chars().map(|c| u8::try_from(c).ok()).collect(),
        _ if other_octets.iter().any(|other| charset.starts_with(other)) => None,
        _ => text.is_ascii().then(|| text.as_bytes().to_vec()),
    }
}

fn in_encoding(octets: Vec<u8>, encoding: Encoding) -> Result<Vec<u8>, EditError> {
    let too_long = || {
        octets
            .split(|octet| *octet == b'\n')
            .any(|line| line.len() > LINE_OCTETS_MAX + 1)
    };
    match encoding {
        Encoding::Base64 => Ok(base64_lines(octets)),
        Encoding::QuotedPrintable => Ok(quoted_printable(&octets)),
        Encoding::SevenBit if !octets.is_ascii() => Err(EditError::Unsupported(
            "the mark has characters that a 7bit text part cannot hold",
        )),
        Encoding::SevenBit | Encoding::EightBit if too_long() => Err(EditError::Unsupported(
            "the mark has a line that is too long for mail",
        )),
        Encoding::SevenBit | Encoding::EightBit | Encoding::Binary => Ok(no_delimiter(octets)),
        Encoding::Other => Err(EditError::Unsupported(
            "the text has an unknown transfer encoding",
        )),
    }
}

/// Without an encoding a line that looks like a delimiter can only be indented.
fn no_delimiter(octets: Vec<u8>) -> Vec<u8> {
    if !octets.starts_with(b"--") && memchr::memmem::find(&octets, b"\n--").is_none() {
        return octets;
    }
    let lines = octets.split_inclusive(|octet| *octet == b'\n');
    lines
        .flat_map(|line| {
            if line.starts_with(b"--") {
                [b" ", line]
            } else {
                [b"", line]
            }
            .concat()
        })
        .collect()
}

/// Whole quanta without padding, so that the body that follows goes on decoding: blanks fill up the last line.
fn base64_lines(mut octets: Vec<u8>) -> Vec<u8> {
    while !octets.len().is_multiple_of(3) {
        let at = octets
            .len()
            .saturating_sub(if octets.ends_with(b"\r\n") { 2 } else { 0 });
        octets.insert(at, b' ');
    }
    let mut lines = Vec::with_capacity(octets.len() / 2 * 3);
    for content in octets.chunks(BASE64_LINE_CONTENT_OCTETS) {
        lines.extend_from_slice(STANDARD.encode(content).as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    lines
}
