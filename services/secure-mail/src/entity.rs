//! A message as what is to be protected and what stays outside: `Content-*` fields and the body go into the protected entity, every other field
//! stays where it is (RFC 3156 §5, RFC 8551 §3.1).
//!
//! Owns nothing of the octets: a new message is pieces over the old one, so that what nobody changed is not sent back.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use mail_parser::MessageParser;
use opes_mime::{Defect, Field, Limit, Part, Piece, Structure};

/// A message or entity, and where things are in it.
pub(crate) struct Entity<'m> {
    pub(crate) octets: &'m [u8],
    pub(crate) structure: Structure,
}

/// The header section goes beyond what can be taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header section is too large to be taken apart")]
pub(crate) struct TooLarge;

/// What a message is, as far as its outermost entity says. `part` is the one with the signature or the encrypted octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind<'m> {
    /// multipart/signed with an OpenPGP signature.
    PgpSigned { content: &'m [u8], part: usize },
    /// multipart/encrypted of OpenPGP.
    PgpEncrypted { part: usize },
    /// multipart/signed with a CMS signature.
    SmimeSigned { content: &'m [u8], part: usize },
    /// application/pkcs7-mime: signed or encrypted.
    Smime,
    /// None of these.
    Plain,
}

// === impl Entity ===

impl<'m> Entity<'m> {
    pub(crate) fn read(octets: &'m [u8]) -> Result<Self, TooLarge> {
        let structure = opes_mime::scan(octets);
        match structure.truncated {
            Some(Limit::HeaderOctets | Limit::HeaderFields) => Err(TooLarge),
            _ => Ok(Self { octets, structure }),
        }
    }

    /// What the outermost entity says that the message is.
    pub(crate) fn kind(&self) -> Kind<'m> {
        let Some(top) = self.structure.parts.first() else {
            return Kind::Plain;
        };
        if matches!(
            top.content_type.as_str(),
            "application/pkcs7-mime" | "application/x-pkcs7-mime"
        ) {
            return Kind::Smime;
        }
        let children: Vec<usize> = self.structure.children(0).take(3).collect();
        let &[first, second] = children.as_slice() else {
            return Kind::Plain;
        };
        let (Some(one), Some(two)) = (self.part(first), self.part(second)) else {
            return Kind::Plain;
        };
        match (top.content_type.as_str(), two.content_type.as_str()) {
            ("multipart/signed", "application/pgp-signature") => Kind::PgpSigned {
                content: self.slice(one.header_start..one.body_end),
                part: second,
            },
            (
                "multipart/signed",
                "application/pkcs7-signature" | "application/x-pkcs7-signature",
            ) => Kind::SmimeSigned {
                content: self.slice(one.header_start..one.body_end),
                part: second,
            },
            ("multipart/encrypted", "application/octet-stream")
                if one.content_type == "application/pgp-encrypted" =>
            {
                Kind::PgpEncrypted { part: second }
            }
            _ => Kind::Plain,
        }
    }

    pub(crate) fn part(&self, index: usize) -> Option<&Part> {
        self.structure.parts.get(index)
    }

    /// The body of an entity without its transfer encoding.
    pub(crate) fn decoded(&self, index: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        if let Some(part) = self.part(index) {
            let mut decoder = opes_mime::decode::Decoder::new(part.encoding);
            decoder.push(part.body(self.octets), &mut octets);
            decoder.finish(&mut octets);
        }
        octets
    }

    /// Readers may see something else than what is signed. An encoding that nobody knows moves no border.
    pub(crate) fn is_ambiguous(&self) -> bool {
        let mut defects = self.structure.defects.iter();
        self.structure.truncated.is_some() || defects.any(|found| found != Defect::UnknownEncoding)
    }

    /// What is protected: `Content-*` fields, an empty line, the body.
    pub(crate) fn protected(&self) -> Vec<Piece> {
        let mut pieces = self.content_fields();
        if pieces.is_empty() {
            pieces.push(mine("Content-Type: text/plain\r\n"));
        }
        pieces.push(mine("\r\n"));
        pieces.push(yours(&self.body()));
        pieces
    }

    /// The `Content-*` fields, with their line ends.
    pub(crate) fn content_fields(&self) -> Vec<Piece> {
        let ours = self.structure.fields.iter().filter(|field| {
            let name = self.slice(field.name.clone());
            starts_with_content(name)
        });
        let mut pieces: Vec<_> = ours.map(|field| yours(&field.whole)).collect();
        if let Some(Piece::Original { offset, len }) = pieces.last() {
            let end = offset.saturating_add(*len);
            if !self.slice(0..end).ends_with(b"\n") {
                pieces.push(mine("\r\n"));
            }
        }
        pieces
    }

    pub(crate) fn body(&self) -> Range<u64> {
        self.structure.header_end..self.structure.len
    }

    /// The message with other `Content-*` fields and another body. `fields` end with CRLF; `body` are pieces over this message.
    pub(crate) fn with_content(&self, fields: Vec<Piece>, body: Vec<Piece>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = 0;
        let content = self.structure.fields.iter().filter(|field| {
            let name = self.slice(field.name.clone());
            starts_with_content(name)
        });
        for Field { whole, .. } in content {
            pieces.push(yours(&(at..whole.start)));
            at = whole.end;
        }
        let end = self.structure.fields_end;
        pieces.push(yours(&(at..end.max(at))));
        if end > at && !self.slice(0..end).ends_with(b"\n") {
            pieces.push(mine("\r\n"));
        }
        if self.values("MIME-Version").next().is_none() {
            pieces.push(mine("MIME-Version: 1.0\r\n"));
        }
        pieces.extend(fields);
        pieces.push(mine("\r\n"));
        pieces.extend(body);
        pieces
    }

    /// Values of the fields of this name, from the top, as they stand there.
    pub(crate) fn values<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'m [u8]> + 'e {
        let fields = self.structure.fields.iter();
        fields
            .filter(move |field| {
                self.slice(field.name.clone())
                    .eq_ignore_ascii_case(name.as_bytes())
            })
            .map(|field| self.slice(field.value.clone()))
    }

    /// The address that readers show as the author, in lower case; `None` if there is not exactly one.
    pub(crate) fn author(&self) -> Option<String> {
        if self.values("From").count() != 1 {
            return None;
        }
        let header = self.slice(0..self.structure.header_end);
        let parsed = MessageParser::new().parse_headers(header)?;
        let mut addresses = parsed.from()?.iter().filter_map(|one| one.address());
        let author = addresses.next()?.to_ascii_lowercase();
        let one = addresses.next().is_none() && author.contains('@');
        one.then_some(author)
    }

    /// Addresses in To and Cc, in lower case. Other recipients do not know of each other.
    pub(crate) fn visible_recipients(&self) -> HashSet<String> {
        let header = self.slice(0..self.structure.header_end);
        let Some(parsed) = MessageParser::new().parse_headers(header) else {
            return HashSet::new();
        };
        let fields = [parsed.to(), parsed.cc()].into_iter().flatten();
        let addresses = fields.flat_map(|field| field.iter().filter_map(|one| one.address()));
        addresses.map(str::to_ascii_lowercase).collect()
    }

    pub(crate) fn slice(&self, range: Range<u64>) -> &'m [u8] {
        let start = usize::try_from(range.start).unwrap_or(usize::MAX);
        let end = usize::try_from(range.end).unwrap_or(usize::MAX);
        self.octets.get(start..end).unwrap_or_default()
    }
}

