//! As much of PromQL as tests need: the selectors in an expression, and the durations.

use anyhow::{Context as _, Result, ensure};

/// Metrics that are not ours and yet asked for.
const FOREIGN: [&str; 3] = [
    "up",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
];

/// The selectors of an expression, each with its matchers and without its window: `opes_callouts_total{result!="Answered"}`.
pub fn selectors(expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(is_word) {
        let word = &rest[start..];
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        rest = after;
        if name.starts_with("opes_") || FOREIGN.contains(&name) {
            let matchers = after
                .starts_with('{')
                .then(|| after.find('}').map(|end| &after[..=end]))
                .flatten()
                .unwrap_or_default();
            found.push(format!("{name}{matchers}"));
        }
        // What is in matchers, strings among it, is no metric.
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside.split_once('}').map_or("", |(_, after)| after);
        }
    }
    found
}

/// The expression with each duration divided: windows, `offset`, or a duration alone. `[5m]` thirty times as fast is `[10000ms]`.
pub fn faster(expression: &str, speed: u64) -> Result<String> {
    ensure!(speed > 0, "no speed");
    let mut text = String::new();
    let mut rest = expression;
    while !rest.is_empty() {
        let end = rest.find(is_word).unwrap_or(rest.len());
        let (between, word) = rest.split_at(end);
        text.push_str(between);
        // `0.99` is two words, and no duration.
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        match duration_ms(word) {
            Some(duration) => text.push_str(&format!("{}ms", duration / speed)),
            None => text.push_str(word),
        }
        rest = after;
    }
    Ok(text)
}

/// Milliseconds of `30s`, `5m`, `1h`, `1d`.
pub fn duration(word: &str) -> Result<std::time::Duration> {
    let millis = duration_ms(word).with_context(|| format!("`{word}` is no duration"))?;
    Ok(std::time::Duration::from_millis(millis))
}

fn duration_ms(word: &str) -> Option<u64> {
    let unit = word.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = word.split_at(unit);
    let unit = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_found_with_their_matchers() {
        let expression = "sum by (service, opes) (rate(opes_callouts_total{result!=\"Answered\",x=\"opes_y\"}[5m])) \
                          / histogram_quantile(0.99, opes_callout_seconds_bucket[10m]) > up{job=\"a\"} and sum(up)";
        assert_eq!(
            selectors(expression),
            [
                "opes_callouts_total{result!=\"Answered\",x=\"opes_y\"}",
                "opes_callout_seconds_bucket",
                "up{job=\"a\"}",
                "up"
            ]
        );
    }

    #[test]
    fn durations_shrink_and_numbers_do_not() -> Result<()> {
        let expression =
            "rate(opes_x_total{le=\"16.384\"}[5m] offset 1d) > 0.05 or y - time() < 86400 * 5";
        assert_eq!(
            faster(expression, 30)?,
            "rate(opes_x_total{le=\"16.384\"}[10000ms] offset 2880000ms) > 0.05 or y - time() < 86400 * 5"
        );
        assert_eq!(faster("2m", 30)?, "4000ms");
        assert_eq!(duration("30s")?.as_secs(), 30);
        assert!(duration("fast").is_err());
        Ok(())
    }
}
