use serde_json::{Value, json};

use super::*;
use crate::kinds::Kind;
use crate::world::{Scope, World};

/// Objects as a watch brings them.
struct Cluster {
    world: Arc<World>,
    version: u64,
}

impl Cluster {
    fn new() -> Self {
        Self {
            world: World::new(),
            version: 0,
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "json! makes a value")]
    fn put(&mut self, kind: Kind, name: &str, generation: i64, spec: &str, status: Value) {
        self.version += 1;
        let spec: Value = serde_saphyr::from_str(spec).unwrap();
        let object = json!({
            "apiVersion": kind.api_version(), "kind": kind.name(),
            "metadata": {
                "name": name, "namespace": "mail", "uid": format!("uid-{name}"), "generation": generation,
                "resourceVersion": self.version.to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": spec, "status": status,
        });
        let scope = Scope {
            kind,
            namespace: None,
            own: false,
        };
        self.world
            .apply(&scope, serde_json::from_value(object).unwrap());
    }

    fn rule(&mut self, name: &str, generation: i64, spec: &str) {
        self.put(Kind::OpesRule, name, generation, spec, Value::Null);
    }

    fn service(&mut self, name: &str, spec: &str) {
        self.put(Kind::CalloutService, name, 1, spec, Value::Null);
    }

    fn evaluate(&self, index: &mut Index) -> Evaluation {
        index.evaluate(&self.world.objects(), &self.world.slices(false))
    }
}

const GOOD: &str =
    "{ at: [rcptTo], match: { recipientDomains: [example.com] }, action: { accept: {} } }";
const BETTER: &str =
    "{ at: [rcptTo], match: { recipientDomains: [example.net] }, action: { accept: {} } }";
const BAD: &str = "{ at: [nowhere], action: { accept: {} } }";
const CALLS: &str = "{ at: [content], callout: { serviceRef: { name: scan } } }";
const POOL: &str = "{ class: adapt, builtin: { name: normalizer } }";

fn index() -> Index {
    Index::new(&Config::default())
}

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        kind: "OpesRule",
        name: format!("mail/{name}"),
    }
}

fn runs(evaluation: &Evaluation, name: &str) -> Option<(i64, u64)> {
    evaluation.findings[&key(name)]
        .runs
        .map(|runs| (runs.generation, runs.since))
}

#[test]
fn a_rule_is_introduced_once_and_again_when_it_changes() {
    let (mut cluster, mut index) = (Cluster::new(), index());
    cluster.rule("a", 1, GOOD);
    let first = cluster.evaluate(&mut index);
    assert_eq!(runs(&first, "a"), Some((1, 1)));
    cluster.rule("b", 1, "{ at: [mailFrom], action: { continue: {} } }");
    let second = cluster.evaluate(&mut index);
    assert_eq!(
        (runs(&second, "a"), runs(&second, "b")),
        (Some((1, 1)), Some((1, 2)))
    );
    cluster.rule("a", 2, BETTER);
    let third = cluster.evaluate(&mut index);
    assert_eq!(
        (runs(&third, "a"), runs(&third, "b")),
        (Some((2, 3)), Some((1, 2)))
    );
    // What says the same is the same, whatever its generation.
    cluster.rule("a", 3, BETTER);
    let fourth = cluster.evaluate(&mut index);
    assert_eq!(runs(&fourth, "a"), Some((3, 3)));
    assert_eq!(
        fourth.snapshot.table.revision,
        third.snapshot.table.revision
    );
    assert_eq!(fourth.sequences.len(), 3);
}

#[test]
fn a_bad_edit_leaves_what_was_accepted_and_a_new_replica_finds_it_in_the_status() {
    let (mut cluster, mut index) = (Cluster::new(), index());
    cluster.rule("a", 1, GOOD);
    let before = cluster.evaluate(&mut index);
    cluster.rule("a", 2, BAD);
    let after = cluster.evaluate(&mut index);
    assert_eq!(
        after.snapshot.table.revision,
        before.snapshot.table.revision
    );
    assert_eq!(runs(&after, "a"), Some((1, 1)));
    assert_eq!(
        after.findings[&key("a")].judgement.outcome,
        Outcome::LastAccepted
    );
    let spec: Value = serde_saphyr::from_str(GOOD).unwrap();
    let status = json!({ "lastAccepted": { "generation": 1, "spec": spec } });
    cluster.put(Kind::OpesRule, "a", 2, BAD, status);
    let mut other = Index::new(&Config::default());
    let elsewhere = cluster.evaluate(&mut other);
    assert_eq!(elsewhere.snapshot.table, before.snapshot.table);
    assert_eq!(runs(&elsewhere, "a"), Some((1, 1)));
}

