use ldap3::asn1::{ASNTag as _, PL, StructureTag};
use proptest::prelude::*;

use super::*;

const KNOWN: &[&str] = &["s", "u", "d", "sender"];

fn template(text: &str) -> FilterTemplate {
    FilterTemplate::parse(text, KNOWN).unwrap()
}

fn filled(text: &str, values: &[&str]) -> String {
    let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
    template(text).fill(&values)
}

/// As the LDAP library puts it on the wire.
fn on_the_wire(filter: &str) -> StructureTag {
    ldap3::parse_filter(filter).unwrap().into_structure()
}

#[test]
fn places_stand_for_values() {
    let filter = template("(&(objectClass=inetLocalMailRecipient)(mailLocalAddress=%s))");
    assert_eq!(filter.names(), ["s"]);
    assert_eq!(
        filter.fill(&["joe@example.org".to_owned()]),
        "(&(objectClass=inetLocalMailRecipient)(mailLocalAddress=joe@example.org))"
    );
    assert_eq!(
        filled("(|(mail=%s)(&(uid=%u)(o=%d)(x=%s)))", &["a@b", "a", "b"]),
        "(|(mail=a@b)(&(uid=a)(o=b)(x=a@b)))"
    );
    assert_eq!(
        filled("(&(a=%{sender}*)(!(b>=%%\\2a)))", &["x"]),
        "(&(a=x*)(!(b>=%\\2a)))"
    );
    assert_eq!(template("(objectClass=*)").names().len(), 0);
}

#[test]
fn what_is_no_filter_is_refused_with_the_place() {
    for (text, said) in [
        ("", "expected `(` in place of the end"),
        ("mail=%s", "expected `(`"),
        ("(mail=%s", "expected `)` in place of the end"),
        ("(mail=%s))", "follows after the filter"),
        ("(%s=joe)", "places such as %s stand for values only"),
        ("(mail%s=joe)", "stand for values only"),
        ("(&%s)", "expected `)`"),
        ("(mail=(%s))", "write \\28"),
        ("(mail=\\zz)", "two hexadecimal digits"),
        (
            "(mail=%x)",
            "there is no `%x`; there are %s, %u, %d, %sender",
        ),
        ("(mail=%{recipient})", "there is no `%recipient`"),
        ("(mail=%", "there is no `%`"),
    ] {
        let error = FilterTemplate::parse(text, KNOWN).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
    let deep = format!("{}(a=b){}", "(!".repeat(100), ")".repeat(100));
    let error = FilterTemplate::parse(&deep, KNOWN).unwrap_err();
    assert!(error.contains("deeper"), "{error}");
}

#[test]
fn known_attacks_are_plain_values() {
    for attack in [
        "*",
        "joe)(uid=*",
        "*)(|(objectClass=*",
        "\\2a",
        "a\\",
        "joe@example.org)(userPassword=*)",
    ] {
        let filter = filled("(&(a=b)(mail=%s))", &[attack]);
        let wire = on_the_wire(&filter);
        let PL::C(parts) = wire.payload else {
            panic!("{filter}: no conjunction")
        };
        assert_eq!(parts.len(), 2, "{filter}");
        let PL::C(pair) = &parts[1].payload else {
            panic!("{filter}: no assertion")
        };
        assert_eq!(pair[1].payload, PL::P(attack.as_bytes().to_vec()));
    }
}

proptest! {
    /// No injection: whatever the address, the directory is asked for one equality, of the attribute that is configured,
    /// with exactly the octets of the address.
    #[test]
    fn any_value_is_one_equality_with_exactly_these_octets(value in "\\PC{0,200}|[()*\\\\&|!=~<>:\\x00-\\x1f]{0,40}") {
        let filter = filled("(mailLocalAddress=%s)", &[&value]);
        prop_assert!(filter.is_ascii());
        let wire = on_the_wire(&filter);
        // equalityMatch [3] (RFC 4511 §4.5.1). Nothing at all is an equality with nothing.
        prop_assert_eq!(wire.id, 3);
        let PL::C(pair) = wire.payload else { panic!("primitive") };
        prop_assert_eq!(pair.len(), 2);
        prop_assert_eq!(&pair[0].payload, &PL::P(b"mailLocalAddress".to_vec()));
        prop_assert_eq!(&pair[1].payload, &PL::P(value.into_bytes()));
    }

    /// Whatever the template, a value changes nothing but the octets of an assertion.
    #[test]
    fn no_value_changes_the_shape(text in "[(&|!)=%su{}~<>*a-c]{0,40}", value in "[()*&|!=\\\\a]{1,10}") {
        if let Ok(template) = FilterTemplate::parse(&text, KNOWN) {
            let with = |value: &str| {
                let values = vec![value.to_owned(); template.names().len()];
                // Some that we take, as `(&)`, the library may not: then nothing is asked at all.
                ldap3::parse_filter(template.fill(&values)).ok().map(|tag| shape(&tag.into_structure()))
            };
            prop_assert_eq!(with("a"), with(&value));
        }
    }
}

/// Kinds of elements, without what is in the primitive ones.
fn shape(tag: &StructureTag) -> String {
    let inner = match &tag.payload {
        PL::P(_) => String::new(),
        PL::C(parts) => parts.iter().map(shape).collect(),
    };
    format!("({}{inner})", tag.id)
}
