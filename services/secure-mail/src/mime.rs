//! The envelopes of RFC 1847 around protected content: multipart/signed and multipart/encrypted, application/pkcs7-mime.

use std::borrow::Cow;

use opes_mime::{Encoding, Piece};
use rand::RngCore as _;
use rand::rngs::OsRng;

use crate::entity::{Entity, Kind, mine};
use crate::sevenbit::{lines, seven_bit};

/// A line that occurs in no message: 128 random bits.
pub(crate) fn boundary() -> String {
    let mut random = [0; 16];
    OsRng.fill_bytes(&mut random);
    let digits = random.map(|octet| format!("{octet:02x}"));
    format!("=_opes_{}", digits.concat())
}

/// `Content-*` fields, and a body: what becomes of a message.
pub(crate) struct Wrapped {
    pub(crate) fields: Vec<Piece>,
    pub(crate) body: Vec<Piece>,
}

// === impl Wrapped ===

impl Wrapped {
    /// The message with this instead of its content.
    pub(crate) fn into_message(self, entity: &Entity<'_>) -> Vec<Piece> {
        entity.with_content(self.fields, self.body)
    }

    /// An entity that can be protected again.
    pub(crate) fn into_entity(self) -> Vec<Piece> {
        let mut pieces = self.fields;
        pieces.push(mine("\r\n"));
        pieces.extend(self.body);
        pieces
    }
}

/// multipart/signed with `content` as it is, and a detached signature.
pub(crate) fn signed(content: Vec<Piece>, kind: &SignedKind<'_>, signature: &str) -> Wrapped {
    let boundary = boundary();
    let SignedKind {
        protocol,
        micalg,
        part,
    } = kind;
    let fields = format!(
        "Content-Type: multipart/signed; micalg={micalg};\r\n\tprotocol=\"{protocol}\";\r\n\tboundary=\"{boundary}\"\r\n"
    );
    let mut body = vec![mine(format!("--{boundary}\r\n"))];
    body.extend(content);
    body.push(mine(format!(
        "\r\n--{boundary}\r\n{part}\r\n{signature}\r\n--{boundary}--\r\n"
    )));
    Wrapped {
        fields: vec![mine(fields)],
        body,
    }
}

/// What distinguishes the two formats in a multipart/signed.
pub(crate) struct SignedKind<'k> {
    pub(crate) protocol: &'k str,
    pub(crate) micalg: &'k str,
    /// Fields of the second part, with their line ends.
    pub(crate) part: &'k str,
}

/// RFC 3156 §5.
pub(crate) const PGP_SIGNED: SignedKind<'_> = SignedKind {
    protocol: "application/pgp-signature",
    micalg: crate::openpgp::MICALG,
    part: "Content-Type: application/pgp-signature; name=\"signature.asc\"\r\nContent-Description: OpenPGP digital signature\r\n",
};

/// RFC 8551 §3.5.3.
pub(crate) const SMIME_SIGNED: SignedKind<'_> = SignedKind {
    protocol: "application/pkcs7-signature",
    micalg: "sha-256",
    part: "Content-Type: application/pkcs7-signature; name=\"smime.p7s\"\r\nContent-Transfer-Encoding: base64\r\n\
           Content-Disposition: attachment; filename=\"smime.p7s\"\r\n",
};

/// RFC 3156 §4.
pub(crate) fn pgp_encrypted(armor: &str) -> Wrapped {
    let boundary = boundary();
    let fields = format!(
        "Content-Type: multipart/encrypted;\r\n\tprotocol=\"application/pgp-encrypted\";\r\n\tboundary=\"{boundary}\"\r\n"
    );
    let body = format!(
        "--{boundary}\r\nContent-Type: application/pgp-encrypted\r\nContent-Description: PGP/MIME version identification\r\n\r\n\
         Version: 1\r\n\r\n--{boundary}\r\nContent-Type: application/octet-stream; name=\"encrypted.asc\"\r\n\
         Content-Description: OpenPGP encrypted message\r\nContent-Disposition: inline; filename=\"encrypted.asc\"\r\n\r\n\
         {armor}\r\n--{boundary}--\r\n"
    );
    Wrapped {
        fields: vec![mine(fields)],
        body: vec![mine(body)],
    }
}

/// RFC 8551 §3.3, §3.4. `kind` is `enveloped-data` or `authEnveloped-data`.
pub(crate) fn smime_encrypted(kind: &str, cms: &[u8]) -> Wrapped {
    let fields = format!(
        "Content-Type: application/pkcs7-mime; smime-type={kind};\r\n\tname=\"smime.p7m\"\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"smime.p7m\"\r\n"
    );
    let body = lines(cms) + "\r\n";
    Wrapped {
        fields: vec![mine(fields)],
        body: vec![mine(body)],
    }
}

