//! Points in time for people: UTC, to the minute.

use std::time::{SystemTime, UNIX_EPOCH};

use opes_edge::config::parse_duration;

const DAY_MS: u64 = 24 * 3_600_000;

/// `2025-11-23 21:05`, UTC, of milliseconds since 1970.
pub(crate) fn shown(ms: u64) -> String {
    let (year, month, day) = date(ms / DAY_MS);
    let minutes = ms % DAY_MS / 60_000;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}",
        minutes / 60,
        minutes % 60
    )
}

/// The body of a Date field (RFC 5322 §3.3), UTC, of milliseconds since 1970: `23 Nov 2025 21:05:09 +0000`.
pub(crate) fn date_field(ms: u64) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (year, month, day) = date(ms / DAY_MS);
    let name = usize::try_from(month)
        .ok()
        .and_then(|month| MONTHS.get(month.wrapping_sub(1)))
        .unwrap_or(&"Jan");
    let seconds = ms % DAY_MS / 1000;
    format!(
        "{day} {name} {year:04} {:02}:{:02}:{:02} +0000",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Milliseconds since 1970 of `2025-11-23` (its beginning, UTC), or of `2d`: that long ago.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    if let Some(ms) = parse_date(text) {
        return Ok(ms);
    }
    let ago = parse_duration(text).map_err(|_| {
        format!("`{text}` is no time; write a date such as 2025-11-23, or 30m, 12h, 2d for that long ago")
    })?;
    let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    Ok(now_ms().saturating_sub(ago))
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn parse_date(text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, '-');
    let mut number = || parts.next()?.parse::<u64>().ok();
    let wanted = (number()?, number()?, number()?);
    // The table is short: days since 1970 until the year 2200.
    let days = (0..84_000).find(|days| date(*days) == wanted)?;
    Some(days * DAY_MS)
}

/// Year, month and day of the Gregorian calendar for days since 1970, by counting in eras of 400 years that begin in March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(shown(0), "1970-01-01 00:00");
        assert_eq!(shown(951_782_400_000), "2000-02-29 00:00");
        assert_eq!(shown(1_763_931_900_000), "2025-11-23 21:05");
        assert_eq!(parse("2000-02-29"), Ok(951_782_400_000));
        assert!(parse("2001-02-29").is_err() && parse("yesterday").is_err());
        assert!(parse("2d").unwrap() > 1_700_000_000_000);
    }
}