fn starts_with_content(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"content-";
    name.get(..PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

pub(crate) fn yours(range: &Range<u64>) -> Piece {
    Piece::Original {
        offset: range.start,
        len: range.end.saturating_sub(range.start),
    }
}

pub(crate) fn mine(octets: impl Into<Bytes>) -> Piece {
    Piece::Inserted(octets.into())
}

/// The octets that pieces over `original` stand for.
pub(crate) fn flatten(pieces: &[Piece], original: &[u8]) -> Vec<u8> {
    opes_mime::Rope::from_pieces(pieces.to_vec()).flatten(original)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &[u8] =
        b"From: Ann <Ann@example.org>\r\nContent-Type: text/html\r\nTo: bob@example.com\r\n\
        cc: \"x\" <carol@example.net>\r\ncontent-transfer-encoding: 7bit\r\n\r\n<p>\r\n";

    #[test]
    fn content_fields_and_body_are_protected_and_the_rest_stays() {
        let entity = Entity::read(MAIL).unwrap();
        let inner = flatten(&entity.protected(), MAIL);
        assert_eq!(
            String::from_utf8(inner).unwrap(),
            "Content-Type: text/html\r\ncontent-transfer-encoding: 7bit\r\n\r\n<p>\r\n"
        );
        let outer = entity.with_content(vec![mine("Content-Type: x/y\r\n")], vec![mine("new")]);
        assert_eq!(
            String::from_utf8(flatten(&outer, MAIL)).unwrap(),
            "From: Ann <Ann@example.org>\r\nTo: bob@example.com\r\ncc: \"x\" <carol@example.net>\r\n\
             MIME-Version: 1.0\r\nContent-Type: x/y\r\n\r\nnew"
        );
    }

    #[test]
    fn a_header_without_an_end_gets_one() {
        let mail = b"Subject: x\r\nContent-Type: text/html";
        let entity = Entity::read(mail).unwrap();
        assert_eq!(
            flatten(&entity.protected(), mail),
            b"Content-Type: text/html\r\n\r\n"
        );
        let outer = entity.with_content(Vec::new(), Vec::new());
        assert_eq!(
            flatten(&outer, mail),
            b"Subject: x\r\nMIME-Version: 1.0\r\n\r\n"
        );
    }

    #[test]
    fn who_is_named() {
        let entity = Entity::read(MAIL).unwrap();
        assert_eq!(entity.author().as_deref(), Some("ann@example.org"));
        let visible = entity.visible_recipients();
        assert!(visible.contains("bob@example.com") && visible.contains("carol@example.net"));
        for two in [
            &b"From: a@example.org\r\nFrom: b@example.org\r\n\r\n"[..],
            b"From: a@example.org, b@example.org\r\n\r\n",
            b"\r\n",
        ] {
            assert_eq!(Entity::read(two).unwrap().author(), None);
        }
    }

    #[test]
    fn what_is_signed_is_the_first_part_without_the_line_end_of_the_delimiter() {
        let mail = b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n\r\n--b\r\n\
            Content-Type: application/pgp-signature\r\n\r\nsig\r\n--b--\r\n";
        let entity = Entity::read(mail).unwrap();
        let expected = Kind::PgpSigned {
            content: b"Content-Type: text/plain\r\n\r\nhi\r\n",
            part: 2,
        };
        assert_eq!(entity.kind(), expected);
        assert_eq!(entity.decoded(2), b"sig");
    }
}