/// The message with the content that was inside. Of its fields only `Content-*` count: nobody can bring a second From this way. `None`: it
/// cannot become mail.
pub(crate) fn unwrapped(entity: &Entity<'_>, inside: &[u8]) -> Option<Vec<Piece>> {
    let inside = with_line_ends(inside)?;
    let inside = inside.as_ref();
    let inner = Entity::read(inside).ok()?;
    let flat = |pieces: &[Piece]| mine(crate::entity::flatten(pieces, inside));
    let fields = flat(&inner.content_fields());
    let body = inside.get(usize::try_from(inner.body().start).ok()?..)?;
    Some(entity.with_content(vec![fields], vec![mine(body.to_vec())]))
}

/// Every line ends with CRLF, and nothing else has CR or LF: what was encrypted no server has looked at, and a bare one may end the message to the
/// next server ("SMTP smuggling"). `None`: not without breaking a signature, or moving a border.
fn with_line_ends(inside: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !has_bare(inside, b'\r') && !has_bare(inside, b'\n') {
        return Some(Cow::Borrowed(inside));
    }
    let inner = Entity::read(inside).ok()?;
    if !matches!(inner.kind(), Kind::Plain | Kind::PgpEncrypted { .. }) {
        return None;
    }
    let mut parts = inner.structure.parts.iter();
    // Octets that are no lines become base64. A bare CR is no line end to the scanner, so that it must not become one.
    let binary = parts.any(|part| part.encoding == Encoding::Binary);
    let safe = if binary || has_bare(inside, b'\r') {
        Cow::Owned(seven_bit(inside)?)
    } else {
        Cow::Borrowed(inside)
    };
    (!has_bare(&safe, b'\r')).then(|| Cow::Owned(crlf(&safe)))
}

/// CR that no LF follows, or LF without a CR in front.
fn has_bare(octets: &[u8], which: u8) -> bool {
    let mut before = 0;
    for &octet in octets {
        let bare = match which {
            b'\n' => octet == b'\n' && before != b'\r',
            _ => before == b'\r' && octet != b'\n',
        };
        if bare {
            return true;
        }
        before = octet;
    }
    which == b'\r' && before == b'\r'
}

/// CRLF where there is LF.
fn crlf(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    let mut lines = octets.split(|octet| *octet == b'\n').peekable();
    while let Some(line) = lines.next() {
        out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        if lines.peek().is_some() {
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAIL: &[u8] = b"From: ann@example.org\r\nContent-Type: multipart/encrypted\r\n\r\n";

    fn opened(inside: &[u8]) -> Option<String> {
        let entity = Entity::read(MAIL).unwrap();
        let pieces = unwrapped(&entity, inside)?;
        let octets = crate::entity::flatten(&pieces, MAIL);
        Some(String::from_utf8(octets).unwrap())
    }

    #[test]
    fn what_was_inside_has_no_other_line_ends_than_crlf() {
        let outside = "From: ann@example.org\r\nMIME-Version: 1.0\r\n";
        for (inside, expected) in [
            (
                "Content-A: b\n\na\n.\nQUIT\n",
                "Content-A: b\r\n\r\na\r\n.\r\nQUIT\r\n",
            ),
            (
                "Content-A: b\r\n\r\na\n.\r\nb",
                "Content-A: b\r\n\r\na\r\n.\r\nb",
            ),
            // No line end: `a\r.\r`.
            (
                "Content-A: b\n\na\r.\r\n",
                "Content-A: b\r\nContent-Transfer-Encoding: base64\r\n\r\nYQ0uDQo=",
            ),
            (
                "Content-A: b\r\nContent-Transfer-Encoding: binary\r\n\r\na\nb",
                "Content-A: b\r\nContent-Transfer-Encoding: base64\r\n\r\nYQpi",
            ),
        ] {
            let opened = opened(inside.as_bytes()).unwrap();
            let (head, rest) = opened.split_at(outside.len());
            assert_eq!(head, outside);
            let order = |text: &str| {
                let (fields, body) = text.split_once("\r\n\r\n").unwrap();
                let mut fields: Vec<_> = fields.lines().map(str::to_owned).collect();
                fields.sort();
                (fields, body.to_owned())
            };
            assert_eq!(order(rest), order(expected), "{inside:?}");
        }
    }

    #[test]
    fn what_cannot_be_helped_is_not_opened() {
        let signed = "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nhi\n.\r\n--b\r\n\
            Content-Type: application/pgp-signature\r\n\r\nsig\r\n--b--\r\n";
        for inside in [
            signed,
            "Content-Type: application/pkcs7-mime\r\n\r\na\n.\r\n",
            // To some readers a field more.
            "Content-A: b\rFrom: eve@example.org\r\n\r\nx\r\n",
        ] {
            assert_eq!(opened(inside.as_bytes()), None, "{inside:?}");
        }
        let clean = signed.replace("hi\n", "hi\r\n");
        assert!(opened(clean.as_bytes()).unwrap().contains("hi\r\n.\r\n"));
    }

    proptest! {
        #[test]
        fn no_bare_line_end_leaves(inside in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), 0_u8..=255], 0..60)) {
            let entity = Entity::read(MAIL).unwrap();
            if let Some(pieces) = unwrapped(&entity, &inside) {
                let octets = crate::entity::flatten(&pieces, MAIL);
                prop_assert!(!has_bare(&octets, b'\r') && !has_bare(&octets, b'\n'), "{:?}", octets);
            }
        }
    }
}
