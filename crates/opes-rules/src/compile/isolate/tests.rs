use super::*;
use crate::compile::compile;
use crate::object::Resource;
use crate::parse::{object_from_json, parse};
use crate::table::{LocalAction, Target};
use proptest::prelude::*;

fn object(kind: &str, name: &str, spec: &str) -> Object {
    let text = format!(
        "apiVersion: opes.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: \"{name}\" }}\nspec: {spec}\n"
    );
    let (mut objects, found) = parse(name, &text);
    assert!(found.is_empty(), "{found:?}");
    objects.pop().unwrap()
}

fn service(name: &str, spec: &str) -> Object {
    object("CalloutService", name, spec)
}

fn rule(name: &str, spec: &str) -> Object {
    object("OpesRule", name, spec)
}

const FILTER: &str = "{ class: adapt, builtin: { name: security-filter } }";
const CALLS: &str = "{ at: [content], callout: { serviceRef: { name: filter }, allow: [body], onFailure: reject } }";
const TYPO: &str = "{ at: [content], callout: { serviceRef: { name: flter } } }";
const INVALID: &str = "{ at: [], action: { reject: {} } }";

fn outcome(isolated: &Isolated, name: &str) -> (Outcome, Runs) {
    let judgement = judgement(isolated, name);
    (judgement.outcome, judgement.runs)
}

fn judgement<'i>(isolated: &'i Isolated, name: &str) -> &'i Judgement {
    let name = format!("default/{name}");
    let mut all = isolated.judgements.iter();
    all.find(|judgement| judgement.name == name).unwrap()
}

fn kinds(isolated: &Isolated, name: &str) -> Vec<FaultKind> {
    let errors = judgement(isolated, name)
        .faults
        .iter()
        .filter(|f| f.is_error());
    errors.map(|fault| fault.kind.clone()).collect()
}

fn action<'i>(isolated: &'i Isolated, name: &str) -> Option<&'i LocalAction> {
    let name = format!("default/{name}");
    let mut all = isolated.table.rules.iter();
    all.find(|rule| rule.name == name)?.action.as_ref()
}

/// What edges do with it is what was said of it.
fn agrees(isolated: &Isolated) {
    let sent: Vec<String> = isolated.objects.iter().map(Object::to_json).collect();
    let read = sent
        .iter()
        .map(|text| object_from_json("edge", text).unwrap());
    let table = compile(read.collect()).unwrap();
    assert_eq!(table.revision, isolated.table.revision);
    let names = |table: &RoutingTable| -> Vec<String> {
        table.rules.iter().map(|rule| rule.name.clone()).collect()
    };
    assert_eq!(names(&table), names(&isolated.table));
    let key = |object: &Object| (object.kind(), object.metadata().qualified_name());
    assert!(isolated.objects.is_sorted_by_key(key));
}

#[test]
fn what_is_right_runs() {
    let isolated = compile_isolated(&[
        Candidate::read(service("filter", FILTER), 1),
        Candidate::read(rule("scan", CALLS), 2),
    ]);
    for name in ["filter", "scan"] {
        assert_eq!(outcome(&isolated, name), (Outcome::Accepted, Runs::Written));
    }
    assert!(isolated.judgements.iter().all(|j| j.faults.is_empty()));
    agrees(&isolated);
}

#[test]
fn a_bad_edit_changes_nothing() {
    let good = || rule("scan", CALLS);
    let unreadable = Candidate::unread("OpesRule", "default/scan", 2, Vec::new());
    for edit in [
        Candidate::read(rule("scan", INVALID), 2),
        Candidate::read(rule("scan", TYPO), 2),
        unreadable,
    ] {
        let isolated = compile_isolated(&[
            Candidate::read(service("filter", FILTER), 1),
            edit.clone().with_last_accepted(Some(good())),
        ]);
        assert_eq!(
            outcome(&isolated, "scan"),
            (Outcome::LastAccepted, Runs::LastAccepted)
        );
        assert!(action(&isolated, "scan").is_none());
        agrees(&isolated);
        // It never ran: it does not run.
        if edit
            .written
            .as_ref()
            .is_ok_and(|o| o.resource == rule("scan", TYPO).resource)
        {
            continue;
        }
        let isolated = compile_isolated(&[edit]);
        assert_eq!(
            outcome(&isolated, "scan"),
            (Outcome::LeftOut, Runs::Nothing)
        );
        assert!(isolated.objects.is_empty());
    }
}

