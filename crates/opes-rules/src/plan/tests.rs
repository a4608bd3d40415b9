use super::*;
use crate::facts::{Recipient, Sender};
use crate::load;
use crate::point::Point;
use opes_trace::Bypass;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SERVICES: &str = "
apiVersion: opes.dev/v1alpha1
kind: CalloutService
metadata: { name: watch }
spec: { class: observe, endpoint: 'unix:/run/watch' }
---
apiVersion: opes.dev/v1alpha1
kind: CalloutService
metadata: { name: judge }
spec: { class: analyze, endpoint: 'unix:/run/judge' }
---
apiVersion: opes.dev/v1alpha1
kind: CalloutService
metadata: { name: edit }
spec: { class: adapt, endpoint: 'unix:/run/edit' }
---
apiVersion: opes.dev/v1alpha1
kind: CalloutService
metadata: { name: seal }
spec: { class: sign, endpoint: 'unix:/run/seal' }
";

fn rule(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\n\
         spec: {{ {spec} }}\n"
    )
}

fn call(name: &str, service: &str, more: &str) -> String {
    rule(
        name,
        &format!("at: [content], callout: {{ serviceRef: {{ name: {service} }} }}{more}"),
    )
}

fn table_of(rules: &[String]) -> RoutingTable {
    let text = format!("{SERVICES}{}", rules.concat());
    load([("test.yaml", text.as_str())]).unwrap_or_else(|found| {
        let said: Vec<String> = found.iter().map(ToString::to_string).collect();
        panic!(
            "{}",
            said.join(
                "
"
            )
        )
    })
}

const TWO: [Recipient<'static>; 2] = [
    Recipient {
        address: "ann@example.com",
        parameters: &[],
    },
    Recipient {
        address: "bob@example.org",
        parameters: &[],
    },
];

fn content() -> Facts<'static> {
    Facts {
        dialog_id: "d1",
        listener: "mx",
        mail_from: Some(Sender::default()),
        recipients: &TWO,
        size: Some(1_000),
        ..Facts::at(Point::Content)
    }
}

fn names(steps: &[Step]) -> Vec<&str> {
    steps
        .iter()
        .map(|step| step.rule.name.trim_start_matches("default/"))
        .collect()
}

#[test]
fn callouts_go_to_the_stage_of_their_class_in_order_of_priority_then_name() {
    let table = table_of(&[
        call("seals", "seal", ", priority: 1"),
        call("c-edits", "edit", ", priority: 5"),
        call("b-edits", "edit", ", priority: 7"),
        call("a-edits", "edit", ", priority: 7"),
        call("judges", "judge", ""),
        call("watches", "watch", ""),
    ]);
    let plan = table.plan(&content());
    assert_eq!(names(&plan.observers), ["watches"]);
    assert_eq!(names(&plan.analysers), ["judges"]);
    assert_eq!(names(&plan.adapters), ["c-edits", "a-edits", "b-edits"]);
    assert_eq!(names(&plan.signers), ["seals"]);
    assert!(
        plan.adapters
            .iter()
            .all(|step| step.recipients == RecipientSet::All && !step.shadow)
    );
    assert!(table.has_rules(Point::Content) && !table.has_rules(Point::Data));
    assert!(table.plan(&Facts::at(Point::Data)).is_empty());
}

#[test]
fn recipients_are_matched_one_by_one() {
    let table = table_of(&[
        call(
            "com",
            "judge",
            ", match: { recipientDomains: [EXAMPLE.com] }",
        ),
        call(
            "org",
            "judge",
            ", match: { cel: 'rcpt.endsWith(\"example.org\")' }",
        ),
        call("sub", "judge", ", match: { recipientDomains: ['*.com'] }"),
        call(
            "both",
            "judge",
            ", match: { recipientDomains: [example.com, example.org] }",
        ),
        call(
            "none",
            "judge",
            ", match: { recipientDomains: [example.net] }",
        ),
    ]);
    let plan = table.plan(&content());
    let sets: BTreeMap<&str, &RecipientSet> = names(&plan.analysers)
        .into_iter()
        .zip(plan.analysers.iter().map(|step| &step.recipients))
        .collect();
    assert_eq!(sets.get("com"), Some(&&RecipientSet::Only(vec![0])));
    assert_eq!(sets.get("org"), Some(&&RecipientSet::Only(vec![1])));
    assert_eq!(sets.get("sub"), Some(&&RecipientSet::Only(vec![0])));
    assert_eq!(sets.get("both"), Some(&&RecipientSet::All));
    assert_eq!(sets.get("none"), None);
    assert_ne!(plan.signature_of(0), plan.signature_of(1));
}

