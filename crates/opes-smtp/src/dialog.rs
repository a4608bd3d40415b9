//! Dialog scripts: SMTP dialogs in the `S:` / `C:` notation of the RFCs, as tests.
//!
//! The notation is described in `tests/dialogs/README.md`. [`parse`] gives a [`Script`]; [`core::run`] plays it against a
//! [`crate::server::Session`]. Runners over sockets live with the tests that need them and share [`matches`].

pub mod core;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::reply::{Enhanced, Reply};
use crate::server::{AuthMode, Config, Protocol};

/// Name of the server in scripts.
pub const HOSTNAME: &str = "mail.example.com";

/// One file.
#[derive(Debug, Clone)]
pub struct Script {
    /// How the server is set up.
    pub settings: Settings,
    /// In order.
    pub steps: Vec<Step>,
}

/// What must be so before the dialog begins.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The listener.
    pub config: Config,
    /// Encrypted from the first octet.
    pub implicit_tls: bool,
    /// Name and password pairs that are right.
    pub users: Vec<(String, String)>,
    /// What the shell answers at processing points, by command line.
    pub answers: Vec<(String, Answer)>,
    /// Compare codes only.
    pub texts_any: bool,
    /// Do not cut the client's writes into pieces.
    pub whole: bool,
    /// Messages accepted at the end.
    pub messages: Option<usize>,
}

/// What the shell answers at one processing point.
#[derive(Debug, Clone)]
pub enum Answer {
    /// One reply, or with content of LMTP and PRDR one for each recipient.
    Replies(Vec<Reply>),
    /// Another command line.
    Line(String),
}

/// One step, with its line in the file for messages.
#[derive(Debug, Clone)]
pub struct Step {
    /// Counted from 1.
    pub line: usize,
    /// What happens.
    pub kind: StepKind,
}

/// What happens in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKind {
    /// The client writes.
    Send(Vec<u8>),
    /// The server writes a line that fits this pattern.
    Expect(String),
    /// TLS handshake.
    Handshake,
    /// The server closes.
    Close,
    /// The next accepted message has these octets.
    Message(Vec<u8>),
}

/// A script that cannot be read, or a dialog that went otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {message}")]
pub struct DialogError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl DialogError {
    /// An error at a line of the script.
    pub fn new(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            config: Config::new(HOSTNAME, Protocol::Smtp),
            implicit_tls: false,
            users: Vec::new(),
            answers: Vec::new(),
            texts_any: false,
            whole: false,
            messages: None,
        }
    }
}

// === Parsing ===

/// Reads a script.
pub fn parse(text: &str) -> Result<Script, DialogError> {
    let mut script = Script {
        settings: Settings::default(),
        steps: Vec::new(),
    };
    for (number, line) in unwrap_lines(text) {
        let error = |message: String| DialogError::new(number, message);
        match step(&line).map_err(error)? {
            Some(kind) => script.push(number, kind),
            None if script.steps.is_empty() => {
                setting(&mut script.settings, &line).map_err(error)?;
            }
            None => return Err(error(format!("no step: {line}"))),
        }
    }
    Ok(script)
}

impl Script {
    /// Neighbouring writes are one write.
    fn push(&mut self, line: usize, kind: StepKind) {
        match (self.steps.last_mut().map(|step| &mut step.kind), kind) {
            (Some(StepKind::Send(before)), StepKind::Send(octets)) => before.extend(octets),
            (_, kind) => self.steps.push(Step { line, kind }),
        }
    }
}

const PREFIXES: [&str; 6] = ["C:", "R:", "S:", "T:", "Z:", "M:"];

/// Lines with their numbers, comments dropped, continuations joined.
fn unwrap_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let starts = |prefix: &&str| line.starts_with(*prefix);
        let in_steps = lines
            .last()
            .is_some_and(|(_, last)| PREFIXES.iter().any(|p| last.starts_with(p)));
        match lines.last_mut() {
            _ if line.is_empty() || line.starts_with('#') => {}
            Some((_, last)) if in_steps && !PREFIXES.iter().any(starts) => {
                last.push(' ');
                last.push_str(line);
            }
            _ => lines.push((index + 1, line.to_owned())),
        }
    }
    lines
}

fn step(line: &str) -> Result<Option<StepKind>, String> {
    let Some((prefix, rest)) = line.split_at_checked(2) else {
        return Ok(None);
    };
    let text = rest.strip_prefix(' ').unwrap_or(rest);
    Ok(Some(match prefix {
        "C:" => StepKind::Send([text.as_bytes(), b"\r\n"].concat()),
        "R:" => StepKind::Send(octets(text)?),
        "S:" => StepKind::Expect(text.to_owned()),
        "T:" => StepKind::Handshake,
        "Z:" => StepKind::Close,
        "M:" => StepKind::Message(octets(text)?),
        _ => return Ok(None),
    }))
}

