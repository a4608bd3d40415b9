//! Finds what the policy forbids in the octets of a message.
//!
//! Owns no decision: it gives [`Finding`]s. Looks at every leaf by all its names, its declared type and its decoded content, at
//! names inside ZIP files and uuencoded blocks, and at messages inside messages, encoded ones too. Where mail readers may see
//! other parts than a strict one ([`opes_mime::Defect`]), it looks a second time the way the loosest of them would. Never fails
//! and never panics; what goes beyond a limit is a finding.

mod loose;

use std::fmt;
use std::ops::Range;

use opes_mime::decode::Decoder;
use opes_mime::structure::PARTS_MAX;
use opes_mime::{Defect, Encoding, Limit, Part, Structure, scan};

use crate::config::Config;
use crate::formats::{self, Format};

/// Encoded messages inside encoded messages that are decoded one after the other.
const DECODED_MESSAGES_MAX: u32 = 8;

/// Something that the policy forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Entity to replace, as in [`opes_mime::Part::path`]; empty = the message itself.
    pub path: String,
    /// File name of the part; empty if it has none.
    pub name: String,
    /// Why it is forbidden.
    pub cause: Cause,
}

/// Why something is forbidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The file name fits this pattern.
    Name(String),
    /// The content is of this format, whatever it claims.
    Format(Format),
    /// The declared media type.
    DeclaredType(String),
    /// A name inside an archive or a uuencoded block fits this pattern.
    EntryName(String),
    /// More messages inside messages than this.
    Nesting(u32),
    /// The structure goes beyond a limit, so that not everything was seen.
    Beyond(Limit),
}

impl Cause {
    /// A word for metrics, header fields and annotations.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::Format(format) => format.name,
            Self::DeclaredType(_) => "declared-type",
            Self::EntryName(_) => "entry-name",
            Self::Nesting(_) => "nesting",
            Self::Beyond(_) => "limit",
        }
    }
}

/// For people, within a sentence.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(pattern) => write!(f, "its name is of the kind {pattern}"),
            Self::Format(format) => write!(
                f,
                "its content is of the kind {} ({})",
                format.group, format.name
            ),
            Self::DeclaredType(media_type) => write!(f, "its type is {media_type}"),
            Self::EntryName(pattern) => {
                write!(f, "it contains a file whose name is of the kind {pattern}")
            }
            Self::Nesting(max) => write!(f, "it is nested in more than {max} messages"),
            Self::Beyond(limit) => write!(f, "its structure goes beyond a limit ({limit:?})"),
        }
    }
}

/// All that `config` forbids in `message`, one finding per entity, none inside another.
pub fn inspect(message: &[u8], config: &Config) -> Vec<Finding> {
    let mut inspector = Inspector {
        config,
        findings: Vec::new(),
    };
    inspector.message(message, &Place::default());
    outermost(inspector.findings)
}

/// Where a message that is looked at stands.
#[derive(Debug, Clone, Default)]
struct Place {
    /// Path to report, if the message is not the one that came in but was decoded from a part of it.
    outer: Option<String>,
    /// Messages around it.
    nesting: u32,
    /// Decoded messages around it.
    decoded: u32,
}

struct Inspector<'c> {
    config: &'c Config,
    findings: Vec<Finding>,
}

