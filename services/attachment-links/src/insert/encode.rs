//! Character sets and transfer encodings of what is written into a text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Octets of content in one base64 line of 76, RFC 2045 §6.8.
const LINE_CONTENT_OCTETS: usize = 57;

/// What a text can hold beside US-ASCII.
#[derive(Debug, Clone, Copy)]
pub(super) enum Charset {
    /// Nothing.
    Ascii,
    /// What this set has.
    Known(&'static encoding_rs::Encoding),
}

impl Charset {
    /// `None`: US-ASCII octets mean something else in it, or nobody knows.
    pub(super) fn new(name: &str) -> Option<Self> {
        match name {
            // RFC 1468 §1: a text ends in US-ASCII.
            "" | "us-ascii" | "ascii" | "iso-2022-jp" => Some(Self::Ascii),
            _ => encoding_rs::Encoding::for_label(name.as_bytes())
                .filter(|encoding| encoding.is_ascii_compatible())
                .map(Self::Known),
        }
    }

    /// What the set does not have becomes `?`.
    pub(super) fn encode(self, text: &str, seven_bit: bool) -> Vec<u8> {
        if let (Self::Known(encoding), false) = (self, seven_bit) {
            let (octets, _, is_lossy) = encoding.encode(text);
            if !is_lossy {
                return octets.into_owned();
            }
        }
        let ascii = text.chars().map(|c| if c.is_ascii() { c } else { '?' });
        ascii.collect::<String>().into_bytes()
    }
}

/// Without an encoding a line that looks like a delimiter can only be indented.
pub(super) fn without_delimiters(octets: &[u8]) -> Vec<u8> {
    let lines = octets.split_inclusive(|octet| *octet == b'\n');
    let indented = lines.flat_map(|line| {
        let indent: &[u8] = if line.starts_with(b"--") { b" " } else { b"" };
        [indent, line]
    });
    indented.flatten().copied().collect()
}

/// `octets` before octet `at` of the decoded content: from the last group of four digits before that place on, the body is encoded anew.
pub(super) fn into_base64(body: &[u8], at: usize, octets: &[u8]) -> (usize, usize, Vec<u8>) {
    let text = opes_mime::decode::base64(body);
    let (raw, decoded) = last_group(body, at);
    let tail = text.get(decoded..).unwrap_or_default();
    let (before, after) = tail.split_at((at - decoded).min(tail.len()));
    let content = [before, octets, after].concat();
    let is_line_start = raw == 0 || body.get(raw - 1) == Some(&b'\n');
    let mut lines: Vec<u8> = if is_line_start {
        Vec::new()
    } else {
        b"\r\n".to_vec()
    };
    for (index, line) in content.chunks(LINE_CONTENT_OCTETS).enumerate() {
        if index > 0 {
            lines.extend_from_slice(b"\r\n");
        }
        lines.extend_from_slice(STANDARD.encode(line).as_bytes());
    }
    (raw, body.len() - raw, lines)
}

/// Where the last whole group of four digits ends that has no octet from `at` on, in the body and in its content. Not behind padding: some
/// readers stop there.
fn last_group(body: &[u8], at: usize) -> (usize, usize) {
    let (mut raw, mut decoded, mut digits) = (0, 0, 0);
    for (index, octet) in body.iter().enumerate() {
        match octet {
            b'=' => break,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => digits += 1,
            _ => {}
        }
        if digits == 4 {
            if decoded + 3 > at {
                break;
            }
            digits = 0;
            decoded += 3;
            raw = index + 1;
        }
    }
    (raw, decoded)
}

/// The content of a quoted-printable body, and where each of its octets starts. White space at ends of lines is kept: it moves nothing.
pub(super) fn positions(body: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut text, mut starts) = (Vec::with_capacity(body.len()), Vec::new());
    let mut rest = body;
    while let Some((octet, tail)) = rest.split_first() {
        let start = body.len() - rest.len();
        rest = tail;
        let mut content = *octet;
        if *octet == b'=' {
            if let Some(next_line) = soft_break(tail) {
                rest = next_line;
                continue;
            }
            if let Some((value, after)) = escape(tail) {
                (content, rest) = (value, after);
            }
        }
        text.push(content);
        starts.push(start);
    }
    (text, starts)
}

/// What follows a soft line break, given what follows its `=`.
fn soft_break(tail: &[u8]) -> Option<&[u8]> {
    let blanks = tail
        .iter()
        .take_while(|octet| matches!(octet, b' ' | b'\t'))
        .count();
    let rest = tail.get(blanks..)?;
    let rest = rest.strip_prefix(b"\r").unwrap_or(rest);
    rest.strip_prefix(b"\n")
}

fn escape(tail: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = tail.split_at_checked(2)?;
    let digits = std::str::from_utf8(digits).ok()?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let value = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
    Some((value, rest))
}
