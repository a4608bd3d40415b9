//! Entries for people.

use opes_quarantine::{Detail, Entry, Page, RecipientState};

use crate::columns::aligned;
use crate::time::shown;

/// Widest columns, in characters.
const ADDRESS_WIDTH: usize = 32;
const TEXT_WIDTH: usize = 40;

/// A line an entry, newest first.
pub(super) fn page(page: &Page) -> String {
    if page.entries.is_empty() {
        return "nothing is held\n".into();
    }
    let mut rows = vec![
        [
            "ID",
            "HELD (UTC)",
            "QUEUE",
            "FROM",
            "TO",
            "HELD FOR",
            "SUBJECT",
            "REASON",
        ]
        .map(str::to_owned),
    ];
    rows.extend(page.entries.iter().map(row));
    let mut text = aligned(&rows);
    if let Some(next) = &page.next {
        text.push_str(&format!("more: --cursor {next}\n"));
    }
    text
}

fn row(entry: &Entry) -> [String; 8] {
    let others = entry.recipients.saturating_sub(1);
    let to = match others {
        0 => entry.recipient.clone(),
        _ => format!("{} +{others}", entry.recipient),
    };
    [
        entry.id.clone(),
        shown(entry.held_at_ms),
        dash(&entry.queue).to_owned(),
        short(sender(&entry.sender), ADDRESS_WIDTH),
        short(&to, ADDRESS_WIDTH),
        format!("{}/{}", entry.held, entry.recipients),
        short(dash(&entry.summary.subject), TEXT_WIDTH),
        short(dash(&entry.reason), TEXT_WIDTH),
    ]
}

/// All that is known of one entry.
pub(super) fn detail(detail: &Detail) -> String {
    let entry = &detail.entry;
    let envelope = &detail.envelope;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("{name:<10} {value}\n"));
        }
    };
    line("id", &entry.id);
    line("held", &format!("{} UTC", shown(entry.held_at_ms)));
    line("expires", &format!("{} UTC", shown(entry.expires_at_ms)));
    line("queue", &entry.queue);
    line("reason", &entry.reason);
    line("rule", &entry.rule);
    line("service", &entry.service);
    line("octets", &entry.octets.to_string());
    line("From:", &entry.summary.from);
    line("Subject:", &entry.summary.subject);
    line("Date:", &entry.summary.date);
    line("sender", sender(&entry.sender));
    line("client", &envelope.client);
    line("helo", &envelope.helo);
    line("auth", envelope.auth.as_deref().unwrap_or_default());
    line("session", &envelope.session_id);
    line("edge", &detail.edge);
    for status in &detail.status {
        let state = match status.state {
            RecipientState::Held => "held".into(),
            RecipientState::Releasing => format!("being released ({})", status.release),
            RecipientState::Released => format!("released ({})", status.release),
        };
        line("recipient", &format!("{}  {state}", status.address));
    }
    for record in &detail.audit {
        let what = format!(
            "{} UTC  {} by {}  {}",
            shown(record.at_ms),
            record.what,
            record.by,
            record.detail
        );
        line("history", what.trim_end());
    }
    text
}

fn sender(address: &str) -> &str {
    if address.is_empty() { "<>" } else { address }
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn short(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}
