//! [`check`]: connects, runs every scenario, makes the report.

use std::time::Duration;

use crate::checklist::{self, About};
use crate::connect;
use crate::fault::Fault;
use crate::peer::{Peer, Setting, offer};
use crate::report::{Finding, Report, Row, State};
use crate::scenarios::{self, Scenario};

/// How long one scenario may take, in patiences: more than any has waits.
const SCENARIO_PATIENCES: u32 = 12;

/// How the server is asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long an answer may take.
    pub patience: Duration,
    /// `parameters` of the rule: a JSON object as text; empty = none.
    pub parameters: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(5),
            parameters: String::new(),
        }
    }
}

/// There is no server to judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConformError {
    /// No transport.
    #[error("nothing to check at {target}: {reason}; is it running and listening there?")]
    Unreachable {
        /// Where it was looked for.
        target: String,
        /// What the network said.
        reason: String,
    },
}

/// Checks the server at `target`: `HOST:PORT` or `unix:PATH`. Ends in bounded time, whatever the server does.
pub async fn check(target: &str, options: &Options) -> Result<Report, ConformError> {
    let channel = connect::channel(target, options.patience)
        .await
        .map_err(|reason| ConformError::Unreachable {
            target: target.to_owned(),
            reason,
        })?;
    let setting = Setting {
        channel,
        patience: options.patience,
        quiet: options.patience / 10,
        parameters: options.parameters.clone(),
    };
    let mut verdicts = Verdicts::default();
    let mut peer = Peer::connect(&setting);
    // Whatever is wrong with it is found again by the first scenario.
    let _known = peer.negotiate(&offer()).await;
    let product = peer.terms.product.clone();
    drop(peer);
    for scenario in scenarios::ALL {
        verdicts.add(scenario, &setting).await;
    }
    Ok(verdicts.report(product))
}

#[derive(Default)]
struct Verdicts {
    passed: Vec<&'static str>,
    skipped: Vec<(&'static str, &'static str)>,
    findings: Vec<(&'static str, Finding)>,
}

impl Verdicts {
    async fn add(&mut self, scenario: &'static Scenario, setting: &Setting) {
        let limit = setting.patience * SCENARIO_PATIENCES;
        let run = tokio::time::timeout(limit, scenarios::run(scenario, setting)).await;
        let (result, transcript) = run.unwrap_or_else(|_| {
            let what = format!("no end after {} s", limit.as_secs());
            (Err(Fault::broken("C-52", what)), Vec::new())
        });
        match result {
            Ok(()) => self.passed.extend(scenario.ids),
            Err(Fault::NotTestable(reason)) => {
                self.skipped
                    .extend(scenario.ids.iter().map(|id| (*id, reason)));
            }
            Err(Fault::Broken { id, what }) => {
                let finding = Finding {
                    scenario: scenario.name.to_owned(),
                    what,
                    transcript,
                };
                self.findings.push((id, finding));
            }
        }
    }

    fn report(self, product: String) -> Report {
        let rows = checklist::rules().into_iter().map(|rule| {
            let findings: Vec<_> = self
                .findings
                .iter()
                .filter(|(id, _)| *id == rule.id)
                .collect();
            let state = match rule.about {
                _ if !findings.is_empty() => State::Failed(
                    findings
                        .into_iter()
                        .map(|(_, finding)| finding.clone())
                        .collect(),
                ),
                About::ProcessorsOnly => State::NotAboutServers,
                About::NotTestable(reason) => State::NotTestable(reason.to_owned()),
                About::Servers => self.state(rule.id),
            };
            Row {
                id: rule.id.to_owned(),
                statement: rule.statement.to_owned(),
                state,
            }
        });
        Report {
            product,
            rows: rows.collect(),
        }
    }

    fn state(&self, id: &str) -> State {
        if self.passed.contains(&id) {
            return State::Ok;
        }
        let skipped = self.skipped.iter().find(|(other, _)| *other == id);
        let reason = skipped.map_or("another finding came first", |(_, reason)| reason);
        State::NotTestable(reason.to_owned())
    }
}