#[test]
fn recipients_with_one_plan_are_treated_alike() {
    let table = table_of(&[
        call(
            "com",
            "judge",
            ", match: { recipientDomains: [example.com] }",
        ),
        call("all", "edit", ""),
    ]);
    let alike = |addresses: [&'static str; 2]| {
        let recipients = addresses.map(|address| Recipient {
            address,
            parameters: &[],
        });
        table.treats_alike(&Facts {
            recipients: &recipients,
            ..content()
        })
    };
    assert!(alike(["ann@example.com", "eve@example.com"]));
    assert!(!alike(["ann@example.com", "bob@example.org"]));
}

#[test]
fn unknown_size_leaves_open_only_the_recipients_that_the_rest_does_not_rule_out() {
    let table = table_of(&[call(
        "com",
        "judge",
        ", match: { recipientDomains: [example.com], sizeUnder: 1Mi }",
    )]);
    let facts = Facts {
        size: None,
        recipients: &TWO,
        ..Facts::at(Point::Content)
    };
    let plan = table.plan(&facts);
    assert_eq!(plan.skipped[0].recipients, RecipientSet::Only(vec![0]));
    assert_ne!(plan.signature_of(0), plan.signature_of(1));
}

#[test]
fn a_condition_that_may_turn_out_another_for_each_recipient_sets_them_apart() {
    let table = table_of(&[call(
        "own",
        "judge",
        ", match: { cel: 'header(\"X-For\") == rcpt' }",
    )]);
    let facts = Facts {
        recipients: &TWO,
        headers: None,
        ..Facts::at(Point::Content)
    };
    let plan = table.plan(&facts);
    assert_ne!(plan.signature_of(0), plan.signature_of(1));
}

#[test]
fn annotations_to_come_are_no_surprise() {
    let table = table_of(&[rule(
        "mark-com",
        "at: [content], match: { recipientDomains: [example.com], cel: 'hasAnnotation(\"spam\")' }, action: { markSubject: { text: x } }",
    )]);
    let facts = Facts {
        recipients: &TWO,
        ..content()
    };
    let plan = table.plan(&facts);
    assert_eq!(plan.signature_of(0), plan.signature_of(1));
    assert!(!table.treats_alike(&facts));
    let alike = [TWO[0], TWO[0]];
    assert!(table.treats_alike(&Facts {
        recipients: &alike,
        ..facts
    }));
}

#[test]
fn a_terminal_action_closes_the_point_to_later_rules_except_observers() {
    let table = table_of(&[
        rule(
            "refuse-com",
            "at: [content], priority: 10, match: { recipientDomains: [example.com] }, action: { reject: {} }",
        ),
        call("before", "judge", ", priority: 9"),
        call("after", "judge", ", priority: 11"),
        call("watches", "watch", ", priority: 12"),
        rule(
            "accept-rest",
            "at: [content], priority: 13, action: { accept: {} }",
        ),
        rule(
            "never",
            "at: [content], priority: 14, action: { addHeader: { name: X-A, value: b } }",
        ),
    ]);
    let plan = table.plan(&content());
    assert_eq!(names(&plan.analysers), ["before", "after"]);
    let sets: Vec<&RecipientSet> = plan.analysers.iter().map(|step| &step.recipients).collect();
    assert_eq!(sets, [&RecipientSet::All, &RecipientSet::Only(vec![1])]);
    assert_eq!(
        plan.observers.first().map(|step| &step.recipients),
        Some(&RecipientSet::All)
    );
    let actions: Vec<(&str, &RecipientSet)> = plan
        .actions
        .iter()
        .map(|step| (step.rule.stage(), &step.recipients))
        .collect();
    let only = RecipientSet::Only;
    assert_eq!(
        actions,
        [("reject", &only(vec![0])), ("accept", &only(vec![1]))]
    );
}

