//! The structure of a message as the scanner found it: spans, never copies of content.
//!
//! Owns the limits. Offsets count octets from the start of the message; ranges exclude their end. Nothing here fails: what
//! was beyond a limit is named in [`Structure::truncated`], what different readers may understand differently in
//! [`Structure::defects`].

use std::ops::Range;

/// Most MIME entities in one message; the scanner stops at the next one.
pub const PARTS_MAX: usize = 1000;
/// Deepest nesting of multiparts and messages; deeper containers are leaves.
pub const DEPTH_MAX: usize = 32;
/// Most octets in one header section; the scanner stops there.
pub const HEADER_OCTETS_MAX: usize = 1024 * 1024;
/// Most fields recorded of one header section; further ones are passed over.
pub const HEADER_FIELDS_MAX: usize = 1000;
/// Longest delimiter line, the longest line there may be (RFC 5322 §2.1.1). RFC 2046 §5.1.1 has boundaries end at 70.
pub const DELIMITER_OCTETS_MAX: usize = 998;
/// Longest media type kept, RFC 6838 §4.2 has them end at 127 + 1 + 127.
pub const TYPE_OCTETS_MAX: usize = 255;
/// Most readings of one entity's name that are kept.
pub const NAMES_MAX: usize = 16;
/// Longest file name kept, in octets; of a longer one the end, where its extension is.
pub const NAME_OCTETS_MAX: usize = 1024;

/// What a message consists of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Structure {
    /// Octets of the message.
    pub len: u64,
    /// Just after the empty line that ends the header section; the whole length, or where a limit was met, if there is none.
    pub header_end: u64,
    /// Where a field appended to the header belongs: at the empty line; equals `header_end` if there is none.
    pub fields_end: u64,
    /// Header fields of the message itself, in order.
    pub fields: Vec<Field>,
    /// All entities, each before its children. The first is the message itself.
    pub parts: Vec<Part>,
    /// The first limit that the message went beyond; what lies behind it is not described.
    pub truncated: Option<Limit>,
    /// Oddities that other readers may understand in another way.
    pub defects: Defects,
}

/// One header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Name, without space before the colon.
    pub name: Range<u64>,
    /// After the colon up to, not including, the last line end; folded as received.
    pub value: Range<u64>,
    /// With the last line end.
    pub whole: Range<u64>,
}

/// One MIME entity: the message itself, a part of a multipart, or the message inside a message/rfc822 part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// Numbers from the top, `1.2`; empty for the message itself. The message inside `2` is `2.1`, always, and if it is a
    /// multipart, its parts are `2.1.1`, `2.1.2`, … (IMAP drops that level; here every entity has a path of its own).
    pub path: String,
    /// Index of the enclosing entity in [`Structure::parts`].
    pub parent: Option<usize>,
    /// Lower case, `type/subtype`; the default of RFC 2045 §5.2 or 2046 §5.1.5 if not stated or not readable.
    pub content_type: String,
    /// `charset` parameter in lower case; empty if none.
    pub charset: String,
    /// File name after RFC 2231 and RFC 2047 decoding: that of Content-Disposition before that of Content-Type; empty if none.
    pub name: String,
    /// Further names that a reader could arrive at: the other field's, repeated or malformed parameters.
    pub other_names: Vec<String>,
    /// Lower case, `attachment`, `inline`, …; empty if none.
    pub disposition: String,
    /// Content-Transfer-Encoding.
    pub encoding: Encoding,
    /// First octet of the header section.
    pub header_start: u64,
    /// First octet of the body.
    pub body_start: u64,
    /// End of the body, before the line end that belongs to the delimiter (RFC 2046 §5.1.1).
    pub body_end: u64,
    /// End of the entity: start of the delimiter line that follows, or the end of the message.
    pub entity_end: u64,
}

/// Content-Transfer-Encoding, RFC 2045 §6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `7bit`, or not stated.
    #[default]
    SevenBit,
    /// `8bit`.
    EightBit,
    /// `binary`.
    Binary,
    /// `quoted-printable`.
    QuotedPrintable,
    /// `base64`.
    Base64,
    /// Anything else, such as `x-uuencode`.
    Other,
}

/// A limit that a message went beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`PARTS_MAX`].
    Parts,
    /// [`DEPTH_MAX`].
    Depth,
    /// [`HEADER_OCTETS_MAX`].
    HeaderOctets,
    /// [`HEADER_FIELDS_MAX`].
    HeaderFields,
    /// A boundary that does not fit [`DELIMITER_OCTETS_MAX`].
    Boundary,
}

