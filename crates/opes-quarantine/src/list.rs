//! Lists: filters, pages, newest first.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use crate::entry::{Entry, Summary};
use crate::metrics::Operation;
use crate::store::{signed, unsigned};
use crate::{Store, StoreError};

/// Most entries of a page.
pub const PAGE_MAX: u32 = 1000;
const PAGE_DEFAULT: u32 = 100;

/// Most octets of a filter's text.
const FILTER_OCTETS_MAX: usize = 1024;

const COLUMNS: &str = "e.id, e.edge, e.octets, e.queue, e.reason, e.rule, e.service, e.sender, e.first_recipient, e.recipients,
    e.header_from, e.header_subject, e.header_date, e.held_at, e.expires_at,
    (SELECT COUNT(*) FROM quarantine_recipients r WHERE r.entry = e.id AND r.state = 'held') AS held";

/// One entry, with its envelope.
pub(crate) const SELECT_ONE: &str =
    "SELECT e.id, e.edge, e.octets, e.queue, e.reason, e.rule, e.service, e.sender, e.first_recipient, e.recipients,
    e.header_from, e.header_subject, e.header_date, e.held_at, e.expires_at, e.envelope,
    (SELECT COUNT(*) FROM quarantine_recipients r WHERE r.entry = e.id AND r.state = 'held') AS held
    FROM quarantine_entries e WHERE e.id = $1 AND e.gone_at = 0";

/// Which entries; an empty field matches all. As query parameters of the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Filter {
    /// Exactly this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Reverse-path, in any case of letters; empty for the null path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// One of the recipients, in any case of letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// Domain of the sender or of one of the recipients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Held at this time or later, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Held before this time, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Part of the reason, in any case of letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// [`Page::next`] of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Entries of the page, 100 unless told otherwise, at most [`PAGE_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// Newest first.
    pub entries: Vec<Entry>,
    /// For the page after this one; none = this is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A value of a condition.
enum Value {
    Text(String),
    Number(i64),
}

/// `WHERE …` with its values.
struct Conditions {
    text: String,
    values: Vec<Value>,
}

impl Store {
    /// A page of what is held. Entries that come or go meanwhile do not shift the pages.
    pub async fn list(&self, filter: &Filter) -> Result<Page, StoreError> {
        let page = self.try_list(filter).await;
        self.counted(Operation::List, page)
    }

    async fn try_list(&self, filter: &Filter) -> Result<Page, StoreError> {
        let limit = filter.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
        let conditions = conditions(filter)?;
        let text = format!(
            "SELECT {COLUMNS} FROM quarantine_entries e WHERE {} ORDER BY e.held_at DESC, e.id DESC LIMIT {}",
            conditions.text,
            limit + 1
        );
        // Made of constants and numbered places only; what comes from outside is bound.
        let mut query = sqlx::query(AssertSqlSafe(text));
        for value in conditions.values {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Number(number) => query.bind(number),
            };
        }
        let rows = query.fetch_all(self.pool().await?).await?;
        let mut entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        let next = entries
            .last()
            .filter(|_| more)
            .map(|last| format!("{}.{}", last.held_at_ms, last.id));
        Ok(Page { entries, next })
    }
}

fn conditions(filter: &Filter) -> Result<Conditions, StoreError> {
    let texts = [
        &filter.queue,
        &filter.sender,
        &filter.recipient,
        &filter.domain,
        &filter.reason,
        &filter.cursor,
    ];
    let unusable =
        |text: &&String| text.len() > FILTER_OCTETS_MAX || text.chars().any(char::is_control);
    if texts.into_iter().flatten().any(|text| unusable(&text)) {
        return Err(StoreError::Request(
            "a filter is too long or has control characters".into(),
        ));
    }
    let mut all = Conditions {
        text: "e.gone_at = 0".into(),
        values: Vec::new(),
    };
    if let Some(queue) = &filter.queue {
        all.and("e.queue = $", Value::Text(queue.clone()));
    }
    if let Some(sender) = &filter.sender {
        all.and("e.sender_key = $", Value::Text(key(sender)));
    }
    if let Some(recipient) = &filter.recipient {
        let condition = "EXISTS (SELECT 1 FROM quarantine_recipients r WHERE r.entry = e.id AND r.address_key = $)";
        all.and(condition, Value::Text(key(recipient)));
    }
    if let Some(domain) = &filter.domain {
        let condition = "(e.sender_domain = $ OR EXISTS (SELECT 1 FROM quarantine_recipients r WHERE r.entry = e.id AND r.domain = $))";
        all.and(condition, Value::Text(domain.to_lowercase()));
    }
    if let Some(since) = filter.since_ms {
        all.and("e.held_at >= $", Value::Number(signed(since)));
    }
    if let Some(until) = filter.until_ms {
        all.and("e.held_at < $", Value::Number(signed(until)));
    }
    if let Some(reason) = &filter.reason {
        let pattern = format!("%{}%", escaped(&reason.to_lowercase()));
        all.and("e.reason_key LIKE $ ESCAPE '\\'", Value::Text(pattern));
    }
    if let Some(cursor) = &filter.cursor {
        let (held_at, id) = parse_cursor(cursor)?;
        all.and("e.held_at <= $", Value::Number(held_at));
        all.values.push(Value::Text(id.into()));
        let id_place = all.values.len();
        all.text.push_str(&format!(
            " AND (e.held_at < ${} OR e.id < ${id_place})",
            id_place - 1
        ));
    }
    Ok(all)
}

impl Conditions {
    /// `$` stands for the place of `value`.
    fn and(&mut self, condition: &str, value: Value) {
        self.values.push(value);
        let place = format!("${}", self.values.len());
        self.text.push_str(" AND ");
        self.text.push_str(&condition.replace('$', &place));
    }
}

fn parse_cursor(cursor: &str) -> Result<(i64, &str), StoreError> {
    let parts = cursor
        .split_once('.')
        .and_then(|(held_at, id)| Some((held_at.parse().ok()?, id)));
    parts.ok_or_else(|| {
        StoreError::Request("cursor: give the `next` of the page before, unchanged".into())
    })
}

/// No character of a text to be found is a wildcard.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// An address as it is compared. Local parts may differ by case (RFC 5321 §2.4); an operator who searches does not.
pub(crate) fn key(address: &str) -> String {
    address.replace('\0', "").to_lowercase()
}

pub(crate) fn domain(address: &str) -> String {
    key(address)
        .rsplit_once('@')
        .map(|(_, domain)| domain.to_owned())
        .unwrap_or_default()
}

/// From a row of [`SELECT_ONE`] or of a list.
pub(crate) fn entry(row: &AnyRow) -> Result<Entry, StoreError> {
    let count = |name: &str| -> Result<u32, sqlx::Error> {
        Ok(u32::try_from(row.try_get::<i64, _>(name)?).unwrap_or(u32::MAX))
    };
    Ok(Entry {
        id: row.try_get("id")?,
        queue: row.try_get("queue")?,
        reason: row.try_get("reason")?,
        rule: row.try_get("rule")?,
        service: row.try_get("service")?,
        held_at_ms: unsigned(row.try_get("held_at")?),
        expires_at_ms: unsigned(row.try_get("expires_at")?),
        octets: unsigned(row.try_get("octets")?),
        sender: row.try_get("sender")?,
        recipient: row.try_get("first_recipient")?,
        recipients: count("recipients")?,
        held: count("held")?,
        summary: Summary {
            from: row.try_get("header_from")?,
            subject: row.try_get("header_subject")?,
            date: row.try_get("header_date")?,
        },
    })
}
