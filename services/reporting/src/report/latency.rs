//! Percentiles, exact: the smallest value that so many per cent do not exceed (nearest rank).

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyPool, Row as _};

use super::sections::{Range, count};

/// Percentiles in microseconds; absent = there is nothing to measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half of them.
    pub p50: Option<u64>,
    /// Nine of ten.
    pub p90: Option<u64>,
    /// Ninety-nine of a hundred.
    pub p99: Option<u64>,
}

/// By service.
pub(super) const SERVICES: &str = "SELECT name, MIN(CASE WHEN rank * 100 >= total * 50 THEN value END) AS p50,
        MIN(CASE WHEN rank * 100 >= total * 90 THEN value END) AS p90,
        MIN(CASE WHEN rank * 100 >= total * 99 THEN value END) AS p99
    FROM (SELECT service AS name, elapsed_us AS value, ROW_NUMBER() OVER (PARTITION BY service ORDER BY elapsed_us) AS rank,
            COUNT(*) OVER (PARTITION BY service) AS total
        FROM report_steps WHERE at_ms >= $1 AND at_ms < $2 AND service <> '' AND result <> 'bypassed') AS ranked
    GROUP BY name";

/// By outcome of attempts.
pub(super) const ATTEMPTS: &str = "SELECT name, MIN(CASE WHEN rank * 100 >= total * 50 THEN value END) AS p50,
        MIN(CASE WHEN rank * 100 >= total * 90 THEN value END) AS p90,
        MIN(CASE WHEN rank * 100 >= total * 99 THEN value END) AS p99
    FROM (SELECT outcome AS name, elapsed_ms * 1000 AS value,
            ROW_NUMBER() OVER (PARTITION BY outcome ORDER BY elapsed_ms) AS rank, COUNT(*) OVER (PARTITION BY outcome) AS total
        FROM report_attempts WHERE at_ms >= $1 AND at_ms < $2) AS ranked
    GROUP BY name";

/// By name.
pub(super) async fn latencies(
    pool: &AnyPool,
    statement: &'static str,
    range: Range,
) -> Result<BTreeMap<String, Latency>, sqlx::Error> {
    let rows = range.bind(statement).fetch_all(pool).await?;
    let latency = |row: &AnyRow| {
        let value = |name| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(name)?.map(count));
        let latency = Latency {
            p50: value("p50")?,
            p90: value("p90")?,
            p99: value("p99")?,
        };
        Ok((row.try_get("name")?, latency))
    };
    rows.iter().map(latency).collect()
}
