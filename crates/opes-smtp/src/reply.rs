//! SMTP replies as values: code, enhanced code, text. Every three-digit code of the project stands in `reply/situations.rs`,
//! as a constant named after the situation.
//!
//! A [`Reply`] is well-formed by construction: its text has no control characters, so writing one cannot inject a line.
//! [`Reply::checked`] is the way in for replies made by a callout service; [`ReplyParser`] for those of a next hop.

mod parser;
mod situations;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, BytesMut};
use thiserror::Error;

pub use self::parser::{ReplyParseError, ReplyParser};
use crate::limits::{REPLY_LINE_OCTETS_MAX, REPLY_LINES_MAX};

/// Enhanced mail system status code `class.subject.detail` (RFC 3463 §2, RFC 2034).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Enhanced(pub u8, pub u16, pub u16);

/// One reply of one or more lines (RFC 5321 §4.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    /// Lines separated by LF, which no line can contain.
    text: Cow<'static, str>,
}

/// Why a reply made by a service is not sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplyInvalid {
    /// Codes are 2yz, 4yz or 5yz with y of 0–5 (RFC 5321 §4.2).
    #[error("reply code {0} is none of 2yz, 4yz, 5yz; use a code of RFC 5321 section 4.2")]
    Code(u16),
    /// RFC 2034 §4: the class repeats the first digit of the code.
    #[error(
        "enhanced code {enhanced} does not fit reply code {code}; its first digit must be the same"
    )]
    Enhanced {
        /// The reply code.
        code: u16,
        /// The enhanced code that came with it.
        enhanced: Enhanced,
    },
    /// RFC 3463 §2: subject and detail have one to three digits.
    #[error("enhanced code {0} has a number beyond 999; RFC 3463 section 2 allows three digits")]
    EnhancedRange(Enhanced),
    /// RFC 5321 §4.5.3.1.5.
    #[error("line {line} of the reply makes {octets} octets on the wire; at most 512 are allowed")]
    LineLength {
        /// Counted from 1.
        line: usize,
        /// With code, enhanced code and CRLF.
        octets: usize,
    },
    /// More than [`REPLY_LINES_MAX`] lines.
    #[error("reply of {0} lines; at most {REPLY_LINES_MAX} are sent")]
    Lines(usize),
    /// RFC 5321 §4.2: textstring is HT and printable US-ASCII; RFC 6531 §3.7.4.3 adds UTF-8 under SMTPUTF8.
    #[error("line {line} of the reply has a character that may not be sent: {character:?}")]
    Character {
        /// Counted from 1.
        line: usize,
        /// The first such character.
        character: char,
    },
}

/// The text is no enhanced status code.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no enhanced status code; write class.subject.detail such as 5.7.1")]
pub struct EnhancedInvalid(String);

// === impl Enhanced ===

impl Enhanced {
    fn len(self) -> usize {
        1 + 1 + digits(self.1) + 1 + digits(self.2)
    }

    fn write_to(self, output: &mut BytesMut) {
        put_number(output, u16::from(self.0));
        output.put_u8(b'.');
        put_number(output, self.1);
        output.put_u8(b'.');
        put_number(output, self.2);
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Enhanced {
    type Err = EnhancedInvalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_enhanced(text).ok_or_else(|| EnhancedInvalid(text.to_owned()))
    }
}

fn parse_enhanced(text: &str) -> Option<Enhanced> {
    let mut parts = text.splitn(3, '.');
    let class = parts
        .next()
        .filter(|class| matches!(*class, "2" | "4" | "5"))?;
    let subject = enhanced_number(parts.next()?)?;
    let detail = enhanced_number(parts.next()?)?;
    Some(Enhanced(class.parse().ok()?, subject, detail))
}

fn enhanced_number(text: &str) -> Option<u16> {
    let well_formed = matches!(text.len(), 1..=3) && text.bytes().all(|b| b.is_ascii_digit());
    well_formed.then(|| text.parse().ok()).flatten()
}

// === impl Reply ===

impl Reply {
    /// A reply of our own. `text` must be printable US-ASCII; lines are separated by LF.
    pub const fn new(code: u16, enhanced: Option<Enhanced>, text: &'static str) -> Self {
        Self {
            code,
            enhanced,
            text: Cow::Borrowed(text),
        }
    }

    /// The same situation in other words. Control characters become spaces, lines are cut to what may be sent.
    #[must_use]
    pub fn with_text(&self, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if !text.bytes().all(|b| matches!(b, b' '..=b'~')) {
            text = text
                .chars()
                .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
                .collect();
        }
        let room = self.text_octets_max();
        if text.len() > room {
            text = text
                .lines()
                .take(REPLY_LINES_MAX)
                .map(|l| cut(l, room))
                .collect::<Vec<_>>()
                .join("\n");
        }
        Self {
            text: Cow::Owned(text),
            ..self.clone()
        }
    }

    /// A reply made by a callout service, for a session without SMTPUTF8. See [`ReplyInvalid`] for what is refused. Without
    /// lines the reply gets a text of ours, without enhanced code `x.0.0` (RFC 2034 §4 wants one on every reply).
    pub fn checked<L: AsRef<str>>(
        code: u16,
        enhanced: Option<Enhanced>,
        lines: &[L],
    ) -> Result<Self, ReplyInvalid> {
        Self::checked_for(code, enhanced, lines, false)
    }