/// Something that mail readers are known to disagree about. Harmless in most mail, useful to hide a part from a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Defect {
    /// A multipart without its closing delimiter.
    MissingClose,
    /// A multipart without a usable boundary parameter.
    MissingBoundary,
    /// A multipart inside another one with the same boundary.
    RepeatedBoundary,
    /// A line that starts like a delimiter and goes on with other octets.
    DelimiterPrefix,
    /// A delimiter after the closing one of its multipart.
    DelimiterAfterClose,
    /// Content-Type, Content-Disposition or Content-Transfer-Encoding more than once in a header section.
    RepeatedField,
    /// A parameter that is repeated, or followed by octets that belong to nothing.
    Parameters,
    /// A multipart or message/rfc822 with base64 or quoted-printable, against RFC 2045 §6.4. A multipart is described as if it
    /// were not encoded, as readers do; an encoded message is a leaf.
    EncodedContainer,
    /// A Content-Transfer-Encoding that is not in RFC 2045.
    UnknownEncoding,
    /// A line in a header section that is not a field.
    NotAField,
    /// A line of white space only in a header section: the end of the header to some, a folded line to others.
    BlankFold,
}

/// All defects, in the order of the enum.
const DEFECTS: [Defect; 11] = [
    Defect::MissingClose,
    Defect::MissingBoundary,
    Defect::RepeatedBoundary,
    Defect::DelimiterPrefix,
    Defect::DelimiterAfterClose,
    Defect::RepeatedField,
    Defect::Parameters,
    Defect::EncodedContainer,
    Defect::UnknownEncoding,
    Defect::NotAField,
    Defect::BlankFold,
];

/// A set of [`Defect`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Defects(u16);

impl Structure {
    /// The entity at `path`.
    pub fn part(&self, path: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.path == path)
    }

    /// Indices of the entities directly inside entity `parent`.
    pub fn children(&self, parent: usize) -> impl Iterator<Item = usize> + '_ {
        let parts = self.parts.iter().enumerate();
        parts
            .filter(move |(_, part)| part.parent == Some(parent))
            .map(|(index, _)| index)
    }
}

impl Part {
    /// Octets of the encoded body.
    pub fn body_len(&self) -> u64 {
        self.body_end.saturating_sub(self.body_start)
    }

    /// A multipart or an enclosed message by its type.
    pub fn is_container(&self) -> bool {
        self.is_multipart() || self.is_message()
    }

    /// `multipart/…`.
    pub fn is_multipart(&self) -> bool {
        self.content_type.starts_with("multipart/")
    }

    /// `message/rfc822` or `message/global` (RFC 6532 §3.7).
    pub fn is_message(&self) -> bool {
        matches!(
            self.content_type.as_str(),
            "message/rfc822" | "message/global"
        )
    }

    /// The body in the octets of its message; empty if `message` is shorter.
    pub fn body<'m>(&self, message: &'m [u8]) -> &'m [u8] {
        slice(message, &(self.body_start..self.body_end))
    }

    /// All names, the preferred one first; none empty.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let others = self.other_names.iter().map(String::as_str);
        std::iter::once(self.name.as_str())
            .chain(others)
            .filter(|name| !name.is_empty())
    }
}

impl Defects {
    /// No defect at all.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Is it in the set?
    pub fn contains(self, defect: Defect) -> bool {
        self.0 & (1 << defect as u8) != 0
    }

    /// All in the set.
    pub fn iter(self) -> impl Iterator<Item = Defect> {
        DEFECTS
            .into_iter()
            .filter(move |defect| self.contains(*defect))
    }

    pub(crate) fn insert(&mut self, defect: Defect) {
        self.0 |= 1 << defect as u8;
    }

    pub(crate) fn extend(&mut self, others: Self) {
        self.0 |= others.0;
    }
}

impl Encoding {
    /// From the field's value; parameters and comments do not exist here.
    pub(crate) fn parse(value: &[u8]) -> Self {
        let token = value.trim_ascii().to_ascii_lowercase();
        match token.as_slice() {
            b"" | b"7bit" => Self::SevenBit,
            b"8bit" => Self::EightBit,
            b"binary" => Self::Binary,
            b"quoted-printable" => Self::QuotedPrintable,
            b"base64" => Self::Base64,
            _ => Self::Other,
        }
    }

    /// Are the octets of the body those of the content?
    pub fn is_identity(self) -> bool {
        matches!(self, Self::SevenBit | Self::EightBit | Self::Binary)
    }
}

/// `range` of `octets`; empty if it is not all there.
pub(crate) fn slice<'m>(octets: &'m [u8], range: &Range<u64>) -> &'m [u8] {
    let start = usize::try_from(range.start).unwrap_or(usize::MAX);
    let end = usize::try_from(range.end).unwrap_or(usize::MAX);
    octets.get(start..end).unwrap_or_default()
}
