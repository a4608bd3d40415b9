//! The envelopes of RFC 1847 around protected content: multipart/signed and multipart/encrypted, application/pkcs7-mime.

use opes_mime::Piece;
use rand::RngCore as _;
use rand::rngs::OsRng;

use crate::entity::{Entity, mine};
use crate::sevenbit::lines;

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

/// The message with the content that was inside. Of its fields only `Content-*` count: nobody can bring a second From this way.
pub(crate) fn unwrapped(entity: &Entity<'_>, inside: &[u8]) -> Option<Vec<Piece>> {
    let inner = Entity::read(inside).ok()?;
    let flat = |pieces: &[Piece]| mine(crate::entity::flatten(pieces, inside));
    let fields = flat(&inner.content_fields());
    let body = inside.get(usize::try_from(inner.body().start).ok()?..)?;
    Some(entity.with_content(vec![fields], vec![mine(body.to_vec())]))
}