#[test]
fn faults_are_of_the_right_kind() {
    let found = vec![Origin::named("x").error("spec", "unknown field `a`", "")];
    let isolated = compile_isolated(&[
        Candidate::unread("OpesRule", "default/syntax", 1, found),
        Candidate::read(rule("other", INVALID), 1),
        Candidate::read(rule("reference", TYPO), 1),
        Candidate::read(rule("older", "{ at: [rcptTo], action: { accept: {} } }"), 1),
        Candidate::read(
            rule("younger", "{ at: [rcptTo], action: { reject: {} } }"),
            2,
        ),
        Candidate::read(service("broken", "{ class: adapt }"), 1),
        Candidate::read(
            rule(
                "unaccepted",
                "{ at: [content], callout: { serviceRef: { name: broken } } }",
            ),
            1,
        ),
    ]);
    assert_eq!(kinds(&isolated, "syntax"), [FaultKind::Syntax]);
    assert_eq!(kinds(&isolated, "other"), [FaultKind::Other]);
    assert_eq!(kinds(&isolated, "reference"), [FaultKind::Reference]);
    assert_eq!(kinds(&isolated, "unaccepted"), [FaultKind::Reference]);
    let winner = "default/older".to_owned();
    assert_eq!(
        kinds(&isolated, "younger"),
        [FaultKind::Conflict { winner }]
    );
    assert!(kinds(&isolated, "older").is_empty());
    let said = &judgement(&isolated, "unaccepted").faults[0].diagnostic;
    assert!(said.message.contains("exactly one of builtin"), "{said}");
    let said = &judgement(&isolated, "younger").faults[0].diagnostic;
    assert!(said.message.contains("rule default/older"), "{said}");
    agrees(&isolated);
}

#[test]
fn the_older_one_wins_whatever_it_is_called() {
    let accept = "{ at: [rcptTo], action: { accept: {} } }";
    let reject = "{ at: [rcptTo], action: { reject: {} } }";
    for (a, b, loser) in [(1, 2, "b"), (2, 1, "a"), (1, 1, "b")] {
        let mut candidates = vec![
            Candidate::read(rule("a", accept), a),
            Candidate::read(rule("b", reject), b),
        ];
        for _ in 0..2 {
            candidates.reverse();
            let isolated = compile_isolated(&candidates);
            assert_eq!(outcome(&isolated, loser).0, Outcome::LeftOut);
            assert_eq!(isolated.table.rules.len(), 1);
            agrees(&isolated);
        }
    }
}

#[test]
fn a_signature_is_not_broken_by_a_younger_rule_and_not_made_by_one() {
    let candidates = |signer, changer| {
        let sign = "{ at: [content], callout: { serviceRef: { name: signer } } }";
        let mark = "{ at: [routing], action: { markSubject: { text: x } } }";
        [
            Candidate::read(
                service("signer", "{ class: sign, endpoint: \"unix:/s\" }"),
                0,
            ),
            Candidate::read(rule("sign", sign), signer),
            Candidate::read(rule("mark", mark), changer),
        ]
    };
    for (signer, changer, loser, winner) in [(1, 2, "mark", "sign"), (2, 1, "sign", "mark")] {
        let isolated = compile_isolated(&candidates(signer, changer));
        let winner = format!("default/{winner}");
        assert_eq!(kinds(&isolated, loser), [FaultKind::Conflict { winner }]);
        assert_eq!(outcome(&isolated, loser).0, Outcome::LeftOut);
        agrees(&isolated);
    }
}

#[test]
fn a_rule_without_its_service_does_what_it_says_for_that_case() {
    let spec = |points: &str, policy: &str| {
        format!("{{ at: [{points}], callout: {{ serviceRef: {{ name: gone }}{policy} }} }}")
    };
    for (points, policy, expected) in [
        ("content", "", Some("tempfail")),
        ("routing", "", Some("tempfail")),
        ("content, answered", "", Some("tempfail")),
        ("content", ", onFailure: reject", Some("reject")),
        ("rcptTo", ", onFailure: accept", Some("continue")),
        (
            "content, routing",
            ", onFailure: quarantine",
            Some("quarantine"),
        ),
        ("answered, bounced", "", None),
    ] {
        let candidate = Candidate::read(rule("scan", &spec(points, policy)), 1);
        let isolated = compile_isolated(&[candidate]);
        let (outcome, runs) = outcome(&isolated, "scan");
        assert!(
            matches!(outcome, Outcome::StandIn(_)),
            "{points} {outcome:?}"
        );
        let runs_if = expected.map_or(Runs::Nothing, |_| Runs::Written);
        assert_eq!(runs, runs_if);
        let done = action(&isolated, "scan").map(LocalAction::name);
        assert_eq!(done, expected, "{points} {policy}");
        agrees(&isolated);
    }
}

