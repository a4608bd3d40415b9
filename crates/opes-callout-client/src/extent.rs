//! How far into the content a transaction sends: the lesser of what the rule and the service want, found while the
//! content still grows, and split into the parts header and body.

use bytes::Bytes;
use opes_proto::smtp;

use crate::request::ContentWant;

/// What will be sent of one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    header_only: bool,
    octets: u64,
}

impl Extent {
    pub(crate) const NONE: Self = Self {
        header_only: false,
        octets: 0,
    };

    /// The lesser of both; everything if nobody says.
    pub(crate) fn least(rule: ContentWant, service: ContentWant) -> Self {
        [rule, service].into_iter().fold(
            Self {
                header_only: false,
                octets: u64::MAX,
            },
            Self::cut,
        )
    }

    fn cut(self, want: ContentWant) -> Self {
        match want {
            ContentWant::Unspecified | ContentWant::All => self,
            ContentWant::None => Self { octets: 0, ..self },
            ContentWant::Header => Self {
                header_only: true,
                ..self
            },
            ContentWant::Prefix(octets) => Self {
                octets: self.octets.min(octets),
                ..self
            },
        }
    }

    /// As MessageStart states it.
    pub(crate) fn announced(self) -> smtp::ContentWant {
        match self {
            Self { octets: 0, .. } => smtp::ContentWant::None,
            Self {
                header_only: true, ..
            } => smtp::ContentWant::Header,
            Self {
                octets: u64::MAX, ..
            } => smtp::ContentWant::All,
            Self { .. } => smtp::ContentWant::Prefix,
        }
    }
}

/// One fragment to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) part: smtp::Part,
    pub(crate) octets: Bytes,
}

/// Follows the content from its first octet on; says what is sent and when it is enough.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    extent: Extent,
    offset: u64,
    /// The header section has ended.
    in_body: bool,
    /// The last octets of the header so far, at most three: its end may be cut in two.
    tail: Tail,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tail {
    octets: [u8; 3],
    len: usize,
}

impl Cursor {
    pub(crate) fn new(extent: Extent) -> Self {
        Self {
            extent,
            offset: 0,
            in_body: false,
            tail: Tail::default(),
        }
    }

    /// Octets taken so far; the next octets to be offered start here.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Nothing further is wanted.
    pub(crate) fn is_satisfied(&self) -> bool {
        self.offset >= self.extent.octets || (self.extent.header_only && self.in_body)
    }

    /// Octets worth reading at most.
    pub(crate) fn wanted(&self) -> u64 {
        if self.is_satisfied() {
            0
        } else {
            self.extent.octets - self.offset
        }
    }

    /// The next octets of the content, as fragments to send: header, body or both.
    pub(crate) fn take(&mut self, mut octets: Bytes) -> [Option<Fragment>; 2] {
        let wanted = usize::try_from(self.wanted()).unwrap_or(usize::MAX);
        octets.truncate(wanted);
        if self.in_body {
            return [self.fragment(smtp::Part::Body, octets), None];
        }
        let Some(end) = self.header_end(&octets) else {
            self.tail.follow(&octets);
            return [self.fragment(smtp::Part::Header, octets), None];
        };
        let header = octets.split_to(end);
        let header = self.fragment(smtp::Part::Header, header);
        self.in_body = true;
        if self.extent.header_only {
            return [header, None];
        }
        [header, self.fragment(smtp::Part::Body, octets)]
    }

    fn fragment(&mut self, part: smtp::Part, octets: Bytes) -> Option<Fragment> {
        self.offset += octets.len() as u64;
        (!octets.is_empty()).then_some(Fragment { part, octets })
    }

    /// Octets of this chunk that belong to the header section, if it ends here.
    fn header_end(&self, chunk: &[u8]) -> Option<usize> {
        if self.offset == 0 {
            let end = opes_mime::header_end(chunk)?;
            return usize::try_from(end).ok();
        }
        if let Some(end) = self.end_across(chunk) {
            return Some(end);
        }
        memchr::memmem::find(chunk, b"\r\n\r\n").map(|at| at + 4)
    }

    /// The empty line began in the chunk before.
    fn end_across(&self, chunk: &[u8]) -> Option<usize> {
        let tail = self.tail.octets.get(..self.tail.len)?;
        let mut joint = [0_u8; 6];
        let head = chunk.get(..chunk.len().min(3))?;
        joint.get_mut(..tail.len())?.copy_from_slice(tail);
        joint
            .get_mut(tail.len()..tail.len() + head.len())?
            .copy_from_slice(head);
        let joint = joint.get(..tail.len() + head.len())?;
        // A message whose first line is empty has no header at all.
        let leading = self.offset < 2 && joint.starts_with(b"\r\n");
        let end = if leading {
            2
        } else {
            memchr::memmem::find(joint, b"\r\n\r\n")? + 4
        };
        end.checked_sub(tail.len())
    }
}

impl Tail {
    fn follow(&mut self, chunk: &[u8]) {
        for &octet in chunk
            .get(chunk.len().saturating_sub(3)..)
            .unwrap_or_default()
        {
            if self.len == self.octets.len() {
                self.octets.rotate_left(1);
                self.len -= 1;
            }
            if let Some(place) = self.octets.get_mut(self.len) {
                *place = octet;
                self.len += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
