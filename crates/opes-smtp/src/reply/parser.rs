//! Incremental parser for the replies of a server (RFC 5321 §4.2.1), for the client side.
//!
//! Lenient where servers are sloppy (LF alone as line end, a code without text, enhanced codes on some lines only),
//! strict where framing is at stake: a reply that changes its code half-way or never ends is an error, after which the
//! connection cannot be used.

use bytes::{Buf, BytesMut};
use thiserror::Error;

use super::{Enhanced, Reply, parse_enhanced};
use crate::limits::{RECEIVED_REPLY_LINE_OCTETS_MAX, REPLY_LINES_MAX};

/// Collects one reply after the other from a growing buffer.
#[derive(Debug, Default)]
pub struct ReplyParser {
    /// Lines of the reply so far.
    code: Option<u16>,
    enhanced: Option<Enhanced>,
    text: String,
    lines: usize,
}

/// The server does not speak SMTP. The connection has lost its framing and must be closed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplyParseError {
    /// Longer than [`RECEIVED_REPLY_LINE_OCTETS_MAX`].
    #[error("reply line of the server exceeds {RECEIVED_REPLY_LINE_OCTETS_MAX} octets")]
    LineLength,
    /// More than [`REPLY_LINES_MAX`].
    #[error("reply of the server exceeds {REPLY_LINES_MAX} lines")]
    Lines,
    /// A line that does not begin with a code and a separator.
    #[error("the server sent {0:?}, which is no reply line; is it an SMTP server?")]
    Syntax(String),
    /// Lines of one reply with different codes (RFC 5321 §4.2.1).
    #[error("reply of the server changes its code from {first} to {then}")]
    CodeChanged {
        /// Code of the first line.
        first: u16,
        /// Code of the line that differs.
        then: u16,
    },
}

struct Line<'a> {
    code: u16,
    last: bool,
    text: &'a [u8],
}

impl ReplyParser {
    /// Takes the next reply out of `input`; `None` = more octets are needed. Octets after the reply stay in `input`.
    pub fn parse(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, ReplyParseError> {
        loop {
            let Some(end) = memchr::memchr(b'\n', input) else {
                return too_long(input.len()).map(|()| None);
            };
            too_long(end + 1)?;
            let line = input.split_to(end);
            input.advance(1);
            if self.push_line(&line)? {
                return Ok(self.take());
            }
        }
    }

    /// True after the last line.
    fn push_line(&mut self, line: &[u8]) -> Result<bool, ReplyParseError> {
        let line = parse_line(line)?;
        match self.code {
            Some(first) if first != line.code => {
                return Err(ReplyParseError::CodeChanged {
                    first,
                    then: line.code,
                });
            }
            Some(_) => self.text.push('\n'),
            None => self.code = Some(line.code),
        }
        self.lines += 1;
        if self.lines > REPLY_LINES_MAX {
            return Err(ReplyParseError::Lines);
        }
        self.push_text(line.code, line.text);
        Ok(line.last)
    }

    /// Separates the enhanced code, which must have the class of the code, and keeps printable US-ASCII.
    fn push_text(&mut self, code: u16, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let (first, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let enhanced = parse_enhanced(first).filter(|found| u16::from(found.0) == code / 100);
        self.enhanced = self.enhanced.or(enhanced);
        let kept: &str = if enhanced.is_some() { rest } else { &text };
        self.text.extend(
            kept.chars()
                .map(|c| if matches!(c, ' '..='~') { c } else { '?' }),
        );
    }

    fn take(&mut self) -> Option<Reply> {
        let Self {
            code,
            enhanced,
            text,
            ..
        } = std::mem::take(self);
        Some(Reply {
            code: code?,
            enhanced,
            text: text.into(),
        })
    }
}

fn too_long(octets: usize) -> Result<(), ReplyParseError> {
    if octets > RECEIVED_REPLY_LINE_OCTETS_MAX {
        Err(ReplyParseError::LineLength)
    } else {
        Ok(())
    }
}

fn parse_line(line: &[u8]) -> Result<Line<'_>, ReplyParseError> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let syntax =
        || ReplyParseError::Syntax(String::from_utf8_lossy(line).chars().take(80).collect());
    let (digits, rest) = line.split_at_checked(3).ok_or_else(syntax)?;
    let code = match *digits {
        [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => return Err(syntax()),
    };
    match rest.split_first() {
        None => Ok(Line {
            code,
            last: true,
            text: rest,
        }),
        Some((b' ', text)) => Ok(Line {
            code,
            last: true,
            text,
        }),
        Some((b'-', text)) => Ok(Line {
            code,
            last: false,
            text,
        }),
        Some(_) => Err(syntax()),
    }
}