#[test]
fn shadow_rules_only_watch() {
    let table = table_of(&[
        call("edits", "edit", ", rollout: { mode: shadow }"),
        rule(
            "refuses",
            "at: [content], action: { reject: {} }, rollout: { mode: shadow }",
        ),
        call("judges", "judge", ", priority: 200"),
    ]);
    let plan = table.plan(&content());
    assert!(plan.observers.iter().all(|step| step.shadow));
    assert_eq!(names(&plan.observers), ["edits"]);
    assert!(plan.adapters.is_empty() && plan.actions.is_empty());
    assert_eq!(plan.shadow_actions.len(), 1);
    assert_eq!(names(&plan.analysers), ["judges"]);
}

#[test]
fn what_cannot_be_evaluated_does_not_match_and_is_reported() {
    let table = table_of(&[
        call(
            "marks",
            "edit",
            ", match: { cel: 'annotation(\"score\") > 5' }",
        ),
        call(
            "subject",
            "edit",
            ", match: { recipientDomains: [example.org], cel: 'header(\"Subject\") == \"\"' }",
        ),
        call(
            "elsewhere",
            "edit",
            ", match: { listener: [other], cel: 'annotation(\"score\") > 5' }",
        ),
        call("small", "edit", ", match: { sizeUnder: 5Ki }"),
    ]);
    let plan = table.plan(&Facts {
        size: None,
        ..content()
    });
    assert!(plan.is_empty());
    let skipped: Vec<(&str, &RecipientSet, String)> = plan
        .skipped
        .iter()
        .map(|s| (s.rule.name.as_str(), &s.recipients, s.reason.to_string()))
        .collect();
    assert_eq!(
        skipped,
        [
            (
                "default/marks",
                &RecipientSet::All,
                "annotation is not known".to_owned()
            ),
            (
                "default/small",
                &RecipientSet::All,
                "size is not known".to_owned()
            ),
            (
                "default/subject",
                &RecipientSet::Only(vec![1]),
                "header is not known".to_owned()
            ),
        ]
    );

    let annotations = BTreeMap::from([("score".to_owned(), "6".to_owned())]);
    let plan = table.plan(&Facts {
        annotations: Some(&annotations),
        ..content()
    });
    assert_eq!(names(&plan.adapters), ["marks", "small"]);
}

#[test]
fn a_rollout_takes_its_share_of_dialogs_and_only_grows() {
    let share = |percent: u32| {
        let table = table_of(&[call(
            "edits",
            "edit",
            &format!(", rollout: {{ percent: {percent} }}"),
        )]);
        move |dialog: &str| {
            !table
                .plan(&Facts {
                    dialog_id: dialog,
                    ..content()
                })
                .is_empty()
        }
    };
    let (none, tenth, half, all) = (share(0), share(10), share(50), share(100));
    let dialogs: Vec<String> = (0..2_000)
        .map(|number| format!("dialog-{number}"))
        .collect();
    let count = |inside: &dyn Fn(&str) -> bool| dialogs.iter().filter(|d| inside(d)).count();
    assert_eq!((count(&none), count(&all)), (0, 2_000));
    assert!((150..250).contains(&count(&tenth)), "{}", count(&tenth));
    assert!((900..1_100).contains(&count(&half)), "{}", count(&half));
    assert!(dialogs.iter().all(|dialog| !tenth(dialog) || half(dialog)));
}

// Dialogs must not move between shares when edges of two versions run side by side.
#[test]
fn the_share_hash_never_changes() {
    let mut hash = share::Hash::default();
    hash.text("default/scan");
    hash.text("dialog-1");
    assert_eq!(hash.finish(), PINNED_HASH);
}

const PINNED_HASH: u64 = 5_729_654_838_100_447_373;

#[test]
fn structured_fields_see_through_mapped_addresses_and_null_paths() {
    let table = table_of(&[
        call(
            "net",
            "judge",
            ", match: { clientNetworks: [192.0.2.0/24] }",
        ),
        call("null-path", "judge", ", match: { senderDomains: ['<>'] }"),
        call("tls", "judge", ", match: { tls: true }"),
        call(
            "clear",
            "judge",
            ", match: { tls: false, authenticated: false }",
        ),
    ]);
    let facts = Facts {
        client_ip: Some("::ffff:192.0.2.1".parse().unwrap()),
        ..content()
    };
    assert_eq!(
        names(&table.plan(&facts).analysers),
        ["clear", "net", "null-path"]
    );
}

