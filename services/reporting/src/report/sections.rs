//! One statement a table, the same for SQLite and PostgreSQL.

use std::collections::BTreeMap;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query as SqlQuery;
use sqlx::{Any, AnyPool, Row as _};

use super::latency::{self, latencies};
use super::{
    AttemptRow, By, DomainRow, FateRow, HourRow, LossRow, Query, ROWS_MAX, Report, ReportError,
    RuleRow, ServiceRow, VolumeRow,
};
use crate::text::signed;

const HOUR_MS: u64 = 3_600_000;

const VOLUME: &str = "SELECT direction, CAST(SUM(CASE WHEN point = 'content' THEN 1 ELSE 0 END) AS BIGINT) AS messages,
        CAST(SUM(CASE WHEN point = 'content' THEN accepted ELSE 0 END) AS BIGINT) AS accepted,
        CAST(SUM(CASE WHEN point = 'content' THEN octets ELSE 0 END) AS BIGINT) AS octets,
        CAST(SUM(CASE WHEN point = 'content' THEN recipients ELSE 0 END) AS BIGINT) AS recipients,
        CAST(SUM(CASE WHEN point = 'content' THEN 0 ELSE 1 END) AS BIGINT) AS refused
    FROM report_events WHERE at_ms >= $1 AND at_ms < $2 GROUP BY direction ORDER BY direction";

const FATES: &str = "SELECT fate, point, COUNT(DISTINCT event) AS events, CAST(SUM(recipients) AS BIGINT) AS recipients
    FROM report_fates WHERE at_ms >= $1 AND at_ms < $2 GROUP BY fate, point ORDER BY events DESC, fate, point";

const ATTEMPTS: &str =
    "SELECT outcome, COUNT(*) AS attempts FROM report_attempts WHERE at_ms >= $1 AND at_ms < $2
    GROUP BY outcome ORDER BY attempts DESC, outcome";

const STEPS: &str = "SELECT rule, service, result, failure, COUNT(*) AS runs FROM report_steps WHERE at_ms >= $1 AND at_ms < $2
    GROUP BY rule, service, result, failure ORDER BY runs DESC, rule, service, result, failure";

const DOMAINS: &str = "SELECT r.domain AS domain, r.messages AS messages, r.recipients AS recipients,
        CAST(COALESCE(a.delivered, 0) AS BIGINT) AS delivered, CAST(COALESCE(a.deferred, 0) AS BIGINT) AS deferred, CAST(COALESCE(a.bounced, 0) AS BIGINT) AS bounced
    FROM (SELECT domain, COUNT(DISTINCT event) AS messages, CAST(SUM(recipients) AS BIGINT) AS recipients FROM report_recipients
        WHERE at_ms >= $1 AND at_ms < $2 AND point = 'content' GROUP BY domain) AS r
    LEFT JOIN (SELECT domain, CAST(SUM(CASE WHEN outcome = 'delivered' THEN 1 ELSE 0 END) AS BIGINT) AS delivered,
            CAST(SUM(CASE WHEN outcome = 'deferred' THEN 1 ELSE 0 END) AS BIGINT) AS deferred,
            CAST(SUM(CASE WHEN outcome = 'bounced' THEN 1 ELSE 0 END) AS BIGINT) AS bounced
        FROM report_attempts WHERE at_ms >= $1 AND at_ms < $2 GROUP BY domain) AS a ON a.domain = r.domain
    ORDER BY r.recipients DESC, r.domain LIMIT $3";

const HOURS: &str = "SELECT at_ms / 3600000 AS hour, CAST(SUM(CASE WHEN point = 'content' THEN 1 ELSE 0 END) AS BIGINT) AS messages,
        CAST(SUM(CASE WHEN point = 'content' THEN accepted ELSE 0 END) AS BIGINT) AS accepted,
        CAST(SUM(CASE WHEN point = 'content' THEN octets ELSE 0 END) AS BIGINT) AS octets,
        CAST(SUM(CASE WHEN point = 'content' THEN recipients ELSE 0 END) AS BIGINT) AS recipients,
        CAST(SUM(CASE WHEN point = 'content' THEN 0 ELSE 1 END) AS BIGINT) AS refused
    FROM report_events WHERE at_ms >= $1 AND at_ms < $2 GROUP BY at_ms / 3600000 ORDER BY hour DESC LIMIT $3";