#[test]
fn nobody_waits_for_an_observer_that_is_not_accepted() {
    let isolated = compile_isolated(&[
        Candidate::read(service("watch", "{ class: observe }"), 1),
        Candidate::read(
            rule(
                "look",
                "{ at: [content], callout: { serviceRef: { name: watch } } }",
            ),
            2,
        ),
    ]);
    assert_eq!(
        outcome(&isolated, "look").0,
        Outcome::StandIn(OnFailure::Accept)
    );
    assert_eq!(action(&isolated, "look"), Some(&LocalAction::Continue));
}

#[test]
fn a_stand_in_is_in_nobodys_way() {
    let accept = "{ at: [content], action: { accept: {} } }";
    let isolated = compile_isolated(&[
        Candidate::read(rule("bereft", TYPO), 1),
        Candidate::read(rule("accepts", accept), 2),
    ]);
    assert_eq!(outcome(&isolated, "accepts").0, Outcome::Accepted);
    assert_eq!(
        outcome(&isolated, "bereft").0,
        Outcome::StandIn(OnFailure::Tempfail)
    );
    assert_eq!(isolated.table.rules.len(), 2);
    agrees(&isolated);
}

#[test]
fn a_rule_that_its_service_left_behind_fails_as_it_says() {
    let now = "{ class: analyze, endpoint: \"unix:/s\" }";
    let scan = || rule("scan", CALLS);
    let isolated = compile_isolated(&[
        Candidate::read(service("filter", now), 1),
        Candidate::read(scan(), 2).with_last_accepted(Some(scan())),
        Candidate::read(rule("new", CALLS), 3),
    ]);
    assert_eq!(
        outcome(&isolated, "scan"),
        (Outcome::StandIn(OnFailure::Reject), Runs::LastAccepted)
    );
    assert_eq!(outcome(&isolated, "new").0, Outcome::LeftOut);
    agrees(&isolated);
}

#[test]
fn a_service_keeps_an_instance_for_a_rule_that_cannot_do_without() {
    let zero = "{ class: adapt, builtin: { name: a }, pool: { min: 0, engine: keda } }";
    let one = "{ class: adapt, builtin: { name: a }, pool: { min: 1, engine: keda } }";
    let filter = |spec| Candidate::read(service("filter", spec), 1);
    let scan = || rule("scan", CALLS);

    // An edit of the service under a rule that runs.
    let isolated = compile_isolated(&[
        filter(zero).with_last_accepted(Some(service("filter", one))),
        Candidate::read(scan(), 2).with_last_accepted(Some(scan())),
    ]);
    let winner = "default/scan".to_owned();
    assert_eq!(outcome(&isolated, "filter").0, Outcome::LastAccepted);
    assert_eq!(kinds(&isolated, "filter"), [FaultKind::Conflict { winner }]);
    assert_eq!(outcome(&isolated, "scan").0, Outcome::Accepted);

    // A new rule for a service that runs.
    let accepts = "{ at: [data], callout: { serviceRef: { name: filter }, onFailure: accept } }";
    let accepts = accepts.replace("data", "content");
    let isolated = compile_isolated(&[
        filter(zero).with_last_accepted(Some(service("filter", zero))),
        Candidate::read(scan(), 0),
        Candidate::read(rule("bears", &accepts), 3),
    ]);
    let winner = "default/filter".to_owned();
    assert_eq!(outcome(&isolated, "filter").0, Outcome::Accepted);
    assert_eq!(outcome(&isolated, "bears").0, Outcome::Accepted);
    assert_eq!(outcome(&isolated, "scan").0, Outcome::LeftOut);
    assert_eq!(kinds(&isolated, "scan"), [FaultKind::Conflict { winner }]);
    agrees(&isolated);
}