#[test]
fn another_object_of_the_same_name_was_never_accepted() {
    let (mut cluster, mut index) = (Cluster::new(), index());
    cluster.rule("a", 1, GOOD);
    cluster.evaluate(&mut index);
    let scope = Scope {
        kind: Kind::OpesRule,
        namespace: None,
        own: false,
    };
    cluster.world.list_begins(&scope);
    cluster.world.list_ends(&scope);
    cluster.evaluate(&mut index);
    cluster.rule("a", 1, BAD);
    let after = cluster.evaluate(&mut index);
    assert_eq!(runs(&after, "a"), None);
    assert_eq!(
        after.findings[&key("a")].judgement.outcome,
        Outcome::LeftOut
    );
}

#[test]
fn the_same_objects_make_the_same_table_in_any_order() {
    let specs = [
        ("a", GOOD),
        (
            "b",
            "{ at: [rcptTo], match: { recipientDomains: [example.com] }, action: { reject: {} } }",
        ),
        ("c", BAD),
        ("d", CALLS),
    ];
    let tables = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]].map(|order| {
        let mut cluster = Cluster::new();
        for at in order {
            let (name, spec) = specs[at];
            cluster.rule(name, 1, spec);
        }
        let evaluation = cluster.evaluate(&mut index());
        assert_eq!(
            evaluation.findings[&key("b")].judgement.outcome,
            Outcome::LeftOut,
            "the later name loses"
        );
        evaluation.snapshot.table.clone()
    });
    assert_eq!(tables[0], tables[1]);
    assert_eq!(tables[0], tables[2]);
}

#[test]
fn pools_have_endpoints_and_scaling_moves_no_rules() {
    let (mut cluster, mut index) = (Cluster::new(), index());
    cluster.service("scan", POOL);
    cluster.rule("a", 1, CALLS);
    let before = cluster.evaluate(&mut index);
    assert_eq!(
        before.snapshot.pools["mail/scan"],
        PoolFacts {
            target_in_flight: 32,
            ready: 0
        }
    );
    cluster.put(
        Kind::CalloutService,
        "scan",
        2,
        "{ class: adapt, builtin: { name: normalizer }, pool: { targetInFlight: 8 } }",
        Value::Null,
    );
    let slice = json!({
        "metadata": { "name": "s", "namespace": "mail", "labels": { "kubernetes.io/service-name": "opes-scan" }, "resourceVersion": "99" },
        "endpoints": [{ "addresses": ["192.0.2.1"] }], "ports": [{ "name": "ocp", "port": 9000 }],
    });
    let scope = Scope {
        kind: Kind::EndpointSlice,
        namespace: None,
        own: false,
    };
    cluster
        .world
        .apply(&scope, serde_json::from_value(slice).unwrap());
    let after = cluster.evaluate(&mut index);
    assert_eq!(
        after.snapshot.table.revision,
        before.snapshot.table.revision
    );
    assert_eq!(
        after.snapshot.pools["mail/scan"],
        PoolFacts {
            target_in_flight: 8,
            ready: 1
        }
    );
    assert_eq!(after.services["mail/scan"].generation, 2);
}

#[test]
fn what_may_not_run_does_not_and_a_grant_that_is_gone_takes_it_away() {
    let config = |domains: &str| {
        Config::parse(
            "operator.yaml",
            &format!("tenants: [{{ namespace: mail, domains: [{domains}] }}]"),
        )
        .unwrap()
    };
    let mut cluster = Cluster::new();
    cluster.rule("a", 1, GOOD);
    let allowed = cluster.evaluate(&mut Index::new(&config("example.com")));
    assert_eq!(runs(&allowed, "a"), Some((1, 1)));
    let spec: Value = serde_saphyr::from_str(GOOD).unwrap();
    cluster.put(
        Kind::OpesRule,
        "a",
        1,
        GOOD,
        json!({ "lastAccepted": { "generation": 1, "spec": spec } }),
    );
    let refused = cluster.evaluate(&mut Index::new(&config("example.org")));
    assert_eq!(runs(&refused, "a"), None);
    assert!(refused.findings[&key("a")].not_permitted.is_some());
}
