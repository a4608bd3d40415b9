//! Finds what the policy forbids in the octets of a message.
//!
//! Owns no decision: it gives [`Finding`]s. Looks at every leaf by all its names, its declared type and its decoded content, at
//! archives ([`crate::archive`]), at names of uuencoded blocks, and at messages inside messages, encoded ones too. Where mail readers may see
//! other parts than a strict one ([`opes_mime::Defect`]), it looks a second time the way the loosest of them would. Never fails
//! and never panics; what goes beyond a limit is a finding.

mod loose;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use opes_mime::decode::Decoder;
use opes_mime::structure::PARTS_MAX;
use opes_mime::{Defect, Encoding, Limit, Part, Structure, scan};

use crate::archive::{Budget, Unseen};
use crate::config::Config;
use crate::formats::{self, ARCHIVE_ENTRIES_MAX, Format};
use crate::names::of_archive;

/// Encoded messages inside encoded messages that are decoded one after the other.
const DECODED_MESSAGES_MAX: u32 = 8;

/// Something that the policy forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Entity to replace, as in [`opes_mime::Part::path`]; empty = the message itself.
    pub path: String,
    /// File name of the part; empty if it has none. Of something inside it, with the way to it: `invoice.zip/inner.zip/evil.exe`.
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
    /// Something in it was not looked at completely.
    Unseen(Unseen),
    /// The virus scanner calls it so.
    Virus(String),
}

impl Cause {
    /// Nothing forbidden was seen, but not everything was.
    pub fn is_doubt(&self) -> bool {
        matches!(self, Self::Beyond(_) | Self::Unseen(_))
    }

    /// A word for metrics, header fields and annotations.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::Format(format) => format.name,
            Self::DeclaredType(_) => "declared-type",
            Self::EntryName(_) => "entry-name",
            Self::Nesting(_) => "nesting",
            Self::Beyond(_) => "limit",
            Self::Unseen(_) => "unscannable",
            Self::Virus(_) => "virus",
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
            Self::Unseen(why) => write!(f, "it cannot be looked at completely: {why}"),
            Self::Virus(name) => write!(f, "it is infected with {name}"),
        }
    }
}

/// A part as it can be given to a virus scanner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// As in [`Finding::path`].
    pub path: String,
    /// Its file name; empty if it has none.
    pub name: String,
    /// Octets of the message that its encoded content takes.
    pub body: Range<usize>,
    /// Of these octets.
    pub encoding: Encoding,
}

/// What there is to say about a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looked {
    /// What is forbidden, and what was not seen, one finding per entity, none inside another.
    pub findings: Vec<Finding>,
    /// Parts that are no containers, and messages that are encoded.
    pub leaves: Vec<Leaf>,
    /// Mail readers may see other parts than these.
    pub is_odd: bool,
    /// There are archives or the like that were not opened, because no budget was given for that.
    pub has_archives: bool,
}

/// All that `config` forbids in `message`, one finding per entity, none inside another.
pub fn inspect(message: &[u8], config: &Config) -> Vec<Finding> {
    look(
        message,
        config,
        Some(&Budget::new(config.settings.archives)),
    )
    .findings
}

/// The same, opening archives with this budget, or not at all.
pub fn look(message: &[u8], config: &Config, budget: Option<&Budget>) -> Looked {
    let mut inspector = Inspector {
        config,
        budget,
        findings: Vec::new(),
        unseen: Vec::new(),
        leaves: Vec::new(),
        is_odd: false,
        has_archives: false,
    };
    inspector.message(message, &Place::default());
    Looked {
        findings: outermost(
            inspector
                .findings
                .into_iter()
                .chain(inspector.unseen)
                .collect(),
        ),
        leaves: inspector.leaves,
        is_odd: inspector.is_odd,
        has_archives: inspector.has_archives,
    }
}

/// Where a message that is looked at stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// Path to report, if the message is not the one that came in but was decoded from a part of it.
    pub(crate) outer: Option<String>,
    /// Messages around it.
    pub(crate) nesting: u32,
    /// Decoded messages around it.
    pub(crate) decoded: u32,
    /// Archives, and messages in them, around it.
    pub(crate) depth: u32,
    /// Names on the way to it, with `/` between them.
    pub(crate) trail: String,
}

pub(crate) struct Inspector<'c> {
    pub(crate) config: &'c Config,
    pub(crate) budget: Option<&'c Budget>,
    pub(crate) findings: Vec<Finding>,
    unseen: Vec<Finding>,
    leaves: Vec<Leaf>,
    is_odd: bool,
    pub(crate) has_archives: bool,
}

// === impl Place ===

impl Place {
    /// Inside the part at `path`.
    fn inside(&self, path: &str, name: &str) -> Self {
        Self {
            outer: Some(self.outer.clone().unwrap_or_else(|| path.to_owned())),
            trail: self.way_to(name),
            ..*self
        }
    }

    /// At a file of the archive that this is inside of.
    pub(crate) fn deeper(&self, name: &str) -> Self {
        Self {
            outer: self.outer.clone(),
            trail: self.way_to(name),
            depth: self.depth + 1,
            ..*self
        }
    }

    fn way_to(&self, name: &str) -> String {
        match (self.trail.as_str(), name) {
            ("", name) => name.to_owned(),
            (trail, "") => trail.to_owned(),
            (trail, name) => format!("{trail}/{name}"),
        }
    }
}

