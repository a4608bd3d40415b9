//! From an entry as the library has it to ours. The library's own way panics on what is not as it should be.

use ldap3::asn1::{PL, StructureTag};

use crate::answer::Entry;

/// Characters of a name in logs.
const NAME_CHARACTERS_MAX: usize = 200;

/// `None`: not an entry. Values that are not UTF-8 text are left out: no address is one.
pub(super) fn read(tag: StructureTag) -> Option<Entry> {
    let mut parts = constructed(tag)?.into_iter();
    let name = text(parts.next()?)?;
    // One line, and not endless: it goes to the log.
    let printable = |c: char| if c.is_control() { '?' } else { c };
    let name: String = name
        .chars()
        .map(printable)
        .take(NAME_CHARACTERS_MAX)
        .collect();
    let mut entry = Entry::new(name);
    for attribute in constructed(parts.next()?)? {
        let mut parts = constructed(attribute)?.into_iter();
        let name = text(parts.next()?)?;
        let values = constructed(parts.next()?)?;
        entry.add(&name, values.into_iter().filter_map(text));
    }
    Some(entry)
}

fn constructed(tag: StructureTag) -> Option<Vec<StructureTag>> {
    match tag.payload {
        PL::C(parts) => Some(parts),
        PL::P(_) => None,
    }
}

fn text(tag: StructureTag) -> Option<String> {
    match tag.payload {
        PL::P(octets) => String::from_utf8(octets).ok(),
        PL::C(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ldap::guard::tests::wrap;

    fn parsed(octets: &[u8]) -> Option<Entry> {
        let (_, tag) = ldap3::asn1::parse_tag(octets).ok()?;
        read(tag)
    }

    fn attribute(name: &str, values: &[&[u8]]) -> Vec<u8> {
        let values: Vec<u8> = values.iter().flat_map(|value| wrap(4, value)).collect();
        let content = [wrap(4, name.as_bytes()), wrap(0x31, &values)].concat();
        wrap(0x30, &content)
    }

    #[test]
    fn names_and_values() {
        let attributes = [
            attribute("mailHost", &[b"mx.fr.example.org"]),
            attribute("jpegPhoto", &[&[0xff, 0xd8]]),
            attribute("mail", &[b"a@example.org", b"b@example.org"]),
        ]
        .concat();
        let content = [wrap(4, b"uid=joe,\nou=people"), wrap(0x30, &attributes)].concat();
        let entry = parsed(&wrap(0x64, &content)).unwrap();
        assert_eq!(entry.name, "uid=joe,?ou=people");
        assert_eq!(entry.values("MAILHOST"), ["mx.fr.example.org"]);
        assert_eq!(entry.values("mail").len(), 2);
        assert!(entry.values("jpegPhoto").is_empty() && entry.values("cn").is_empty());
    }

    proptest! {
        #[test]
        fn any_structure_is_an_entry_or_none(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _none = parsed(&wrap(0x64, &octets));
        }
    }
}
