//! [`Report`]: one row for each rule, for people and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What the server calls itself; empty if it does not say.
    pub product: String,
    /// In the order of the checklist.
    pub rows: Vec<Row>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `C-01`, or the section of docs/ocp-smtp.md.
    pub id: String,
    /// As docs/ocp-smtp.md has it.
    pub statement: String,
    /// How the server did.
    pub state: State,
}

/// How a server did on one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Every scenario about it went well.
    Ok,
    /// What was found.
    Failed(Vec<Finding>),
    /// Cannot be seen from outside, or not with this server; why.
    NotTestable(String),
    /// A rule for processors.
    NotAboutServers,
}

/// One breach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was tried.
    pub scenario: String,
    /// What was wrong.
    pub what: String,
    /// Every message of the connection, in the order in which the kit saw it.
    pub transcript: Vec<String>,
}

impl Report {
    /// Nothing was found.
    pub fn passed(&self) -> bool {
        self.failed().next().is_none()
    }

    /// Ids of the rules that were broken.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        let failed = |row: &&Row| matches!(row.state, State::Failed(_));
        self.rows.iter().filter(failed).map(|row| row.id.as_str())
    }

    /// The table, findings below it; with their messages if `transcript`.
    pub fn table(&self, transcript: bool) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let state = match &row.state {
                State::Ok => "ok".to_owned(),
                State::Failed(_) => "FAILED".to_owned(),
                State::NotTestable(reason) => format!("not testable: {reason}"),
                State::NotAboutServers => "not about servers".to_owned(),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:<5} {}  [{state}]", row.id, row.statement);
        }
        for row in &self.rows {
            if let State::Failed(findings) = &row.state {
                for finding in findings {
                    finding.show(&row.id, transcript, &mut text);
                }
            }
        }
        let _ = writeln!(text, "\n{}", self.summary());
        text
    }

    fn summary(&self) -> String {
        let count =
            |wanted: fn(&State) -> bool| self.rows.iter().filter(|row| wanted(&row.state)).count();
        let product = if self.product.is_empty() {
            "the server"
        } else {
            &self.product
        };
        format!(
            "{product}: {} ok, {} failed, {} not testable, {} not about servers",
            count(|state| matches!(state, State::Ok)),
            count(|state| matches!(state, State::Failed(_))),
            count(|state| matches!(state, State::NotTestable(_))),
            count(|state| matches!(state, State::NotAboutServers)),
        )
    }
}

impl Finding {
    fn show(&self, id: &str, transcript: bool, into: &mut String) {
        let _ = writeln!(
            into,
            "\n{id} FAILED: {}\n      {}",
            self.scenario, self.what
        );
        if transcript {
            for line in &self.transcript {
                let _ = writeln!(into, "      {line}");
            }
        }
    }
}