// === impl Inspector ===

impl Inspector<'_> {
    pub(crate) fn message(&mut self, message: &[u8], place: &Place) {
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
            self.doubt(Cause::Beyond(limit), place);
        }
        if may_hide(&structure) {
            self.is_odd = true;
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
        let is_leaf = !part.is_container();
        let is_encoded_message = part.is_message() && !part.encoding.is_identity();
        if place.outer.is_none() && (is_leaf || is_encoded_message) {
            self.leaves.extend(leaf(part));
        }
        if is_encoded_message {
            let inner = Place {
                nesting: nesting + 1,
                decoded: place.decoded + 1,
                ..place.inside(&part.path, "")
            };
            return self.encoded_message(part, &decoded(body, part.encoding), &inner, place);
        }
        if is_leaf {
            self.body(
                part,
                &part.path,
                body,
                part.encoding,
                &Place {
                    nesting,
                    ..place.clone()
                },
            );
        }
    }

    /// Content of a part; `path` is where a finding belongs. `true`: something is forbidden.
    fn body(
        &mut self,
        part: &Part,
        path: &str,
        body: &[u8],
        encoding: Encoding,
        place: &Place,
    ) -> bool {
        let content = if encoding.is_identity() {
            Cow::Borrowed(body)
        } else {
            Cow::Owned(decoded(body, encoding))
        };
        let found = self.findings.len();
        // A text for reading may begin with anything; only a file can be a script.
        let is_text = part.content_type == "text/plain"
            && part.name.is_empty()
            && part.disposition != "attachment";
        match self.forbidden_content(is_text, &content) {
            Some(cause) => self.find(path, &part.name, cause, place),
            None => self.open(&content, is_text, &place.inside(path, &part.name)),
        }
        self.findings.len() > found
    }

    fn encoded_message(&mut self, part: &Part, message: &[u8], inner: &Place, place: &Place) {
        if inner.decoded > DECODED_MESSAGES_MAX {
            return self.doubt(
                Cause::Beyond(Limit::Depth),
                &place.inside(&part.path, &part.name),
            );
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

    pub(crate) fn forbidden_content(&self, is_text: bool, content: &[u8]) -> Option<Cause> {
        let is_forbidden = |format: &Format| self.config.blocks_format(*format);
        if let Some(format) = formats::detect(content).filter(is_forbidden)
            && !(is_text && format.group == "script")
        {
            return Some(Cause::Format(format));
        }
        let archived = formats::archive_names(content, self.names_max())
            .find_map(|name| self.config.blocks_name(&name).map(str::to_owned));
        archived
            .or_else(|| self.forbidden_uuencoded(content))
            .map(Cause::EntryName)
    }

    /// Entries whose names are looked at in each file: as many as may be opened, if those are more than usual.
    pub(crate) fn names_max(&self) -> usize {
        let entries_max = usize::try_from(self.config.settings.archives.entries_max);
        entries_max.map_or(ARCHIVE_ENTRIES_MAX, |max| max.max(ARCHIVE_ENTRIES_MAX))
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
            let is_mode =
                (3..=4).contains(&mode.len()) && mode.iter().all(|c| (b'0'..=b'7').contains(c));
            let mut names = of_archive(words.next()?).filter(|_| is_mode);
            names.find_map(|name| self.config.blocks_name(&name).map(str::to_owned))
        })
    }

    pub(crate) fn find(&mut self, path: &str, name: &str, cause: Cause, place: &Place) {
        let path = place.outer.as_deref().unwrap_or(path).to_owned();
        let name = place.way_to(name);
        self.findings.push(Finding { path, name, cause });
    }

    /// Something was not looked at completely.
    pub(crate) fn unseen(&mut self, why: Unseen, place: &Place) {
        self.doubt(Cause::Unseen(why), place);
    }

    /// The first doubt about an entity is enough.
    fn doubt(&mut self, cause: Cause, place: &Place) {
        let path = place.outer.clone().unwrap_or_default();
        if !self.unseen.iter().any(|finding| finding.path == path) {
            let name = place.trail.clone();
            self.unseen.push(Finding { path, name, cause });
        }
    }
}

fn leaf(part: &Part) -> Option<Leaf> {
    let body = usize::try_from(part.body_start).ok()?..usize::try_from(part.body_end).ok()?;
    (!body.is_empty()).then(|| Leaf {
        path: part.path.clone(),
        name: part.name.clone(),
        body,
        encoding: part.encoding,
    })
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

/// One finding per entity, and none for what goes with an entity around it. What is forbidden goes, so doubts about what is in it go too;
/// a doubt about an entity hides nothing that is forbidden in it.
pub(crate) fn outermost(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| (finding.cause.is_doubt(), finding.path.len()));
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        if !kept.iter().any(|outer| covers(&outer.path, &finding.path)) {
            kept.push(finding);
        }
    }
    kept.sort_by(|a, b| a.path.cmp(&b.path));
    kept
}

pub(crate) fn covers(outer: &str, inner: &str) -> bool {
    let inside = |rest: &str| rest.is_empty() || rest.starts_with('.');
    outer.is_empty() || inner.strip_prefix(outer).is_some_and(inside)
}

/// Is octet `at` in one of these?
fn inside(spans: &[Range<u64>], at: u64) -> bool {
    spans.iter().any(|span| span.contains(&at))
}

#[cfg(test)]
mod tests;
