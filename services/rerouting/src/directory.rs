//! Where recipients live according to a directory: which questions are asked, and what an entry means.
//!
//! Asked for in this order, first hit wins: the whole address, the address without its detail, the domain; as configured.
//! An entry with several values where one is meant is an error that names it: mail that may belong to somebody else must not go
//! wherever chance leads it.

use std::collections::HashSet;

use anyhow::{Context as _, bail, ensure};
use opes_directory::{Directory, DirectoryConfig, Entry, Inputs, Metrics};
use opes_smtp::grammar::ForwardPath;
use serde::Deserialize;

use crate::map::{NextHop, Origin, Route, Target, join, parts, plain, rewritten, split_detail};

/// Names that filter or query may use.
const INPUTS: &[&str] = &["s", "u", "d"];
/// Names of entries in an error.
const NAMES_MAX: usize = 3;

/// What there is to configure besides the directory itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DirectoryOptions {
    /// What an entry says.
    pub answer: AnswerConfig,
    /// Domains whose recipients are looked up; empty: all.
    pub domains: Vec<String>,
    /// What is asked for, in this order.
    pub ask_for: Questions,
    /// What becomes of a recipient that the directory does not know, at RCPT.
    pub on_unknown: OnUnknown,
}

/// Attributes, or columns, that are read.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AnswerConfig {
    /// The new address.
    pub address: String,
    /// The server to hand it to.
    pub next_hop: String,
    /// TCP port of that server, where its value names none.
    pub next_hop_port: u16,
}

/// Something to ask a directory for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// `joe+tag@example.org`
    Address,
    /// `joe@example.org`, if there is a detail.
    WithoutDetail,
    /// `@example.org`
    Domain,
}

/// At most one of each.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Vec<Question>")]
pub struct Questions(Vec<Question>);

/// What becomes of a recipient that the directory does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnUnknown {
    /// It goes on as it is.
    #[default]
    Accept,
    /// 550 5.1.1.
    Reject,
}

/// What the directory knows of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Located {
    /// It lives there.
    At(Route),
    /// It stays where it is.
    Here,
    /// Nobody knows it.
    Unknown,
}

/// A directory of recipients.
#[derive(Debug, Clone)]
pub(crate) struct Recipients {
    directory: Directory,
    options: DirectoryOptions,
    domains: HashSet<String>,
}

/// One way to ask for a recipient.
struct Asked<'a> {
    inputs: Inputs,
    /// What the question does not cover.
    detail: Option<&'a str>,
}

impl Default for AnswerConfig {
    /// Of the object class inetLocalMailRecipient (draft-lachman-laser-ldap-mail-routing).
    fn default() -> Self {
        Self {
            address: "mailRoutingAddress".to_owned(),
            next_hop: "mailHost".to_owned(),
            next_hop_port: 25,
        }
    }
}

impl Default for Questions {
    fn default() -> Self {
        Self(vec![Question::Address, Question::WithoutDetail])
    }
}

impl TryFrom<Vec<Question>> for Questions {
    type Error = &'static str;

    fn try_from(questions: Vec<Question>) -> Result<Self, Self::Error> {
        match &questions[..] {
            [] => Err("askFor: an empty list asks for nothing; leave it out"),
            [one, .., last] if one == last => Err("askFor: one question stands twice"),
            [_, _, _, _, ..] => Err("askFor: one question stands twice"),
            _ => Ok(Self(questions)),
        }
    }
}

// === impl Recipients ===

impl Recipients {
    pub(crate) fn new(
        config: &DirectoryConfig,
        options: DirectoryOptions,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        ensure!(
            options.answer.next_hop_port != 0,
            "answer.nextHopPort: 0 is no port"
        );
        let attributes = [
            options.answer.address.clone(),
            options.answer.next_hop.clone(),
        ];
        let directory = Directory::new("recipients", config, INPUTS, &attributes, metrics);
        Ok(Self {
            directory: directory.context("directory")?,
            domains: options
                .domains
                .iter()
                .map(|domain| domain.to_lowercase())
                .collect(),
            options,
        })
    }

    /// Where `recipient` lives.
    pub(crate) async fn locate(&self, recipient: &ForwardPath) -> anyhow::Result<Located> {
        let (local, domain) = parts(recipient);
        let domain = domain.to_lowercase();
        if !self.domains.is_empty() && !self.domains.contains(&domain) {
            return Ok(Located::Here);
        }
        for asked in self.questions(local, &domain) {
            let answer = self.directory.look_up(&asked.inputs).await?;
            match &answer.entries[..] {
                [] => {}
                [entry] => return self.located(recipient, entry, asked.detail),
                several => bail!(
                    "the directory has {} entries for one recipient ({}, …); one or none is meant",
                    several.len(),
                    several
                        .iter()
                        .take(NAMES_MAX)
                        .map(|entry| entry.name.as_str())
                        .collect::<Vec<_>>()
                        .join("; ")
                ),
            }
        }
        // RFC 5321 §4.5.1: whoever offers a domain has a postmaster.
        if plain(local) == "postmaster" {
            return Ok(Located::Here);
        }
        Ok(Located::Unknown)
    }

    pub(crate) fn on_unknown(&self) -> OnUnknown {
        self.options.on_unknown
    }

    fn questions<'a>(&self, local: &'a str, domain: &str) -> Vec<Asked<'a>> {
        let ask = |local: &str, detail| {
            let local = plain(local);
            let inputs = Inputs::default().address(&join(&local, domain), &local, domain);
            Asked { inputs, detail }
        };
        let question = |question: &Question| match question {
            Question::Address => Some(ask(local, None)),
            Question::WithoutDetail => {
                split_detail(local).map(|(user, detail)| ask(user, Some(detail)))
            }
            Question::Domain => (!domain.is_empty()).then(|| Asked {
                inputs: Inputs::default().address(&format!("@{domain}"), "", domain),
                detail: None,
            }),
        };
        self.options.ask_for.0.iter().filter_map(question).collect()
    }

    fn located(
        &self,
        recipient: &ForwardPath,
        entry: &Entry,
        detail: Option<&str>,
    ) -> anyhow::Result<Located> {
        let AnswerConfig {
            address,
            next_hop,
            next_hop_port,
        } = &self.options.answer;
        let target =
            Target::from_values(one(entry, address)?, one(entry, next_hop)?, *next_hop_port);
        let target = target
            .map_err(|reason| anyhow::anyhow!("directory entry `{}`: {reason}", entry.name))?;
        let new = match &target.address {
            None => None,
            Some(new) => Some(rewritten(recipient, new, detail).with_context(|| {
                format!(
                    "directory entry `{}` turns a recipient into an address that is malformed or too long",
                    entry.name
                )
            })?),
        };
        let address = new.filter(|address| address != recipient);
        let next_hop: Option<NextHop> = target.next_hop;
        if address.is_none() && next_hop.is_none() {
            return Ok(Located::Here);
        }
        Ok(Located::At(Route {
            address,
            next_hop,
            origin: Origin::Directory,
            key: entry.name.clone(),
        }))
    }
}

fn one<'a>(entry: &'a Entry, attribute: &str) -> anyhow::Result<Option<&'a str>> {
    match entry.values(attribute) {
        [] => Ok(None),
        [value] => Ok(Some(value.trim()).filter(|value| !value.is_empty())),
        several => bail!(
            "directory entry `{}` has {} values of {attribute}; one or none is meant",
            entry.name,
            several.len()
        ),
    }
}

#[cfg(test)]
mod tests;
