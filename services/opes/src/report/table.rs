//! A report for people: a table for each question.

use opes_reporting::{
    AttemptRow, DomainRow, FateRow, HourRow, Latency, Report, RuleRow, ServiceRow, VolumeRow,
};

use crate::columns::aligned;
use crate::time::shown;

/// Everything that was read; tables without a row are left out.
pub(super) fn report(report: &Report) -> String {
    let mut text = format!(
        "{} to {} UTC\n",
        shown(report.since_ms),
        shown(report.until_ms)
    );
    if report.volume.is_empty() && report.attempts.is_empty() && report.losses.is_empty() {
        text.push_str("nothing was reported\n");
        return text;
    }
    let mut add = |table: Option<String>| {
        if let Some(table) = table {
            text.push('\n');
            text.push_str(&table);
        }
    };
    add(volume(&report.volume));
    add(fates(&report.fates));
    add(attempts(&report.attempts));
    add(report.services.as_deref().and_then(services));
    add(report.rules.as_deref().and_then(rules));
    add(report.domains.as_deref().and_then(domains));
    add(report.hours.as_deref().and_then(hours));
    for loss in &report.losses {
        let why = match loss.reason.as_str() {
            "full" => "the queue was full",
            "rejected" => "the database did not take them",
            "stopped" => "they still waited when the service ended",
            other => other,
        };
        text.push_str(&format!("\nnot reported: {} events, {why}\n", loss.events));
    }
    text
}

/// None if there are no rows.
fn table<T, const N: usize>(
    head: [&str; N],
    rows: &[T],
    row: impl Fn(&T) -> [String; N],
) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    let head = std::iter::once(head.map(str::to_owned));
    let all: Vec<_> = head.chain(rows.iter().map(row)).collect();
    Some(aligned(&all))
}

fn volume(rows: &[VolumeRow]) -> Option<String> {
    let head = [
        "DIRECTION",
        "MESSAGES",
        "ACCEPTED",
        "OCTETS",
        "RECIPIENTS",
        "REFUSED COMMANDS",
    ];
    table(head, rows, |row| {
        [
            row.direction.clone(),
            row.messages.to_string(),
            row.accepted.to_string(),
            row.octets.to_string(),
            row.recipients.to_string(),
            row.refused_commands.to_string(),
        ]
    })
}

fn fates(rows: &[FateRow]) -> Option<String> {
    let head = ["ANSWER", "AT", "EVENTS", "RECIPIENTS"];
    table(head, rows, |row| {
        [
            row.fate.clone(),
            row.at.clone(),
            row.events.to_string(),
            row.recipients.to_string(),
        ]
    })
}

fn attempts(rows: &[AttemptRow]) -> Option<String> {
    let head = ["DELIVERY", "ATTEMPTS", "P50", "P90", "P99"];
    table(head, rows, |row| {
        let [p50, p90, p99] = percentiles(row.latency_us);
        [row.outcome.clone(), row.attempts.to_string(), p50, p90, p99]
    })
}

fn services(rows: &[ServiceRow]) -> Option<String> {
    let head = ["SERVICE", "CALLS", "P50", "P90", "P99", "VERDICTS"];
    table(head, rows, |row| {
        let [p50, p90, p99] = percentiles(row.latency_us);
        [
            row.service.clone(),
            row.calls.to_string(),
            p50,
            p90,
            p99,
            results(&row.results),
        ]
    })
}

fn rules(rows: &[RuleRow]) -> Option<String> {
    let head = ["RULE", "CALLS", "RUNS", "VERDICTS"];
    table(head, rows, |row| {
        [
            row.rule.clone(),
            dash(&row.service),
            row.runs.to_string(),
            results(&row.results),
        ]
    })
}

fn domains(rows: &[DomainRow]) -> Option<String> {
    let head = [
        "DOMAIN",
        "MESSAGES",
        "RECIPIENTS",
        "DELIVERED",
        "DEFERRED",
        "BOUNCED",
    ];
    table(head, rows, |row| {
        [
            dash(&row.domain),
            row.messages.to_string(),
            row.recipients.to_string(),
            row.delivered.to_string(),
            row.deferred.to_string(),
            row.bounced.to_string(),
        ]
    })
}

fn hours(rows: &[HourRow]) -> Option<String> {
    let head = [
        "HOUR (UTC)",
        "MESSAGES",
        "ACCEPTED",
        "OCTETS",
        "RECIPIENTS",
        "REFUSED COMMANDS",
    ];
    table(head, rows, |row| {
        [
            shown(row.hour_ms),
            row.messages.to_string(),
            row.accepted.to_string(),
            row.octets.to_string(),
            row.recipients.to_string(),
            row.refused_commands.to_string(),
        ]
    })
}

fn results(results: &[(String, u64)]) -> String {
    let words = results
        .iter()
        .map(|(word, count)| format!("{count} {word}"));
    words.collect::<Vec<_>>().join(", ")
}

fn percentiles(latency: Latency) -> [String; 3] {
    [latency.p50, latency.p90, latency.p99].map(|time| time.map_or_else(|| "-".into(), duration))
}

/// Three digits of microseconds, in the unit that suits.
fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (us, text) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (1_000, "1.0 ms"),
            (12_345, "12.3 ms"),
            (2_500_000, "2.5 s"),
        ] {
            assert_eq!(duration(us), text);
        }
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        let none = Report {
            since_ms: 0,
            until_ms: 60_000,
            volume: Vec::new(),
            fates: Vec::new(),
            attempts: Vec::new(),
            services: None,
            rules: None,
            domains: None,
            hours: None,
            losses: Vec::new(),
        };
        let text = report(&none);
        assert_eq!(
            text,
            "1970-01-01 00:00 to 1970-01-01 00:01 UTC\nnothing was reported\n"
        );
    }
}
