//! Changes of state in the log: one line each, however many transactions they meet.

use crate::balance::Note;

pub(super) fn log(service: &str, notes: Vec<Note>) {
    for note in notes {
        match note {
            Note::Down { error } => {
                tracing::warn!(service, %error, "callout endpoint lost, dialled until it is back");
            }
            Note::Up { target, away } => {
                let away_ms = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(service, %target, away_ms, "callout endpoint is back");
            }
            Note::Ejected { target, length } => {
                let seconds = length.as_secs();
                tracing::warn!(service, %target, seconds, "callout endpoint fails again and again, left alone for a while");
            }
            Note::BreakerOpened => {
                tracing::warn!(
                    service,
                    "callout service only fails, callouts to it fail at once; it is probed"
                );
            }
            Note::BreakerClosed { after } => {
                let open_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(service, open_ms, "callout service answers again");
            }
        }
    }
}
