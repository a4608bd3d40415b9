//! The operators' pages say what the code does: every key of the configuration, every metric.

use std::collections::BTreeSet;
use std::path::Path;

use opes_edge::Metrics;
use opes_edge::config::{Acceptance, EdgeConfig, ListenerProtocol};
use opes_telemetry::Registry;

const EDGE_CONFIG: &str = include_str!("../../../docs/operate/edge-config.md");
const METRICS: &str = include_str!("../../../docs/reference/metrics.md");

/// The fenced blocks of a page in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let parts = page.split(fence.as_str()).skip(1);
    parts
        .filter_map(|part| part.split("\n```").next())
        .collect()
}

/// First cells of all rows whose first cell is code.
fn first_cells(page: &str) -> BTreeSet<&str> {
    let cells = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    cells.map(|(cell, _)| cell).collect()
}

/// `pub name:` of the structs that are read from YAML, as YAML has them.
fn keys() -> BTreeSet<String> {
    let sources = [
        include_str!("../src/config.rs"),
        include_str!("../src/config/delivery.rs"),
        include_str!("../src/config/incidents.rs"),
        include_str!("../src/config/listener.rs"),
        include_str!("../src/config/quarantine.rs"),
        include_str!("../src/config/routing.rs"),
    ];
    let fields = sources
        .iter()
        .flat_map(|source| source.lines())
        .filter_map(|line| line.strip_prefix("    pub ")?.split_once(": "));
    let is_name = |name: &str| {
        name.bytes()
            .all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_')
    };
    let keys: BTreeSet<_> = fields
        .filter(|(name, _)| is_name(name))
        .map(|(name, _)| camel_case(name))
        .collect();
    assert!(keys.len() > 25, "only {keys:?} were found");
    keys
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut all, word| {
        let (initial, rest) = word.split_at(1);
        all.push_str(&initial.to_uppercase());
        all.push_str(rest);
        all
    })
}

#[test]
fn the_examples_of_the_configuration_are_read() {
    let examples = blocks(EDGE_CONFIG, "yaml");
    let [smallest, whole, cluster] = examples.as_slice() else {
        panic!("{} examples", examples.len())
    };
    let parse = |text: &str| {
        EdgeConfig::parse(text, Path::new("edge-config.md"))
            .unwrap_or_else(|error| panic!("{error}"))
    };
    assert_eq!(parse(smallest).listeners.len(), 1);
    let whole = parse(whole);
    let protocols: Vec<_> = whole
        .listeners
        .iter()
        .map(|listener| listener.protocol)
        .collect();
    assert_eq!(
        protocols,
        [
            ListenerProtocol::Smtp,
            ListenerProtocol::Submission,
            ListenerProtocol::Submission,
            ListenerProtocol::Lmtp
        ]
    );
    assert_eq!(whole.listeners[3].delivery, Acceptance::CutThrough);
    let cluster = parse(cluster);
    assert!(cluster.routing.is_some() && !cluster.spool_durable);
}

#[test]
fn every_key_is_in_the_example_and_explained() {
    let examples = blocks(EDGE_CONFIG, "yaml");
    let explained = first_cells(EDGE_CONFIG);
    for key in keys() {
        let written = examples
            .iter()
            .any(|example| example.contains(&format!("{key}:")));
        assert!(written || key == "maildir", "`{key}` is in no example");
        let in_table = explained.contains(key.as_str());
        assert!(in_table, "`{key}` has no row");
    }
}

#[test]
fn no_key_is_explained_that_is_not_there() {
    let keys = keys();
    let configuration = EDGE_CONFIG
        .split("## Is it running?")
        .next()
        .unwrap_or_default();
    for cell in first_cells(configuration) {
        assert!(keys.contains(cell), "`{cell}` is explained and is no key");
    }
}