fn any_rules() -> impl Strategy<Value = Vec<String>> {
    let service = proptest::sample::select(vec!["watch", "judge", "edit", "seal"]);
    let matching = proptest::sample::select(vec![
        "{}",
        "{ recipientDomains: [example.com] }",
        "{ listener: [mx], sizeUnder: 2Ki }",
        "{ cel: 'rcpt.contains(\"bob\")' }",
        "{ cel: 'annotation(\"a\") == 1' }",
    ]);
    let one = (service, matching, 0..3_i32, 0..=1_u32);
    proptest::collection::vec(one, 0..8).prop_map(|specs| {
        let rules = specs.into_iter().enumerate();
        rules
            .map(|(number, (service, matching, priority, half))| {
                let percent = 50 + 50 * half;
                let more = format!(
                    ", priority: {priority}, match: {matching}, rollout: {{ percent: {percent} }}"
                );
                call(&format!("rule-{number}"), service, &more)
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn plans_and_revisions_do_not_depend_on_the_order_of_objects(
        (rules, shuffled) in any_rules().prop_flat_map(|rules| {
            (Just(rules.clone()), Just(rules).prop_shuffle())
        }),
    ) {
        let (one, other) = (table_of(&rules), table_of(&shuffled));
        prop_assert_eq!(&one.revision, &other.revision);
        let (a, b) = (one.plan(&content()), other.plan(&content()));
        prop_assert_eq!(names(&a.observers), names(&b.observers));
        prop_assert_eq!(names(&a.analysers), names(&b.analysers));
        prop_assert_eq!(names(&a.adapters), names(&b.adapters));
        prop_assert_eq!(names(&a.signers), names(&b.signers));
        for recipient in 0..2 {
            prop_assert_eq!(a.signature_of(recipient), b.signature_of(recipient));
        }
    }
}

// === bypass (RFC 3897 §4) ===

const BYPASSABLE: &str = "---
apiVersion: opes.dev/v1alpha1
kind: CalloutService
metadata: { name: translate }
spec: { class: adapt, endpoint: 'unix:/run/translate', bypass: { allowed: true, uri: 'urn:example:translate' } }
";

#[test]
fn c_62_only_what_may_be_bypassed_is_left_out() {
    let rules = [
        BYPASSABLE.to_owned(),
        call("judges", "judge", ""),
        call("translates", "translate", ""),
    ];
    let table = table_of(&rules);
    let named = |name: &str| Bypass::Services([name.to_owned()].into());
    let other = named("default/judge");
    for (bypass, left_out) in [
        (None, false),
        (Some(&Bypass::All), true),
        (Some(&named("default/translate")), true),
        (Some(&other), false),
    ] {
        let plan = table.plan(&Facts {
            bypass,
            ..content()
        });
        assert_eq!(names(&plan.analysers), ["judges"]);
        assert_eq!(plan.adapters.is_empty(), left_out, "{bypass:?}");
        assert_eq!(!plan.bypassed.is_empty(), left_out, "{bypass:?}");
        assert!(!plan.is_empty());
    }
    assert!(table.has_bypassable());
    assert!(!table_of(&rules[1..2]).has_bypassable());
}

#[test]
fn what_does_not_match_is_not_bypassed() {
    let rules = [
        BYPASSABLE.to_owned(),
        call("translates", "translate", ", match: { tls: true }"),
    ];
    let facts = Facts {
        bypass: Some(&Bypass::All),
        ..content()
    };
    let plan = table_of(&rules).plan(&facts);
    assert!(plan.bypassed.is_empty() && plan.is_empty());
}

#[test]
fn explain_says_what_is_bypassed_and_what_is_not() {
    let table = table_of(&[
        BYPASSABLE.to_owned(),
        call("judges", "judge", ""),
        call("translates", "translate", ""),
    ]);
    let facts = Facts {
        bypass: Some(&Bypass::All),
        ..content()
    };
    let said = crate::explain::text(&table, &facts);
    assert!(said.contains("does not run: bypassed on request"), "{said}");
    assert!(said.contains("the bypass is refused"), "{said}");
}
