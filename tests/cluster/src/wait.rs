//! Waiting with a deadline, for what only becomes true.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Tries `work` until it gives `Some`; errors are tried again, the last is shown when time is up. Pauses of 100 ms.
pub async fn eventually<T, F: Future<Output = Result<Option<T>>>>(
    what: &str,
    deadline: Duration,
    mut work: impl FnMut() -> F,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let last = match work().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => anyhow!("not yet"),
            Err(error) => error,
        };
        if Instant::now() > end {
            return Err(last.context(format!("{what}: not within {deadline:?}")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether there is time for the long form of a test: `OPES_LONG` is set, as `cargo xtask kubernetes test` does.
pub fn is_long() -> bool {
    std::env::var_os("OPES_LONG").is_some_and(|value| !value.is_empty())
}
