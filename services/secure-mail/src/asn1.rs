//! As much of ASN.1 as CMS and certificates need: BER made definite, a reader and a writer of DER (X.690).
//!
//! Reading copies nothing and recurses into nothing; what comes from mail is made DER first, within a depth.

/// Deepest nesting of what comes from mail; CMS with a certificate in it has about fifteen.
const DEPTH_MAX: usize = 24;
/// Most values in what comes from mail. Each takes some fifty times its two octets while it is read; a content of 32 MiB in pieces of 1 KiB, as
/// programs that stream write it, has 32,768.
const VALUES_MAX: usize = 200_000;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// `[0]` constructed; the others follow.
pub(crate) const CONTEXT_0: u8 = 0xa0;
/// `[0]` primitive; the others follow.
pub(crate) const CONTEXT_0_PRIMITIVE: u8 = 0x80;
const CONSTRUCTED: u8 = 0x20;

/// Not what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the ASN.1 that was expected")]
pub(crate) struct Malformed;

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// With tag and length.
    pub(crate) whole: &'a [u8],
}

/// Values one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(crate) const fn new(der: &'a [u8]) -> Self {
        Self(der)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value.
    pub(crate) fn any(&mut self) -> Result<Node<'a>, Malformed> {
        let (tag, length, start) = head(self.0)?;
        let length = length.ok_or(Malformed)?;
        let end = start.checked_add(length).ok_or(Malformed)?;
        let content = self.0.get(start..end).ok_or(Malformed)?;
        let whole = self.0.get(..end).ok_or(Malformed)?;
        self.0 = self.0.get(end..).unwrap_or_default();
        Ok(Node {
            tag,
            content,
            whole,
        })
    }

    /// The content of the next value, which has this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        let node = self.any()?;
        if node.tag == tag {
            Ok(node.content)
        } else {
            Err(Malformed)
        }
    }

    /// The next value, a container with this tag, opened.
    pub(crate) fn open(&mut self, tag: u8) -> Result<Reader<'a>, Malformed> {
        self.expect(tag).map(Reader)
    }

    /// The next value if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.0.first() == Some(&tag) {
            self.expect(tag).map(Some)
        } else {
            Ok(None)
        }
    }

    /// At most `max` of what is left; more is malformed.
    pub(crate) fn all(mut self, max: usize) -> Result<Vec<Node<'a>>, Malformed> {
        let mut nodes = Vec::new();
        while !self.is_empty() {
            if nodes.len() == max {
                return Err(Malformed);
            }
            nodes.push(self.any()?);
        }
        Ok(nodes)
    }
}

/// Tag, length (`None`: indefinite) and where the content starts.
fn head(octets: &[u8]) -> Result<(u8, Option<usize>, usize), Malformed> {
    let tag = *octets.first().ok_or(Malformed)?;
    // Tags of several octets do not occur.
    if tag & 0x1f == 0x1f {
        return Err(Malformed);
    }
    match *octets.get(1).ok_or(Malformed)? {
        short @ 0..0x80 => Ok((tag, Some(usize::from(short)), 2)),
        0x80 => Ok((tag, None, 2)),
        long @ 0x81..=0x84 => {
            let count = usize::from(long & 0x7f);
            let digits = octets.get(2..2 + count).ok_or(Malformed)?;
            let length = digits
                .iter()
                .fold(0_usize, |length, digit| (length << 8) | usize::from(*digit));
            Ok((tag, Some(length), 2 + count))
        }
        _ => Err(Malformed),
    }
}

/// BER as some mail programs send it, as DER: lengths are definite, strings in one piece. What is DER already stays so.
pub(crate) fn definite(ber: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut left = VALUES_MAX;
    let (value, rest) = value(ber, 0, &mut left)?;
    // Some programs send line ends behind it.
    let padding = rest
        .iter()
        .all(|octet| octet.is_ascii_whitespace() || *octet == 0);
    if padding {
        Ok(value.der)
    } else {
        Err(Malformed)
    }
}

struct Value {
    tag: u8,
    der: Vec<u8>,
    /// Of a string: its octets without tag and length.
    string: Option<Vec<u8>>,
}

/// `left` is how many values there may still be.
fn value<'a>(
    ber: &'a [u8],
    depth: usize,
    left: &mut usize,
) -> Result<(Value, &'a [u8]), Malformed> {
    if depth > DEPTH_MAX {
        return Err(Malformed);
    }
    *left = left.checked_sub(1).ok_or(Malformed)?;
    let (tag, length, start) = head(ber)?;
    if tag & CONSTRUCTED == 0 {
        let length = length.ok_or(Malformed)?;
        let end = start.checked_add(length).ok_or(Malformed)?;
        let content = ber.get(start..end).ok_or(Malformed)?;
        let rest = ber.get(end..).unwrap_or_default();
        let value = Value {
            tag,
            der: tlv(tag, content),
            string: (tag == OCTET_STRING).then(|| content.to_vec()),
        };
        return Ok((value, rest));
    }
    let (children, rest) = children(ber, start, length, depth, left)?;
    let joined = |children: &[Value]| {
        let mut all = Vec::new();
        for child in children {
            all.extend_from_slice(child.string.as_ref()?);
        }
        Some(all)
    };
    if tag == OCTET_STRING | CONSTRUCTED {
        let string = joined(&children).ok_or(Malformed)?;
        let value = Value {
            tag: OCTET_STRING,
            der: tlv(OCTET_STRING, &string),
            string: Some(string),
        };
        return Ok((value, rest));
    }
    let mut content = Vec::new();
    let tags: Vec<u8> = children.iter().take(3).map(|child| child.tag).collect();
    for (index, child) in children.iter().enumerate() {
        // EncryptedContentInfo: `[0] IMPLICIT OCTET STRING` in pieces.
        let pieces = index == 2 && tag == SEQUENCE && tags == [OID, SEQUENCE, CONTEXT_0];
        match child.string.as_ref().filter(|_| pieces) {
            Some(string) => content.extend(tlv(CONTEXT_0_PRIMITIVE, string)),
            None => content.extend_from_slice(&child.der),
        }
    }
    // What a `[0]` of strings would be, if it is one string.
    let string = (tag == CONTEXT_0).then(|| joined(&children)).flatten();
    let value = Value {
        tag,
        der: tlv(tag, &content),
        string,
    };
    Ok((value, rest))
}