#[test]
fn edges_are_not_told_how_pools_are_run() {
    let spec = "{ class: adapt, builtin: { name: a, config: { x: 1 } }, replicas: 3, \
                pool: { engine: none, max: 30 }, pod: { labels: { team: mail } } }";
    let isolated = compile_isolated(&[Candidate::read(service("filter", spec), 1)]);
    let sent = isolated.objects[0].to_json();
    assert!(!sent.contains("pool") && !sent.contains("pod") && !sent.contains("replicas"));
    let Target::Builtin { config, .. } = &isolated.table.services["default/filter"].target else {
        panic!("{sent}");
    };
    assert_eq!(config["x"], 1);
    let other = spec.replace("max: 30", "max: 40");
    let again = compile_isolated(&[Candidate::read(service("filter", &other), 1)]);
    assert_eq!(again.table.revision, isolated.table.revision);
}

#[test]
fn beyond_the_most_objects_the_youngest_are_left_out() {
    let one = rule("a", "{ at: [data], action: { continue: {} } }");
    let candidates: Vec<Candidate> = (0..=OBJECTS_MAX)
        .map(|number| {
            let mut object = one.clone();
            if let Resource::OpesRule(rule) = &mut object.resource {
                rule.metadata.name = format!("r{number}");
            }
            Candidate::read(object, i64::try_from(number).unwrap())
        })
        .collect();
    let isolated = compile_isolated(&candidates);
    assert_eq!(isolated.table.rules.len(), OBJECTS_MAX);
    let last = format!("r{OBJECTS_MAX}");
    assert_eq!(outcome(&isolated, &last).0, Outcome::LeftOut);
    agrees(&isolated);
}

// === properties ===

const RULES: [&str; 10] = [
    "{ at: [rcptTo], action: { accept: {} } }",
    "{ at: [rcptTo, content], action: { reject: {} } }",
    "{ at: [rcptTo], match: { recipientDomains: [example.com] }, action: { tempfail: {} } }",
    "{ at: [rcptTo], match: { recipientDomains: [\"*.com\"] }, action: { reject: {} } }",
    "{ at: [content], match: { listener: [mx] }, action: { discard: { acknowledgeLoss: true } } }",
    "{ at: [routing], action: { addHeader: { name: X-A, value: b } } }",
    CALLS,
    TYPO,
    "{ at: [content], callout: { serviceRef: { name: signer } } }",
    INVALID,
];

const SERVICES: [&str; 5] = [
    FILTER,
    "{ class: sign, endpoint: \"unix:/s\" }",
    "{ class: analyze, builtin: { name: a }, pool: { min: 0, engine: keda } }",
    "{ class: adapt, builtin: { name: a }, pool: { min: 0, engine: keda } }",
    "{ class: adapt }",
];

fn candidate() -> impl Strategy<Value = Candidate> {
    let version = |kinds: usize| prop::option::of(0..kinds);
    let rules = (
        0..5_usize,
        version(RULES.len()),
        version(RULES.len()),
        0..4_i64,
    )
        .prop_map(|(name, written, before, created)| {
            let make = |at: usize| rule(&format!("r{name}"), RULES[at]);
            made(
                "OpesRule",
                &format!("default/r{name}"),
                written.map(make),
                before.map(make),
                created,
            )
        });
    let services = (
        0..2_usize,
        version(SERVICES.len()),
        version(SERVICES.len()),
        0..4_i64,
    )
        .prop_map(|(name, written, before, created)| {
            let name = ["filter", "signer"][name];
            let make = |at: usize| service(name, SERVICES[at]);
            let full = format!("default/{name}");
            made(
                "CalloutService",
                &full,
                written.map(make),
                before.map(make),
                created,
            )
        });
    prop_oneof![2 => rules, 1 => services]
}

fn made(
    kind: &'static str,
    name: &str,
    written: Option<Object>,
    before: Option<Object>,
    created: i64,
) -> Candidate {
    let unread = || {
        let found = vec![Origin::named(name).error("spec", "unknown field `x`", "")];
        Candidate::unread(kind, name, created, found)
    };
    written
        .map_or_else(unread, |object| Candidate::read(object, created))
        .with_last_accepted(before)
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    prop::collection::vec(candidate(), 0..9).prop_map(|mut all| {
        let mut seen = BTreeSet::new();
        all.retain(|candidate| seen.insert((candidate.kind, candidate.name.clone())));
        all
    })
}

