//! Transfer encodings: base64 and quoted-printable, decoded as leniently as mail readers do.
//!
//! Owns [`Decoder`], which takes a body in chunks and gives content in chunks of bounded size. Octets outside the base64
//! alphabet are passed over, padding only ends a quantum, and a broken `=` escape is taken literally: a filter must see what
//! the most lenient reader would open. Never fails.

use crate::structure::Encoding;

/// Decodes one body, chunk by chunk.
#[derive(Debug, Clone)]
pub struct Decoder(State);

#[derive(Debug, Clone)]
enum State {
    Identity,
    Base64 {
        bits: u32,
        digits: u8,
    },
    /// Up to two octets of an escape seen so far, the `=` first, and white space that may prove to be at the end of its line.
    QuotedPrintable {
        held: Vec<u8>,
    },
}

/// Longest run of held octets in quoted-printable; beyond it white space is content.
const HELD_OCTETS_MAX: usize = 998;

impl Decoder {
    /// For a body with this encoding; unknown ones pass through.
    pub fn new(encoding: Encoding) -> Self {
        Self(match encoding {
            Encoding::Base64 => State::Base64 { bits: 0, digits: 0 },
            Encoding::QuotedPrintable => State::QuotedPrintable { held: Vec::new() },
            _ => State::Identity,
        })
    }

    /// Appends the content of `chunk` to `out`; never more octets than the chunk has plus [`HELD_OCTETS_MAX`].
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        match &mut self.0 {
            State::Identity => out.extend_from_slice(chunk),
            State::Base64 { bits, digits } => {
                for octet in chunk {
                    push_base64(bits, digits, *octet, out);
                }
            }
            State::QuotedPrintable { held } => {
                for octet in chunk {
                    push_quoted(held, *octet, out);
                }
            }
        }
    }

    /// Appends what was held back.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        match &mut self.0 {
            State::Identity => {}
            State::Base64 { bits, digits } => end_quantum(bits, digits, out),
            // A trailing soft line break or white space at the end of the last line is no content.
            State::QuotedPrintable { held } => {
                if held.first() == Some(&b'=') && held.iter().any(u8::is_ascii_hexdigit) {
                    out.append(held);
                }
            }
        }
    }
}

fn push_base64(bits: &mut u32, digits: &mut u8, octet: u8, out: &mut Vec<u8>) {
    let digit = match octet {
        b'A'..=b'Z' => octet - b'A',
        b'a'..=b'z' => octet - b'a' + 26,
        b'0'..=b'9' => octet - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        b'=' => return end_quantum(bits, digits, out),
        _ => return,
    };
    *bits = (*bits << 6) | u32::from(digit);
    *digits += 1;
    if *digits == 4 {
        let [_, first, second, third] = bits.to_be_bytes();
        out.extend_from_slice(&[first, second, third]);
        (*bits, *digits) = (0, 0);
    }
}

/// Padding or the end: two digits hold one octet, three hold two, one holds none.
fn end_quantum(bits: &mut u32, digits: &mut u8, out: &mut Vec<u8>) {
    let [_, first, second, _] = (*bits << (6 * (4 - u32::from(*digits).min(4)))).to_be_bytes();
    match digits {
        2 => out.push(first),
        3 => out.extend_from_slice(&[first, second]),
        _ => {}
    }
    (*bits, *digits) = (0, 0);
}

/// RFC 2045 §6.7. `held` is empty, `=`, `=X`, `=` with white space (perhaps a soft line break), or white space.
fn push_quoted(held: &mut Vec<u8>, octet: u8, out: &mut Vec<u8>) {
    if held.len() >= HELD_OCTETS_MAX {
        out.append(held);
    }
    match (held.as_slice(), octet) {
        ([], b'=' | b' ' | b'\t') => held.push(octet),
        ([], _) => out.push(octet),
        ([b'=', rest @ ..], b'\n') if rest.iter().all(u8::is_ascii_whitespace) => held.clear(),
        ([b'=', rest @ ..], b' ' | b'\t' | b'\r') if rest.iter().all(u8::is_ascii_whitespace) => {
            held.push(octet);
        }
        ([b'='], _) if octet.is_ascii_hexdigit() => held.push(octet),
        ([b'=', high], _) if octet.is_ascii_hexdigit() && high.is_ascii_hexdigit() => {
            out.push(hex_digit(*high) << 4 | hex_digit(octet));
            held.clear();
        }
        ([b'=', ..], _) => {
            out.append(held);
            push_quoted(held, octet, out);
        }
        (_, b' ' | b'\t') => held.push(octet),
        (_, b'\r' | b'\n') => {
            held.clear();
            out.push(octet);
        }
        _ => {
            out.append(held);
            push_quoted(held, octet, out);
        }
    }
}

fn hex_digit(octet: u8) -> u8 {
    match octet {
        b'0'..=b'9' => octet - b'0',
        b'a'..=b'f' => octet - b'a' + 10,
        b'A'..=b'F' => octet - b'A' + 10,
        _ => 0,
    }
}

/// All of a short base64 text.
pub fn base64(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let mut decoder = Decoder::new(Encoding::Base64);
    decoder.push(text, &mut out);
    decoder.finish(&mut out);
    out
}

/// `mark` and two hexadecimal digits are one octet: RFC 2231 with `%`, RFC 2047 with `=`.
pub(crate) fn percent_like(text: &[u8], mark: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = match tail {
            [high, low, tail @ ..]
                if *first == mark && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                out.push(hex_digit(*high) << 4 | hex_digit(*low));
                tail
            }
            _ => {
                out.push(*first);
                tail
            }
        };
    }
    out
}

#[cfg(test)]
mod tests;