const LOSSES: &str = "SELECT reason, CAST(SUM(events) AS BIGINT) AS events FROM report_losses WHERE at_ms >= $1 AND at_ms < $2
    GROUP BY reason ORDER BY reason";

/// The times that count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    since_ms: u64,
    until_ms: u64,
}

// === impl Range ===

impl Range {
    /// $1 and $2.
    pub(super) fn bind(self, statement: &'static str) -> SqlQuery<'static, Any, AnyArguments> {
        sqlx::query(statement)
            .bind(signed(self.since_ms))
            .bind(signed(self.until_ms))
    }
}

pub(super) async fn read(pool: &AnyPool, query: &Query) -> Result<Report, ReportError> {
    let range = Range {
        since_ms: query.since_ms,
        until_ms: query.until_ms,
    };
    let rows = i64::from(query.rows_max.min(ROWS_MAX));
    let asks = |by| query.by.contains(&by);
    let steps = if asks(By::Service) || asks(By::Rule) {
        range.bind(STEPS).fetch_all(pool).await?
    } else {
        Vec::new()
    };
    Ok(Report {
        since_ms: query.since_ms,
        until_ms: query.until_ms,
        volume: each(&range.bind(VOLUME).fetch_all(pool).await?, volume)?,
        fates: each(&range.bind(FATES).fetch_all(pool).await?, fate)?,
        attempts: attempts(pool, range).await?,
        services: if asks(By::Service) {
            Some(services(pool, range, &steps, rows).await?)
        } else {
            None
        },
        rules: if asks(By::Rule) {
            Some(rules(&steps, rows)?)
        } else {
            None
        },
        domains: if asks(By::Domain) {
            Some(limited(pool, range, DOMAINS, rows, domain).await?)
        } else {
            None
        },
        hours: if asks(By::Hour) {
            Some(limited(pool, range, HOURS, rows, hour).await?)
        } else {
            None
        },
        losses: each(&range.bind(LOSSES).fetch_all(pool).await?, loss)?,
    })
}

async fn limited<T>(
    pool: &AnyPool,
    range: Range,
    statement: &'static str,
    rows: i64,
    row: impl Fn(&AnyRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, sqlx::Error> {
    let found = range.bind(statement).bind(rows).fetch_all(pool).await?;
    each(&found, row)
}

fn each<T>(
    rows: &[AnyRow],
    row: impl Fn(&AnyRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, sqlx::Error> {
    rows.iter().map(row).collect()
}

fn volume(row: &AnyRow) -> Result<VolumeRow, sqlx::Error> {
    Ok(VolumeRow {
        direction: row.try_get("direction")?,
        messages: number(row, "messages")?,
        accepted: number(row, "accepted")?,
        octets: number(row, "octets")?,
        recipients: number(row, "recipients")?,
        refused_commands: number(row, "refused")?,
    })
}

fn fate(row: &AnyRow) -> Result<FateRow, sqlx::Error> {
    Ok(FateRow {
        fate: row.try_get("fate")?,
        at: row.try_get("point")?,
        events: number(row, "events")?,
        recipients: number(row, "recipients")?,
    })
}

async fn attempts(pool: &AnyPool, range: Range) -> Result<Vec<AttemptRow>, sqlx::Error> {
    let rows = range.bind(ATTEMPTS).fetch_all(pool).await?;
    let latencies = latencies(pool, latency::ATTEMPTS, range).await?;
    each(&rows, |row| {
        let outcome: String = row.try_get("outcome")?;
        Ok(AttemptRow {
            attempts: number(row, "attempts")?,
            latency_us: latencies.get(&outcome).copied().unwrap_or_default(),
            outcome,
        })
    })
}

async fn services(
    pool: &AnyPool,
    range: Range,
    steps: &[AnyRow],
    rows: i64,
) -> Result<Vec<ServiceRow>, sqlx::Error> {
    let latencies = latencies(pool, latency::SERVICES, range).await?;
    let mut services: BTreeMap<String, ServiceRow> = BTreeMap::new();
    for row in steps {
        let (name, (result, runs)) = (row.try_get::<String, _>("service")?, result_of(row)?);
        if name.is_empty() {
            continue;
        }
        let latency_us = latencies.get(&name).copied().unwrap_or_default();
        let service = services.entry(name.clone()).or_insert(ServiceRow {
            service: name,
            calls: 0,
            results: Vec::new(),
            latency_us,
        });
        service.calls += runs;
        add(&mut service.results, result, runs);
    }
    let mut services: Vec<_> = services.into_values().collect();
    services.sort_by(|a, b| (b.calls, &a.service).cmp(&(a.calls, &b.service)));
    services.truncate(usize::try_from(rows).unwrap_or(0));
    Ok(services)
}

fn rules(steps: &[AnyRow], rows: i64) -> Result<Vec<RuleRow>, sqlx::Error> {
    let mut rules: BTreeMap<(String, String), RuleRow> = BTreeMap::new();
    for row in steps {
        let (name, service): (String, String) = (row.try_get("rule")?, row.try_get("service")?);
        let (result, runs) = result_of(row)?;
        let key = (name.clone(), service.clone());
        let rule = rules.entry(key).or_insert(RuleRow {
            rule: name,
            service,
            runs: 0,
            results: Vec::new(),
        });
        rule.runs += runs;
        add(&mut rule.results, result, runs);
    }
    let mut rules: Vec<_> = rules.into_values().collect();
    rules.sort_by(|a, b| (b.runs, &a.rule).cmp(&(a.runs, &b.rule)));
    rules.truncate(usize::try_from(rows).unwrap_or(0));
    Ok(rules)
}

/// In words, and how often.
fn result_of(row: &AnyRow) -> Result<(String, u64), sqlx::Error> {
    let (result, failure): (String, String) = (row.try_get("result")?, row.try_get("failure")?);
    let words = if failure.is_empty() {
        result
    } else {
        format!("failed: {failure}")
    };
    Ok((words, number(row, "runs")?))
}

fn add(results: &mut Vec<(String, u64)>, result: String, runs: u64) {
    match results.iter_mut().find(|(known, _)| *known == result) {
        Some((_, all)) => *all += runs,
        None => results.push((result, runs)),
    }
    results.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
}

fn domain(row: &AnyRow) -> Result<DomainRow, sqlx::Error> {
    Ok(DomainRow {
        domain: row.try_get("domain")?,
        messages: number(row, "messages")?,
        recipients: number(row, "recipients")?,
        delivered: number(row, "delivered")?,
        deferred: number(row, "deferred")?,
        bounced: number(row, "bounced")?,
    })
}

fn hour(row: &AnyRow) -> Result<HourRow, sqlx::Error> {
    Ok(HourRow {
        hour_ms: number(row, "hour")?.saturating_mul(HOUR_MS),
        messages: number(row, "messages")?,
        accepted: number(row, "accepted")?,
        octets: number(row, "octets")?,
        recipients: number(row, "recipients")?,
        refused_commands: number(row, "refused")?,
    })
}

fn loss(row: &AnyRow) -> Result<LossRow, sqlx::Error> {
    Ok(LossRow {
        reason: row.try_get("reason")?,
        events: number(row, "events")?,
    })
}

fn number(row: &AnyRow, name: &str) -> Result<u64, sqlx::Error> {
    Ok(count(row.try_get(name)?))
}

/// Nothing here is negative.
pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