/// Escapes and repetitions.
fn octets(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (repetition, after) = after.split_once('}').ok_or("no } after {")?;
        let (times, what) = repetition.split_once('*').ok_or("write {N*text}")?;
        let times: usize = times
            .parse()
            .map_err(|_| format!("{times:?} is no number"))?;
        octets.extend(unescape(before)?);
        octets.extend(unescape(what)?.repeat(times));
        rest = after;
    }
    octets.extend(unescape(rest)?);
    Ok(octets)
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let escaped = match (byte, byte == b'\\') {
            (_, true) => bytes.next().ok_or("nothing after \\")?,
            (plain, false) => {
                octets.push(plain);
                continue;
            }
        };
        octets.push(match escaped {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is no octet"))?
            }
            other => return Err(format!("unknown escape \\{}", char::from(other))),
        });
    }
    Ok(octets)
}

fn setting(settings: &mut Settings, line: &str) -> Result<(), String> {
    let (keyword, value) = line.split_once(':').unwrap_or((line, ""));
    let value = value.trim();
    match keyword.trim() {
        "listener" => settings.config.protocol = protocol(value)?,
        "offers" => value
            .split_whitespace()
            .try_for_each(|word| offer(&mut settings.config, word))?,
        "implicit-tls" => settings.implicit_tls = true,
        "limits" => value
            .split_whitespace()
            .try_for_each(|word| limit(&mut settings.config, word))?,
        "user" => {
            let (name, password) = value.split_once(' ').ok_or("write user: NAME PASSWORD")?;
            settings.users.push((name.to_owned(), password.to_owned()));
        }
        "answer" => settings.answers.push(answer(value)?),
        "texts" if value == "any" => settings.texts_any = true,
        "whole" => settings.whole = true,
        "messages" => settings.messages = Some(number(value)?),
        _ => return Err(format!("unknown setting {line:?}")),
    }
    Ok(())
}

fn protocol(name: &str) -> Result<Protocol, String> {
    match name {
        "smtp" => Ok(Protocol::Smtp),
        "submission" => Ok(Protocol::Submission),
        "lmtp" => Ok(Protocol::Lmtp),
        _ => Err(format!("unknown listener {name:?}")),
    }
}

fn offer(config: &mut Config, word: &str) -> Result<(), String> {
    match word {
        "tls" => config.tls_available = true,
        "tls-required" => config.tls_required = true,
        "auth" => config.auth = AuthMode::TlsOnly,
        "auth-required" => config.auth_required = true,
        "dsn" => config.dsn = true,
        "prdr" => config.prdr = true,
        "bypass" => config.opes_bypass = true,
        "no-chunking" => config.chunking = false,
        "no-smtputf8" => config.smtputf8 = false,
        _ => return Err(format!("unknown offer {word:?}")),
    }
    Ok(())
}

fn limit(config: &mut Config, word: &str) -> Result<(), String> {
    let (name, value) = word.split_once('=').ok_or("write limits: NAME=N")?;
    match name {
        "size" => config.size_max = number(value)?,
        "recipients" => config.recipients_max = number(value)?,
        "errors" => config.errors_max = number(value)?,
        "idle" => config.idle_commands_max = number(value)?,
        _ => return Err(format!("unknown limit {name:?}")),
    }
    Ok(())
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn answer(value: &str) -> Result<(String, Answer), String> {
    if let Some((line, replies)) = value.split_once(" = ") {
        let replies: Result<_, _> = replies.split('|').map(|text| reply(text.trim())).collect();
        return Ok((line.to_owned(), Answer::Replies(replies?)));
    }
    let (line, other) = value
        .split_once(" > ")
        .ok_or("write LINE = REPLY or LINE > LINE")?;
    Ok((line.to_owned(), Answer::Line(other.to_owned())))
}

fn reply(text: &str) -> Result<Reply, String> {
    let (code, text) = text.split_once(' ').ok_or("write CODE ENHANCED TEXT")?;
    let (enhanced, text) = text.split_once(' ').ok_or("write CODE ENHANCED TEXT")?;
    let enhanced: Enhanced = enhanced.parse().map_err(|error| format!("{error}"))?;
    Reply::checked(number(code)?, Some(enhanced), &[text]).map_err(|error| error.to_string())
}

// === Matching ===

/// True if the line, without CRLF, fits the pattern of an `S:` step.
pub fn matches(settings: &Settings, pattern: &str, line: &str) -> bool {
    if settings.texts_any {
        codes(pattern) == codes(line)
    } else {
        fits(pattern, line)
    }
}

/// `...` in the pattern stands for any run of characters.
fn fits(pattern: &str, line: &str) -> bool {
    let Some((pattern, last)) = pattern.rsplit_once("...") else {
        return pattern == line;
    };
    let mut pieces = pattern.split("...");
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

/// Code, separator and, where both sides may have one, enhanced code.
fn codes(line: &str) -> (&str, Option<Enhanced>) {
    let (code, text) = line.split_at_checked(4).unwrap_or((line, ""));
    (
        code,
        text.split(' ').next().and_then(|word| word.parse().ok()),
    )
}