impl Inspector<'_> {
    fn message(&mut self, message: &[u8], place: &Place) {
        let structure = scan(message);
        let mut seen = Vec::new();
        for part in &structure.parts {
            let before = self.findings.len();
            self.part(message, &structure, part, place);
            if self.findings.len() > before {
                seen.push(part.header_start..part.entity_end);
            }
        }
        if let Some(limit) = structure.truncated {
            self.find("", "", Cause::Beyond(limit), place);
        }
        if may_hide(&structure) {
            self.look_loosely(message, &structure, &seen, place);
        }
    }

    fn part(&mut self, message: &[u8], structure: &Structure, part: &Part, place: &Place) {
        let nesting = place.nesting + enclosing_messages(structure, part);
        let cause = self
            .forbidden_message(part, nesting)
            .or_else(|| self.forbidden_header(part));
        if let Some(cause) = cause {
            return self.find(&part.path, &part.name, cause, place);
        }
        let body = part.body(message);
        if part.is_message() && !part.encoding.is_identity() {
            let inner = Place {
                outer: Some(place.outer.clone().unwrap_or_else(|| part.path.clone())),
                nesting: nesting + 1,
                decoded: place.decoded + 1,
            };
            return self.encoded_message(part, &decoded(body, part.encoding), &inner, place);
        }
        if !part.is_container()
            && let Some(cause) = self.forbidden_body(part, body, part.encoding)
        {
            self.find(&part.path, &part.name, cause, place);
        }
    }

    fn encoded_message(&mut self, part: &Part, message: &[u8], inner: &Place, place: &Place) {
        if inner.decoded > DECODED_MESSAGES_MAX {
            return self.find(&part.path, &part.name, Cause::Beyond(Limit::Depth), place);
        }
        self.message(message, inner);
    }

    fn forbidden_message(&self, part: &Part, nesting: u32) -> Option<Cause> {
        let max = self.config.settings.max_nesting;
        (part.is_message() && nesting >= max).then_some(Cause::Nesting(max))
    }

    fn forbidden_header(&self, part: &Part) -> Option<Cause> {
        let by_name = part.names().find_map(|name| self.config.blocks_name(name));
        let by_type = || {
            self.config
                .blocks_media_type(&part.content_type)
                .then(|| Cause::DeclaredType(part.content_type.clone()))
        };
        by_name
            .map(|pattern| Cause::Name(pattern.to_owned()))
            .or_else(by_type)
    }

    fn forbidden_body(&self, part: &Part, body: &[u8], encoding: Encoding) -> Option<Cause> {
        if encoding.is_identity() {
            return self.forbidden_content(part, body);
        }
        self.forbidden_content(part, &decoded(body, encoding))
    }

    fn forbidden_content(&self, part: &Part, content: &[u8]) -> Option<Cause> {
        if let Some(format) =
            formats::detect(content).filter(|format| self.config.blocks_format(*format))
        {
            // A text for reading may begin with anything; only a file can be a script.
            let is_text_to_read = part.content_type == "text/plain"
                && part.name.is_empty()
                && part.disposition != "attachment";
            if !(is_text_to_read && format.group == "script") {
                return Some(Cause::Format(format));
            }
        }
        let archived = formats::archive_names(content)
            .find_map(|name| self.config.blocks_name(&name).map(str::to_owned));
        archived
            .or_else(|| self.forbidden_uuencoded(content))
            .map(Cause::EntryName)
    }

    /// `begin 644 name` at the start of a line: some readers show what follows as an attachment.
    fn forbidden_uuencoded(&self, content: &[u8]) -> Option<String> {
        let starts = memchr::memmem::find_iter(content, b"begin ");
        let at_line_start = |at: &usize| {
            at.checked_sub(1)
                .and_then(|before| content.get(before))
                .is_none_or(|c| *c == b'\n')
        };
        starts.filter(at_line_start).take(PARTS_MAX).find_map(|at| {
            let line = content
                .get(at..)?
                .split(|c| matches!(c, b'\r' | b'\n'))
                .next()?;
            let mut words = line.splitn(3, |c| *c == b' ').skip(1);
            let mode = words.next()?;
            let name = String::from_utf8_lossy(words.next()?).into_owned();
            let is_mode =
                (3..=4).contains(&mode.len()) && mode.iter().all(|c| (b'0'..=b'7').contains(c));
            self.config
                .blocks_name(&name)
                .filter(|_| is_mode)
                .map(str::to_owned)
        })
    }

    fn find(&mut self, path: &str, name: &str, cause: Cause, place: &Place) {
        let path = place.outer.as_deref().unwrap_or(path).to_owned();
        self.findings.push(Finding {
            path,
            name: name.to_owned(),
            cause,
        });
    }
}

/// The content of an encoded body.
fn decoded(body: &[u8], encoding: Encoding) -> Vec<u8> {
    let mut content = Vec::with_capacity(body.len());
    let mut decoder = Decoder::new(encoding);
    decoder.push(body, &mut content);
    decoder.finish(&mut content);
    content
}

/// Messages that this part is inside of, itself not counted.
fn enclosing_messages(structure: &Structure, part: &Part) -> u32 {
    let parent = |part: &Part| structure.parts.get(part.parent?);
    let ancestors = std::iter::successors(parent(part), |part| structure.parts.get(part.parent?));
    ancestors.fold(0, |count, part| count + u32::from(part.is_message()))
}

/// Could a looser reader see parts that the structure does not have?
fn may_hide(structure: &Structure) -> bool {
    let harmless = |defect| matches!(defect, Defect::NotAField | Defect::MissingClose);
    structure.defects.iter().any(|defect| !harmless(defect))
}

/// One finding per entity, and none for what goes with an entity around it.
fn outermost(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| finding.path.len());
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        if !kept.iter().any(|outer| covers(&outer.path, &finding.path)) {
            kept.push(finding);
        }
    }
    kept.sort_by(|a, b| a.path.cmp(&b.path));
    kept
}

fn covers(outer: &str, inner: &str) -> bool {
    let inside = |rest: &str| rest.is_empty() || rest.starts_with('.');
    outer.is_empty() || inner.strip_prefix(outer).is_some_and(inside)
}

/// Is octet `at` in one of these?
fn inside(spans: &[Range<u64>], at: u64) -> bool {
    spans.iter().any(|span| span.contains(&at))
}

#[cfg(test)]
mod tests;
