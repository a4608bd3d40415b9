use super::*;
use crate::explain;
use crate::facts::{Facts, Recipient};
use crate::point::{OnFailure, Point};
use crate::table::{ContentWant, LocalAction};
use proptest::prelude::*;
use std::time::Duration;

const MINIMAL: &str = "
apiVersion: opes.dev/v1alpha1
kind: CalloutService
metadata: { name: filter }
spec: { class: adapt, builtin: { name: security-filter } }
---
apiVersion: opes.dev/v1alpha1
kind: OpesRule
metadata: { name: scan }
spec: { at: [content], callout: { serviceRef: { name: filter }, parameters: { b: 1, a: [x] } } }
";

fn table(text: &str) -> RoutingTable {
    load([("test.yaml", text)]).unwrap_or_else(|found| panic!("{found:?}"))
}

#[test]
fn defaults_are_the_safe_ones() {
    let table = table(MINIMAL);
    let rule = table.rules.first().unwrap();
    let callout = rule.callout.as_ref().unwrap();
    assert_eq!(
        (rule.name.as_str(), rule.priority, rule.percent),
        ("default/scan", 100, 100)
    );
    assert_eq!(callout.on_failure, OnFailure::Tempfail);
    assert_eq!(callout.timeout, Duration::from_secs(30));
    assert!(callout.allow.is_empty() && callout.wants == ContentWant::AsService);
    assert_eq!(callout.parameters_json, r#"{"a":["x"],"b":1}"#);
    let service = table.services.get("default/filter").unwrap();
    assert_eq!(service.connect_timeout, Duration::from_secs(2));
    assert!(!service.idempotent);
}

#[test]
fn a_prefix_of_no_octets_is_written_as_none() {
    let wants = |wants: &str| {
        let text = MINIMAL.replace("parameters:", &format!("wants: {{ {wants} }}, parameters:"));
        load([("test.yaml", text.as_str())])
    };
    let table = wants("content: prefix, prefix: 1").unwrap();
    let callout = table.rules.first().and_then(|rule| rule.callout.clone());
    assert_eq!(callout.unwrap().wants, ContentWant::Prefix(1));
    for prefix in ["0", "2Gi"] {
        let found = wants(&format!("content: prefix, prefix: {prefix}")).unwrap_err();
        let found = format!("{found:?}");
        assert!(
            found.contains("is not between 1 and") && found.contains("content: none"),
            "{found}"
        );
    }
}

#[test]
fn replies_fit_the_point_that_they_are_given_at() {
    let reply = |points: &str, action: &str| {
        let text = format!(
            "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: r }}\n\
             spec: {{ at: [{points}], action: {{ {action}: {{}} }} }}\n"
        );
        match table(&text)
            .rules
            .first()
            .and_then(|rule| rule.action.clone())
        {
            Some(LocalAction::Reject(reply) | LocalAction::Tempfail(reply)) => reply.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reply("rcptTo", "reject"), 550);
    assert_eq!(reply("connect", "reject"), 554);
    assert_eq!(reply("content", "tempfail"), 451);
    assert_eq!(reply("connect, helo", "tempfail"), 421);
}

#[test]
fn the_revision_is_about_meaning_not_writing() {
    let one = table(MINIMAL).revision;
    let same = "
kind: OpesRule
apiVersion: opes.dev/v1alpha1
metadata: { namespace: default, name: scan, uid: 7d0a, creationTimestamp: null }
spec:
  priority: 100
  at:
    - content   # where
  callout:
    parameters: { a: [x], b: 1 }
    timeout: 30000ms
    serviceRef: { name: filter }
status: { conditions: [Accepted] }
";
    let service = MINIMAL.split("---").next().unwrap();
    let split = load([("b.yaml", same), ("a.yaml", service)])
        .unwrap()
        .revision;
    assert_eq!(one, split);
    assert_eq!(one.len(), 16);
    assert_ne!(one, table(&MINIMAL.replace("b: 1", "b: 2")).revision);
}

#[test]
fn explanations_name_the_field_that_decided() {
    let text = format!(
        "{MINIMAL}---
apiVersion: opes.dev/v1alpha1
kind: OpesRule
metadata: {{ name: refuse }}
spec:
  at: [rcptTo]
  priority: 5
  match: {{ recipientDomains: [example.com], cel: 'size > 10' }}
  action: {{ reject: {{}} }}
---
apiVersion: opes.dev/v1alpha1
kind: OpesRule
metadata: {{ name: later }}
spec: {{ at: [rcptTo], action: {{ continue: {{}} }} }}
"
    );
    let table = table(&text);
    let recipients = ["ann@example.com", "bob@example.org"].map(|address| Recipient {
        address,
        parameters: &[],
    });
    let facts = Facts {
        recipients: &recipients,
        size: Some(11),
        ..Facts::at(Point::Connect)
    };
    let said = explain::text(&table, &facts);
    let expected = format!(
        "revision {}
rcptTo
       5  default/refuse: reject
          runs for <ann@example.com>: everything in match holds
          does not run for <bob@example.org>: match.recipientDomains does not hold
     100  default/later: continue
          does not run for <ann@example.com>: rule default/refuse has ended this point
          runs for <bob@example.org>: everything in match holds
content
     100  default/scan: adapt → default/filter
          runs: everything in match holds
",
        table.revision
    );
    assert_eq!(said, expected);
    let small = explain::text(
        &table,
        &Facts {
            size: Some(3),
            ..facts
        },
    );
    assert!(small.contains("match.cel is false: size > 10"), "{small}");
    let unknown = explain::text(
        &table,
        &Facts {
            size: None,
            ..facts
        },
    );
    assert!(
        unknown.contains("cannot be evaluated: size is not known"),
        "{unknown}"
    );
    let json = serde_json::to_value(explain::explain(&table, &facts)).unwrap();
    assert_eq!(
        json.pointer("/points/0/rules/0/verdicts/0/runs"),
        Some(&true.into())
    );
}

// What explain says and what the planner does are two walks over the same matcher.
#[test]
fn explanations_agree_with_plans() {
    let text = include_str!("../../../../examples/rules/local-actions.yaml");
    let table = table(text);
    let recipients = ["ann@old.example.com", "bob@archive.example.com"].map(|address| Recipient {
        address,
        parameters: &[],
    });
    for client in ["192.0.2.1", "198.51.100.1", "10.1.2.3"] {
        let client_ip = Some(client.parse().unwrap());
        let facts = Facts {
            client_ip,
            recipients: &recipients,
            ..Facts::at(Point::Connect)
        };
        for point in explain::explain(&table, &facts).points {
            let plan = table.plan(&facts.seen_from(point.point));
            for (index, recipient) in recipients.iter().enumerate() {
                let mut explained: Vec<&str> = Vec::new();
                for rule in point.rules.iter().filter(|rule| !rule.shadow) {
                    let about = |v: &&explain::VerdictExplanation| {
                        v.recipient
                            .as_deref()
                            .is_none_or(|r| r == recipient.address)
                    };
                    if rule.verdicts.iter().find(about).is_some_and(|v| v.runs) {
                        explained.push(&rule.rule);
                    }
                }
                let planned: Vec<&str> = plan
                    .actions
                    .iter()
                    .filter(|step| step.recipients.contains(index))
                    .map(|step| step.rule.name.as_str())
                    .collect();
                assert_eq!(
                    explained, planned,
                    "{client} {} {}",
                    point.point, recipient.address
                );
            }
        }
    }
}

#[test]
fn a_text_that_is_too_large_is_refused_unread() {
    let text = "#".repeat(crate::parse::TEXT_OCTETS_MAX + 1);
    let (objects, found) = crate::parse("big.yaml", &text);
    assert!(objects.is_empty());
    assert!(
        found
            .first()
            .is_some_and(|d| d.message.contains("more than")),
        "{found:?}"
    );
}

#[test]
fn deep_and_wide_yaml_is_refused() {
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\n";
    for text in [deep.as_str(), bomb] {
        let (objects, found) = crate::parse("hostile.yaml", text);
        assert!(objects.is_empty());
        assert!(found.iter().any(Diagnostic::is_error));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn never_panics_on_text(text in "\\PC{0,200}") {
        let _ = load([("x", text.as_str())]);
    }

    // Lines of a good file, with some lost, doubled, out of order or with other values.
    #[test]
    fn never_panics_on_broken_files(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..6_u8), 0..6),
    ) {
        let text = include_str!("../../../../examples/with-external-services/inbound.yaml");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (index, edit) in edits {
            let at = index.index(lines.len());
            match edit {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[at].clone()),
                2 => lines.swap(at, 0),
                3 => lines[at] = format!("  {}", lines[at]),
                4 => lines[at] = lines[at].replace(':', ": [") ,
                _ => lines[at] = lines[at].split(':').next().unwrap_or_default().to_owned() + ": 7",
            }
        }
        if let Err(found) = load([("x", lines.join("\n").as_str())]) {
            prop_assert!(found.iter().any(Diagnostic::is_error));
        }
    }
}

#[test]
fn the_name_of_a_service_is_an_absolute_uri() {
    let service = |uri: &str| {
        format!(
            "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: s }}\n\
             spec: {{ class: adapt, endpoint: 'unix:/run/s', bypass: {{ uri: '{uri}' }} }}\n"
        )
    };
    let found = load([("test.yaml", service("translate").as_str())]).unwrap_err();
    let said: Vec<String> = found.iter().map(ToString::to_string).collect();
    let named = |said: &String| said.contains("spec.bypass.uri") && said.contains("absolute URI");
    assert!(said.iter().any(named), "{said:?}");
    let table = table(&service("https://mail.example.com/translate"));
    let service = &table.services["default/s"];
    assert!(service.uri.is_some() && !service.bypassable);
}