#[test]
fn the_defaults_are_those_of_the_page() {
    let smallest = blocks(EDGE_CONFIG, "yaml")[0];
    let defaults = EdgeConfig::parse(smallest, Path::new("edge-config.md")).unwrap();
    let listener = &defaults.listeners[0];
    for (key, default) in [
        (
            "memoryBudget",
            format!("`{}Mi`", defaults.memory_budget >> 20),
        ),
        (
            "memoryPerMessage",
            format!("`{}Ki`", defaults.memory_per_message >> 10),
        ),
        ("sessionsMax", defaults.sessions_max.to_string()),
        (
            "drainTimeout",
            format!("`{}s`", defaults.drain_timeout.as_secs()),
        ),
        (
            "connectionsMax",
            defaults.delivery.connections_max.to_string(),
        ),
        (
            "keep",
            format!("`{}d`", defaults.quarantine.keep.as_secs() / 86_400),
        ),
        (
            "perRecipientPerHour",
            defaults.notifications.per_recipient_per_hour.to_string(),
        ),
        (
            "perRulePerHour",
            defaults.notifications.per_rule_per_hour.to_string(),
        ),
        ("sizeMax", format!("`{}Mi`", listener.size_max >> 20)),
        ("recipientsMax", listener.recipients_max.to_string()),
        ("requireTls", format!("`{}`", listener.require_tls)),
        ("prdr", format!("`{}`", listener.prdr)),
        ("smtputf8", format!("`{}`", listener.smtputf8)),
        ("chunking", format!("`{}`", listener.chunking)),
        ("dsn", format!("`{}`", listener.dsn)),
        ("errorsMax", listener.errors_max.to_string()),
        ("idleCommandsMax", listener.idle_commands_max.to_string()),
        (
            "clientTimeout",
            format!("`{}m`", listener.client_timeout.as_secs() / 60),
        ),
    ] {
        let row = format!("| `{key}` | {default} |");
        assert!(EDGE_CONFIG.contains(&row), "no row `{row}`");
    }
}

/// Names as registered: without what the text format appends.
fn base_name(name: &str) -> &str {
    name.strip_suffix("_total")
        .or_else(|| name.strip_suffix("_info"))
        .unwrap_or(name)
}

/// From the output, and from the source: a family without values is not in the output.
fn registered() -> BTreeSet<String> {
    let registry = Registry::new();
    registry.with(Metrics::register);
    let output = registry.encode().expect("metrics can be encoded");
    let shown = output
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let source = concat!(
        include_str!("../src/metrics.rs"),
        include_str!("../src/metrics/pool.rs"),
        include_str!("../src/trace/metrics.rs")
    );
    let declared = source.split('"').filter(|text| {
        text.starts_with("opes_")
            && text
                .bytes()
                .all(|octet| octet.is_ascii_lowercase() || octet == b'_')
    });
    shown.chain(declared).map(str::to_owned).collect()
}

#[test]
fn every_metric_has_a_row_and_every_row_a_metric() {
    let table = METRICS.split("## Questions").next().unwrap_or_default();
    let documented: BTreeSet<_> = first_cells(table)
        .into_iter()
        .map(|name| base_name(name).to_owned())
        .collect();
    assert_eq!(documented, registered());
}

#[test]
fn every_value_of_a_label_is_named() {
    let source = include_str!("../src/metrics.rs");
    for label in [
        "OutcomeLabel",
        "CalloutLabel",
        "BounceLabel",
        "NotificationLabel",
        "IncidentLabel",
        "WebhookLabel",
        "NeedLabel",
    ] {
        let start = source.find(&format!("enum {label} {{")).unwrap();
        let body = source[start..].split('}').next().unwrap_or_default();
        for value in body
            .lines()
            .skip(1)
            .map(|line| line.trim().trim_end_matches(','))
            .filter(|value| !value.is_empty() && !value.starts_with("///"))
        {
            assert!(
                METRICS.contains(&format!("`{value}`")),
                "`{value}` of {label} is not in metrics.md"
            );
        }
    }
}
