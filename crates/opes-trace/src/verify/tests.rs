use proptest::prelude::*;

use super::*;
use crate::field::SystemTrace;

fn system() -> AgentUri {
    AgentUri::system("https://mail.example.com/opes").unwrap()
}

fn own(system: &AgentUri) -> String {
    let id = "18f3a-2.1";
    let rules = "0123456789abcdef";
    SystemTrace { system, id, rules }.field()
}

/// What is left of `header` after the repair.
fn repaired(header: &str, believed: &[&str]) -> (String, Repair) {
    let system = system();
    let field = own(&system);
    let guard = Guard {
        system: &system,
        field: field.as_bytes(),
    };
    let believed: Vec<&[u8]> = believed.iter().map(|text| text.as_bytes()).collect();
    let trace = HeaderTrace::scan(header.as_bytes());
    let repair = guard.inspect(header.as_bytes(), &trace, &believed);
    let mut left = header.to_owned();
    for range in repair.remove.iter().rev() {
        left.replace_range(range.clone(), "");
    }
    if repair.restore {
        left.insert_str(0, &field);
    }
    (left, repair)
}

const FOREIGN: &str = "OPES-System: https://mail.example.com/opes2; id=1\r\nOPES-Via: https://mail.example.net/x,\r\n\turn:example:y\r\n";

#[test]
fn what_is_whole_stays_as_it_is() {
    let header = format!(
        "X-Seen: yes\r\n{}{FOREIGN}Subject: a\r\n\r\n",
        own(&system())
    );
    let (left, repair) = repaired(&header, &[]);
    assert!(repair.is_empty(), "{repair:?}");
    assert_eq!(left, header);
}

#[test]
fn c_60_a_field_that_a_service_took_out_comes_back() {
    let header = format!("{FOREIGN}Subject: a\r\n\r\n");
    let (left, repair) = repaired(&header, &[]);
    assert!(repair.restore && repair.remove.is_empty());
    assert_eq!(left, format!("{}{header}", own(&system())));
}

#[test]
fn c_60_whatever_bears_our_name_and_is_not_ours_goes() {
    let own = own(&system());
    for forged in [
        "OPES-System: https://mail.example.com/opes; id=other\r\n",
        "opes-system:HTTPS://MAIL.EXAMPLE.COM/%6Fpes\n",
        "OPES-Via: urn:example:a, https://mail.example.com/opes/service/default/scan\r\n",
        "OPES-Via: https://mail.example.com/opes/processor/mx;\r\n id=1\r\n",
        // Not to be parsed, and still to be read by people.
        "OPES-System: see https://mail.example.com/opes (all clean)\r\n",
        // Our own, refolded by a service, or twice.
        "OPES-System: https://mail.example.com/opes; id=18f3a-2.1; rules=0123456789abcdef\r\n",
        own.as_str(),
    ] {
        let header = format!("{own}{forged}Subject: a\r\n\r\n");
        let (left, repair) = repaired(&header, &[]);
        assert_eq!(repair.remove.len(), 1, "{forged}");
        assert_eq!(left, format!("{own}Subject: a\r\n\r\n"), "{forged}");
    }
}

#[test]
fn a_peer_of_ours_may_bring_our_name_once() {
    let inherited = "OPES-System: https://mail.example.com/opes; id=earlier\r\n";
    let header = format!("{}{inherited}{inherited}Subject: a\r\n\r\n", own(&system()));
    let (_, repair) = repaired(&header, &[inherited]);
    assert_eq!(repair.remove.len(), 1);
    let guard = Guard {
        system: &system(),
        field: b"",
    };
    let trace = HeaderTrace::scan(header.as_bytes());
    assert_eq!(guard.claims_in(header.as_bytes(), &trace).len(), 3);
}

proptest! {
    #[test]
    fn never_panics_and_leaves_nothing_to_do(
        lines in prop::collection::vec("(OPES-(System|Via)|X): ?(https://mail.example.com/opes|;|,|\"|a| )*", 0..8),
        with_own in any::<bool>(),
    ) {
        let mut header = if with_own { own(&system()) } else { String::new() };
        for line in lines {
            header.push_str(&line);
            header.push_str("\r\n");
        }
        header.push_str("\r\n");
        let (left, _) = repaired(&header, &[]);
        let (same, repair) = repaired(&left, &[]);
        prop_assert!(repair.is_empty(), "{:?} in {:?}", repair, left);
        prop_assert_eq!(same, left);
    }
}
