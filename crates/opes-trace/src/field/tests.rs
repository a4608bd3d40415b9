use proptest::prelude::*;

use super::*;

const LINE_OCTETS_MAX: usize = 998;

fn system() -> AgentUri {
    AgentUri::system("https://mail.example.com/opes").unwrap()
}

#[test]
fn the_fields_as_postmasters_read_them() {
    let system = system();
    let processor = system.child(&["processor", "mx1.example.com"]).unwrap();
    let scan = system.child(&["service", "default", "scan"]).unwrap();
    let translate = AgentUri::parse("https://translate.example.net/").unwrap();
    let field = SystemTrace {
        system: &system,
        id: "18f3a-2.1",
        rules: "0123456789abcdef",
    }
    .field();
    assert_eq!(
        field,
        "OPES-System: https://mail.example.com/opes; id=18f3a-2.1;\r\n\trules=0123456789abcdef\r\n"
    );
    let via = Via {
        processor: &processor,
        id: "18f3a-2.1",
        refused: None,
        services: vec![
            Ran {
                service: &scan,
                bypass: Some(BypassMark::Refused),
            },
            Ran {
                service: &translate,
                bypass: Some(BypassMark::Granted),
            },
        ],
    };
    assert_eq!(
        via.field(),
        "OPES-Via: https://mail.example.com/opes/processor/mx1.example.com;\r\n\tid=18f3a-2.1, \
         https://mail.example.com/opes/service/default/scan;\r\n\tbypass=refused; reason=required, \
         https://translate.example.net/;\r\n\tbypass=granted\r\n"
    );
}

#[test]
fn c_63_a_request_of_nobody_in_particular_is_refused_in_the_trace() {
    let system = system();
    let via = Via {
        processor: &system,
        id: "1",
        refused: Some("unauthenticated"),
        services: Vec::new(),
    };
    assert_eq!(
        via.field(),
        "OPES-Via: https://mail.example.com/opes; id=1; bypass=refused;\r\n\treason=unauthenticated\r\n"
    );
}

#[test]
fn a_crowd_of_services_is_counted() {
    let system = system();
    let ran = Ran {
        service: &system,
        bypass: None,
    };
    let via = Via {
        processor: &system,
        id: "1",
        refused: None,
        services: vec![ran; VIA_SERVICES_MAX + 3],
    };
    let field = via.field();
    let entries = Entry::parse_list(&unfolded(&field.as_bytes()["OPES-Via:".len()..])).unwrap();
    assert_eq!(entries.len(), 1 + VIA_SERVICES_MAX);
    assert_eq!(entries[0].parameter("more"), Some("3"));
}

proptest! {
    #[test]
    fn what_is_written_is_folded_and_read_back(
        id in "\\PC{0,40}",
        paths in prop::collection::vec("[a-z]{1,300}", 0..8),
    ) {
        let system = system();
        let services: Vec<AgentUri> = paths
            .iter()
            .map(|path| system.child(&["service", path]).unwrap())
            .collect();
        let services: Vec<Ran<'_>> = services
            .iter()
            .map(|service| Ran { service, bypass: Some(BypassMark::Granted) })
            .collect();
        let via = Via { processor: &system, id: &id, refused: None, services: services.clone() };
        let field = via.field();
        prop_assert!(field.ends_with("\r\n"));
        for (number, line) in field.trim_end().split("\r\n").enumerate() {
            prop_assert!(line.len() <= LINE_OCTETS_MAX && !line.contains(['\r', '\n']));
            prop_assert!(number == 0 || line.starts_with('\t'));
            let words = line.trim_start().split(' ').count();
            prop_assert!(line.len() <= LINE_OCTETS_PREFERRED || words <= 2 || id.contains(' '));
        }
        let entries = Entry::parse_list(&unfolded(&field.as_bytes()["OPES-Via:".len()..])).unwrap();
        prop_assert_eq!(entries.len(), 1 + services.len());
        for (entry, ran) in entries.iter().skip(1).zip(&services) {
            prop_assert_eq!(&entry.uri, ran.service);
        }
    }
}