fn children<'a>(
    ber: &'a [u8],
    start: usize,
    length: Option<usize>,
    depth: usize,
    left: &mut usize,
) -> Result<(Vec<Value>, &'a [u8]), Malformed> {
    let after_head = ber.get(start..).ok_or(Malformed)?;
    let mut children = Vec::new();
    if let Some(length) = length {
        let mut inside = after_head.get(..length).ok_or(Malformed)?;
        while !inside.is_empty() {
            let (child, rest) = value(inside, depth + 1, left)?;
            children.push(child);
            inside = rest;
        }
        return Ok((children, after_head.get(length..).unwrap_or_default()));
    }
    let mut inside = after_head;
    loop {
        if let Some(rest) = inside.strip_prefix(&[0, 0]) {
            return Ok((children, rest));
        }
        let (child, rest) = value(inside, depth + 1, left)?;
        children.push(child);
        inside = rest;
    }
}

/// One value in DER.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = Vec::with_capacity(content.len() + 6);
    der.push(tag);
    let length = content.len();
    if length < 0x80 {
        der.push(u8::try_from(length).unwrap_or(0x7f));
    } else {
        let digits: Vec<u8> = length
            .to_be_bytes()
            .into_iter()
            .skip_while(|digit| *digit == 0)
            .collect();
        der.push(0x80 | u8::try_from(digits.len()).unwrap_or(8));
        der.extend(digits);
    }
    der.extend_from_slice(content);
    der
}

/// A container with these values.
pub(crate) fn container(tag: u8, values: &[&[u8]]) -> Vec<u8> {
    tlv(tag, &values.concat())
}

/// SET OF with its values in order (X.690 §11.6).
pub(crate) fn set_of(tag: u8, mut values: Vec<Vec<u8>>) -> Vec<u8> {
    values.sort();
    tlv(tag, &values.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indefinite_lengths_and_strings_in_pieces() {
        // SEQUENCE { OID, SEQUENCE {}, [0] { "ab", "c" } }, all indefinite.
        let ber = [
            0x30, 0x80, 0x06, 1, 42, 0x30, 0x80, 0, 0, 0xa0, 0x80, 4, 2, b'a', b'b', 0x24, 0x80, 4,
            1, b'c', 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(
            definite(&ber).unwrap(),
            [0x30, 10, 6, 1, 42, 0x30, 0, 0x80, 3, b'a', b'b', b'c']
        );
        // [0] EXPLICIT OCTET STRING stays what it is.
        let ber = [
            0x30, 0x80, 6, 1, 42, 0xa0, 0x80, 0x24, 0x80, 4, 1, b'x', 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(
            definite(&ber).unwrap(),
            [0x30, 8, 6, 1, 42, 0xa0, 3, 4, 1, b'x']
        );
    }

    #[test]
    fn too_deep_is_malformed() {
        let deep = [0x30, 0x80].repeat(10_000);
        assert_eq!(definite(&deep), Err(Malformed));
    }

    #[test]
    fn too_many_values_are_malformed() {
        // With the container itself.
        let values = |count: usize| [NULL, 0].repeat(count - 1);
        let most = tlv(SEQUENCE, &values(VALUES_MAX));
        assert_eq!(definite(&most), Ok(most.clone()));
        let more = tlv(SEQUENCE, &values(VALUES_MAX + 1));
        assert_eq!(definite(&more), Err(Malformed));
        let indefinite = [
            &[SEQUENCE, 0x80],
            values(VALUES_MAX + 1).as_slice(),
            &[0, 0],
        ]
        .concat();
        assert_eq!(definite(&indefinite), Err(Malformed));
    }

    proptest::proptest! {
        #[test]
        fn never_panics_never_grows(octets in proptest::collection::vec(0_u8..=255, 0..600)) {
            if let Ok(der) = definite(&octets) {
                proptest::prop_assert!(der.len() <= octets.len());
                proptest::prop_assert_eq!(definite(&der), Ok(der.clone()));
            }
            let _ = Reader::new(&octets).all(10);
        }

        #[test]
        fn what_is_written_is_read(content in proptest::collection::vec(0_u8..=255, 0..70_000)) {
            let der = tlv(OCTET_STRING, &content);
            proptest::prop_assert_eq!(Reader::new(&der).expect(OCTET_STRING), Ok(&content[..]));
            proptest::prop_assert_eq!(definite(&der), Ok(der.clone()));
        }
    }
}
