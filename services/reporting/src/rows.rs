//! Rows of several events as few statements: one for each hundred of a table.

use sqlx::{Any, AssertSqlSafe, Transaction};

use crate::event::{Answered, Attempt, Event, What};

/// Rows of a full statement, which is prepared once. Both engines take 32,766 values; this is at most 1,200.
const STATEMENT_ROWS: usize = 100;

/// One field of a row.
#[derive(Debug, Clone)]
pub(crate) enum Field {
    Text(String),
    Number(i64),
}

/// Rows of one table. What is there already stays: an event that is told twice counts once.
#[derive(Debug)]
struct Table {
    head: &'static str,
    columns: usize,
    fields: Vec<Field>,
}

/// Everything that some events come to.
#[derive(Debug)]
pub(crate) struct Rows([Table; 6]);

/// Events that are not in the database, for those who read reports.
#[derive(Debug, Clone)]
pub(crate) struct Loss {
    pub(crate) id: String,
    pub(crate) at_ms: i64,
    pub(crate) reason: &'static str,
    pub(crate) events: i64,
}

impl From<String> for Field {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Field {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

// === impl Table ===

impl Table {
    const fn new(head: &'static str, columns: usize) -> Self {
        Self {
            head,
            columns,
            fields: Vec::new(),
        }
    }

    fn row<const N: usize>(&mut self, fields: [Field; N]) {
        debug_assert_eq!(N, self.columns);
        self.fields.extend(fields);
    }

    async fn insert(self, transaction: &mut Transaction<'_, Any>) -> Result<(), sqlx::Error> {
        let size = STATEMENT_ROWS * self.columns;
        let mut fields = self.fields.into_iter();
        while fields.len() > 0 {
            let chunk: Vec<Field> = fields.by_ref().take(size).collect();
            let is_full = chunk.len() == size;
            // Numbered places only; the fields are bound.
            let text = statement(self.head, self.columns, chunk.len() / self.columns);
            let query = sqlx::query(AssertSqlSafe(text)).persistent(is_full);
            let query = chunk.into_iter().fold(query, |query, field| match field {
                Field::Text(text) => query.bind(text),
                Field::Number(number) => query.bind(number),
            });
            query.execute(&mut **transaction).await?;
        }
        Ok(())
    }
}

fn statement(head: &str, columns: usize, rows: usize) -> String {
    let mut text = format!("INSERT INTO {head} VALUES ");
    for row in 0..rows {
        let first = row * columns + 1;
        let places: Vec<String> = (first..first + columns)
            .map(|place| format!("${place}"))
            .collect();
        let separator = if row == 0 { "" } else { ", " };
        text.push_str(&format!("{separator}({})", places.join(", ")));
    }
    text.push_str(" ON CONFLICT DO NOTHING");
    text
}

// === impl Rows ===

impl Rows {
    pub(crate) fn of(events: &[Event], losses: &[Loss]) -> Self {
        let mut rows = Self([
            Table::new(
                "report_events (id, at_ms, dialog, listener, direction, point, octets, sender, sender_domain, recipients, accepted, elapsed_us)",
                12,
            ),
            Table::new(
                "report_recipients (event, number, at_ms, point, address, domain, recipients)",
                7,
            ),
            Table::new(
                "report_fates (event, number, at_ms, point, fate, queue_id, recipients, code, enhanced)",
                9,
            ),
            Table::new(
                "report_steps (event, number, at_ms, rule, service, result, failure, elapsed_us)",
                8,
            ),
            Table::new(
                "report_attempts (id, at_ms, dialog, queue_id, outcome, address, domain, code, enhanced, elapsed_ms)",
                10,
            ),
            Table::new("report_losses (id, at_ms, reason, events)", 4),
        ]);
        for event in events {
            match &event.what {
                What::Answered(answered) => rows.answered(event, answered),
                What::Attempt(attempt) => rows.attempt(event, attempt),
            }
        }
        let Self([.., table]) = &mut rows;
        for loss in losses {
            table.row([
                loss.id.clone().into(),
                loss.at_ms.into(),
                loss.reason.into(),
                loss.events.into(),
            ]);
        }
        rows
    }

    /// All of them or none, as far as the transaction goes.
    pub(crate) async fn insert(
        self,
        transaction: &mut Transaction<'_, Any>,
    ) -> Result<(), sqlx::Error> {
        for table in self.0 {
            table.insert(transaction).await?;
        }
        Ok(())
    }

    fn answered(&mut self, event: &Event, answered: &Answered) {
        let Self([events, recipients, fates, steps, ..]) = self;
        let id = || Field::from(event.id.clone());
        events.row([
            id(),
            event.at_ms.into(),
            event.dialog.clone().into(),
            answered.listener.clone().into(),
            answered.direction.into(),
            answered.point.into(),
            answered.octets.into(),
            answered.sender.address.clone().into(),
            answered.sender.domain.clone().into(),
            answered.recipients_total().into(),
            i64::from(answered.accepted).into(),
            answered.elapsed_us.into(),
        ]);
        for (number, (kept, count)) in (0_i64..).zip(&answered.recipients) {
            recipients.row([
                id(),
                number.into(),
                event.at_ms.into(),
                answered.point.into(),
                kept.address.clone().into(),
                kept.domain.clone().into(),
                (*count).into(),
            ]);
        }
        for (number, fate) in (0_i64..).zip(&answered.fates) {
            fates.row([
                id(),
                number.into(),
                event.at_ms.into(),
                answered.point.into(),
                fate.kind.into(),
                fate.queue_id.clone().into(),
                fate.recipients.into(),
                fate.code.into(),
                fate.enhanced.clone().into(),
            ]);
        }
        for (number, step) in (0_i64..).zip(&answered.steps) {
            steps.row([
                id(),
                number.into(),
                event.at_ms.into(),
                step.rule.clone().into(),
                step.service.clone().into(),
                step.result.into(),
                step.failure.clone().into(),
                step.elapsed_us.into(),
            ]);
        }
    }

    fn attempt(&mut self, event: &Event, attempt: &Attempt) {
        let Self([.., attempts, _]) = self;
        attempts.row([
            event.id.clone().into(),
            event.at_ms.into(),
            event.dialog.clone().into(),
            attempt.queue_id.clone().into(),
            attempt.outcome.into(),
            attempt.recipient.address.clone().into(),
            attempt.recipient.domain.clone().into(),
            attempt.code.into(),
            attempt.enhanced.clone().into(),
            attempt.elapsed_ms.into(),
        ]);
    }
}