fn others(isolated: &Isolated, name: &str) -> Vec<Judgement> {
    let all = isolated.judgements.iter();
    all.filter(|judgement| judgement.name != name)
        .cloned()
        .collect()
}

proptest! {
    #[test]
    fn always_compiles_and_order_does_not_matter(
        all in candidates().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
    ) {
        let (one, two) = (compile_isolated(&all.0), compile_isolated(&all.1));
        agrees(&one);
        prop_assert_eq!(&one.judgements, &two.judgements);
        prop_assert_eq!(&one.table.revision, &two.table.revision);
        for judgement in &one.judgements {
            let wrong = judgement.faults.iter().any(Fault::is_error);
            prop_assert_eq!(wrong, judgement.outcome != Outcome::Accepted);
        }
    }

    #[test]
    fn one_that_is_wrong_changes_nothing_for_the_others(all in candidates(), at in 0..9_usize) {
        let before = compile_isolated(&all);
        let new = [
            Candidate::read(rule("new", INVALID), -1),
            Candidate::unread("OpesRule", "default/new", -1, Vec::new()),
            Candidate::read(service("new", "{ class: adapt }"), -1),
        ];
        for new in new {
            let mut more = all.clone();
            more.push(new);
            let after = compile_isolated(&more);
            prop_assert_eq!(&before.table.revision, &after.table.revision);
            prop_assert_eq!(others(&before, ""), others(&after, "default/new"));
        }
        // A bad edit of one that runs.
        let Some(edited) = all.get(at) else { return Ok(()) };
        let is_edited = |j: &&Judgement| j.kind == edited.kind && j.name == edited.name;
        let judged = before.judgements.iter().find(is_edited).unwrap();
        if judged.outcome == Outcome::Accepted {
            let mut broken = all.clone();
            let unread = Candidate::unread(edited.kind, edited.name.clone(), edited.created, Vec::new());
            broken[at] = unread.with_last_accepted(edited.written.clone().ok());
            let after = compile_isolated(&broken);
            prop_assert_eq!(&before.table.revision, &after.table.revision);
            prop_assert_eq!(others(&before, &edited.name), others(&after, &edited.name));
        }
    }

    /// What is remembered as accepted changes nothing: a restarted operator does what the one before did.
    #[test]
    fn cold_is_as_warm(all in candidates()) {
        let warm = compile_isolated(&all);
        let mut cold = all.clone();
        for candidate in &mut cold {
            let is = |j: &&Judgement| j.kind == candidate.kind && j.name == candidate.name;
            let judged = warm.judgements.iter().find(is).unwrap();
            if judged.outcome == Outcome::Accepted {
                candidate.last_accepted = candidate.written.clone().ok();
            }
        }
        let cold = compile_isolated(&cold);
        prop_assert_eq!(&warm.table.revision, &cold.table.revision);
        prop_assert_eq!(&warm.judgements, &cold.judgements);
    }

    #[test]
    fn documents_come_back_equal(name in "[a-z]{1,8}", key in "\\PC{0,12}", value in "\\PC{0,40}", number in prop_oneof![any::<f64>(), (-1000..1000_i32).prop_map(f64::from)]) {
        let mut object = rule(&name, CALLS);
        if let Resource::OpesRule(rule) = &mut object.resource {
            let parameters = &mut rule.spec.callout.as_mut().unwrap().parameters;
            parameters.insert(key, serde_json::json!([value, null, { "n": number, "m": -3 }]));
        }
        let sent = object.to_json();
        let read = object_from_json("edge", &sent).unwrap();
        // serde_json reads a number to within the last bit; what counts is that nobody sees another revision.
        prop_assert_eq!(read.to_json(), sent);
        if number.is_finite() && number.fract() == 0.0 && number.abs() < 1e15 {
            prop_assert_eq!(&read.resource, &object.resource);
        }
    }
}

#[test]
fn documents_are_yaml_too() {
    for (object, text) in [
        (rule("scan", CALLS), "b\\n \\\\ \" é"),
        (rule("scan", RULES[4]), ""),
        (service("filter", SERVICES[2]), ""),
    ] {
        let mut object = object;
        if let Resource::OpesRule(rule) = &mut object.resource
            && let Some(callout) = &mut rule.spec.callout
        {
            callout.parameters.insert("k".into(), text.into());
        }
        let (read, found) = parse("sent", &object.to_json());
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(read[0].resource, object.resource);
    }
}