    /// [`Reply::checked`] where `smtputf8` says whether the transaction is internationalized (RFC 6531 §3.7.4.3).
    pub fn checked_for<L: AsRef<str>>(
        code: u16,
        enhanced: Option<Enhanced>,
        lines: &[L],
        smtputf8: bool,
    ) -> Result<Self, ReplyInvalid> {
        let enhanced = check_codes(code, enhanced)?;
        if lines.len() > REPLY_LINES_MAX {
            return Err(ReplyInvalid::Lines(lines.len()));
        }
        let mut reply = Self::new(code, Some(enhanced), default_text(code));
        for (index, line) in lines.iter().enumerate() {
            check_line(index + 1, line.as_ref(), reply.text_octets_max(), smtputf8)?;
        }
        if !lines.is_empty() {
            let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
            reply.text = Cow::Owned(lines.join("\n"));
        }
        Ok(reply)
    }

    /// Three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Absent in greetings, answers to HELO and EHLO, and 3yz (RFC 2034 §4).
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The text of each line, without codes; at least one.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n')
    }

    /// 2yz.
    pub fn is_positive(&self) -> bool {
        self.class() == 2
    }

    /// 3yz: the server waits for more.
    pub fn is_intermediate(&self) -> bool {
        self.class() == 3
    }

    /// 4yz: try again later.
    pub fn is_transient(&self) -> bool {
        self.class() == 4
    }

    /// 5yz: do not try again.
    pub fn is_permanent(&self) -> bool {
        self.class() == 5
    }

    /// 4yz or 5yz.
    pub fn is_refusal(&self) -> bool {
        self.is_transient() || self.is_permanent()
    }

    /// After this reply the server closes the connection (RFC 5321 §3.8).
    pub fn closes(&self) -> bool {
        self.code == Self::SHUTTING_DOWN.code
    }

    fn class(&self) -> u16 {
        self.code / 100
    }

    /// As [`Reply::write_to`], for a client that did not ask for SMTPUTF8: other characters become `?`.
    pub fn write_ascii_to(&self, output: &mut BytesMut) {
        if self.text.is_ascii() {
            return self.write_to(output);
        }
        let text: String = self
            .text
            .chars()
            .map(|c| if c.is_ascii() { c } else { '?' })
            .collect();
        Self {
            text: text.into(),
            ..*self
        }
        .write_to(output);
    }

    /// Appends the lines as they go over the wire.
    pub fn write_to(&self, output: &mut BytesMut) {
        output.reserve(self.text.len() + 32);
        let mut lines = self.lines().peekable();
        while let Some(line) = lines.next() {
            put_number(output, self.code);
            output.put_u8(if lines.peek().is_some() { b'-' } else { b' ' });
            if let Some(enhanced) = self.enhanced {
                enhanced.write_to(output);
                output.put_u8(b' ');
            }
            output.put_slice(line.as_bytes());
            output.put_slice(b"\r\n");
        }
    }

    /// Octets of text that one line has room for (RFC 5321 §4.5.3.1.5).
    pub fn text_octets_max(&self) -> usize {
        REPLY_LINE_OCTETS_MAX - line_overhead(self.enhanced)
    }
}

/// One line for logs: `550 5.7.1 text / text`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        for (index, line) in self.lines().enumerate() {
            write!(f, "{}{line}", if index == 0 { " " } else { " / " })?;
        }
        Ok(())
    }
}

/// Code, separator, enhanced code with its space, CRLF.
fn line_overhead(enhanced: Option<Enhanced>) -> usize {
    3 + 1 + enhanced.map_or(0, |enhanced| enhanced.len() + 1) + 2
}

fn check_codes(code: u16, enhanced: Option<Enhanced>) -> Result<Enhanced, ReplyInvalid> {
    let class = code / 100;
    if !matches!(class, 2 | 4 | 5) || (code / 10) % 10 > 5 {
        return Err(ReplyInvalid::Code(code));
    }
    let enhanced = enhanced.unwrap_or(Enhanced(u8::try_from(class).unwrap_or(5), 0, 0));
    if u16::from(enhanced.0) != class {
        return Err(ReplyInvalid::Enhanced { code, enhanced });
    }
    if enhanced.1 > 999 || enhanced.2 > 999 {
        return Err(ReplyInvalid::EnhancedRange(enhanced));
    }
    Ok(enhanced)
}

fn check_line(line: usize, text: &str, room: usize, smtputf8: bool) -> Result<(), ReplyInvalid> {
    let refused = |c: &char| c.is_control() && *c != '\t' || !smtputf8 && !c.is_ascii();
    if let Some(character) = text.chars().find(refused) {
        return Err(ReplyInvalid::Character { line, character });
    }
    if text.len() > room {
        let octets = text.len() + REPLY_LINE_OCTETS_MAX - room;
        return Err(ReplyInvalid::LineLength { line, octets });
    }
    Ok(())
}

fn default_text(code: u16) -> &'static str {
    match code / 100 {
        2 => "Ok",
        4 => "Try again later",
        _ => "Refused",
    }
}

/// The longest beginning of at most `octets` octets that ends between two characters.
fn cut(text: &str, octets: usize) -> &str {
    text.get(..text.floor_char_boundary(octets)).unwrap_or(text)
}

fn digits(number: u16) -> usize {
    match number {
        0..=9 => 1,
        10..=99 => 2,
        100..=999 => 3,
        1000..=9999 => 4,
        _ => 5,
    }
}

/// Decimal without the formatting machinery: replies are written for every command.
fn put_number(output: &mut BytesMut, number: u16) {
    let mut place = 10_u16.pow(u32::try_from(digits(number) - 1).unwrap_or(0));
    while place > 0 {
        let digit = number / place % 10;
        output.put_u8(b'0' + u8::try_from(digit).unwrap_or(0));
        place /= 10;
    }
}
