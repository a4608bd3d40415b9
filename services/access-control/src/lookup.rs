//! Conditions that a directory answers, as values: which question a rule asks, when it can be asked, what the answer means.
//!
//! Nothing here connects to anything: the policy says what it wants to know ([`Question`]), the service asks, and the policy is
//! evaluated again with the answers. A question is asked no sooner than all of it is known, and only if the rule's other
//! conditions hold.

mod word;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use opes_directory::{Answer, Inputs};
use serde::Deserialize;

use crate::address::Address;
use crate::policy::{Auth, Facts};
use crate::verdict::Cause;

pub use word::{Word, WordError};

/// Names that filters and queries may use. `s`, `u`, `d` are what the rule's `key` says.
pub const INPUTS: &[&str] = &[
    "s",
    "u",
    "d",
    "sender",
    "sender_local",
    "sender_domain",
    "recipient",
    "recipient_local",
    "recipient_domain",
    "client",
    "helo",
    "tls",
    "auth",
];

/// What a rule asks a directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lookup {
    /// One of the configuration's `lookups`.
    #[serde(rename = "in")]
    pub directory: String,
    /// What `s`, `u` and `d` of its filter or query are.
    #[serde(default)]
    pub key: Option<Key>,
    /// Does the rule match what the directory knows, or what it does not know? Absent: what it knows.
    #[serde(default)]
    pub found: Option<bool>,
    /// Attribute or column with the word that decides, for `action: lookup`.
    #[serde(default)]
    pub verdict: Option<String>,
    /// What its filter or query uses; known when the policy is bound to the directories.
    #[serde(skip)]
    uses: Vec<(&'static str, Field)>,
}

/// What a directory is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Key {
    /// Reverse-path; `<>` if it is empty.
    Sender,
    /// Forward-path.
    Recipient,
    /// Address of the client.
    Client,
    /// Argument of HELO.
    Helo,
    /// Identity.
    Auth,
}

/// A question to a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// Its name.
    pub directory: String,
    /// Values for its filter or query.
    pub inputs: Inputs,
}

/// What directories have said so far.
pub type Answers = HashMap<Question, Arc<Answer>>;

/// What is known of the directories when a policy is read.
#[derive(Debug, Clone, Default)]
pub struct Directories(pub BTreeMap<String, Uses>);

/// What filter or query of one directory use and bring.
#[derive(Debug, Clone, Default)]
pub struct Uses {
    /// Names of inputs.
    pub inputs: Vec<String>,
    /// Attributes; `None`: whatever columns the query has.
    pub attributes: Option<Vec<String>>,
}

/// Part of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Sender,
    SenderLocal,
    SenderDomain,
    Recipient,
    RecipientLocal,
    RecipientDomain,
    Client,
    Helo,
    Tls,
    Auth,
}

/// How a part of a question stands.
enum Known<'a> {
    NotYet,
    /// It is known that there is none.
    Nothing,
    Value(Cow<'a, str>),
}

/// How a look-up stands.
pub(crate) enum State {
    Pending,
    Ask(Question),
    Answered(Arc<Answer>),
}

// === impl Lookup ===

impl Lookup {
    /// Finds its directory. The error names what is wrong.
    pub(crate) fn bind(&mut self, directories: &Directories) -> Result<(), String> {
        let name = &self.directory;
        let Some(uses) = directories.0.get(name) else {
            let known: Vec<_> = directories.0.keys().map(String::as_str).collect();
            return Err(format!(
                "there is no look-up `{name}` in the configuration's `lookups`; there are: {}",
                known.join(", ")
            ));
        };
        if let (Some(verdict), Some(attributes)) = (&self.verdict, &uses.attributes)
            && !attributes
                .iter()
                .any(|known| known.eq_ignore_ascii_case(verdict))
        {
            return Err(format!(
                "look-up `{name}` does not ask for the attribute `{verdict}`; add it to its `attributes`"
            ));
        }
        let field = |input: &String| {
            Field::of(input, self.key).ok_or_else(|| {
                format!("look-up `{name}` uses `{input}`, which needs a fitting `key`, such as `key: recipient`")
            })
        };
        self.uses = uses.inputs.iter().map(field).collect::<Result<_, _>>()?;
        let key_is_used = self
            .uses
            .iter()
            .any(|(input, _)| ["s", "u", "d"].contains(input));
        if self.key.is_some() && !key_is_used {
            return Err(format!(
                "look-up `{name}` uses no %s, %u or %d, so `key` says nothing; remove it"
            ));
        }
        Ok(())
    }

    pub(crate) fn uses_client(&self) -> bool {
        self.uses.iter().any(|(_, field)| *field == Field::Client)
    }

    /// What a client hears of, if the other conditions say nothing better.
    pub(crate) fn cause(&self) -> Cause {
        match self.key {
            Some(Key::Sender) => Cause::Sender,
            Some(Key::Recipient) => Cause::Recipient,
            Some(Key::Client) => Cause::Client,
            Some(Key::Helo) => Cause::Helo,
            Some(Key::Auth) => Cause::Identity,
            None => Cause::Policy,
        }
    }

    pub(crate) fn state(&self, facts: &Facts<'_>, answers: &Answers) -> State {
        let mut inputs = Inputs::default();
        let mut nothing = false;
        for (input, field) in &self.uses {
            match field.value(facts) {
                Known::NotYet => return State::Pending,
                Known::Nothing => nothing = true,
                Known::Value(value) => inputs = inputs.with(input, value),
            }
        }
        if nothing {
            // No directory knows a sender's domain that there is not.
            return State::Answered(Arc::default());
        }
        let question = Question {
            directory: self.directory.clone(),
            inputs,
        };
        match answers.get(&question) {
            Some(answer) => State::Answered(Arc::clone(answer)),
            None => State::Ask(question),
        }
    }
}

// === impl Field ===

impl Field {
    fn of(input: &str, key: Option<Key>) -> Option<(&'static str, Self)> {
        let name = INPUTS.iter().find(|name| **name == input)?;
        let field = match (*name, key) {
            ("sender", _) | ("s", Some(Key::Sender)) => Self::Sender,
            ("sender_local", _) | ("u", Some(Key::Sender)) => Self::SenderLocal,
            ("sender_domain", _) | ("d", Some(Key::Sender)) => Self::SenderDomain,
            ("recipient", _) | ("s", Some(Key::Recipient)) => Self::Recipient,
            ("recipient_local", _) | ("u", Some(Key::Recipient)) => Self::RecipientLocal,
            ("recipient_domain", _) | ("d", Some(Key::Recipient)) => Self::RecipientDomain,
            ("client", _) | ("s", Some(Key::Client)) => Self::Client,
            ("helo", _) | ("s", Some(Key::Helo)) => Self::Helo,
            ("auth", _) | ("s", Some(Key::Auth)) => Self::Auth,
            ("tls", _) => Self::Tls,
            _ => return None,
        };
        Some((name, field))
    }

    fn value<'a>(self, facts: &'a Facts<'_>) -> Known<'a> {
        let address = |address: &'a Option<Address>, part: fn(&Address) -> &str| match address {
            None => Known::NotYet,
            Some(address) => text(part(address)),
        };
        match self {
            Self::Sender => address(&facts.sender, |sender| {
                if sender.is_null() {
                    "<>"
                } else {
                    sender.as_str()
                }
            }),
            Self::SenderLocal => address(&facts.sender, Address::local_part),
            Self::SenderDomain => address(&facts.sender, Address::domain),
            Self::Recipient => address(&facts.recipient, Address::as_str),
            Self::RecipientLocal => address(&facts.recipient, Address::local_part),
            Self::RecipientDomain => address(&facts.recipient, Address::domain),
            Self::Client => facts.client.map_or(Known::NotYet, |client| {
                Known::Value(client.to_canonical().to_string().into())
            }),
            Self::Helo => facts.helo.map_or(Known::NotYet, |helo| {
                let helo = helo.strip_suffix('.').unwrap_or(helo);
                owned(helo.to_lowercase())
            }),
            Self::Tls => facts
                .tls
                .map_or(Known::NotYet, |tls| Known::Value(tls.to_string().into())),
            Self::Auth => match facts.auth {
                Auth::NotYet => Known::NotYet,
                Auth::Anonymous => Known::Nothing,
                Auth::Identity(identity) => owned(identity.to_lowercase()),
            },
        }
    }
}

fn text(text: &str) -> Known<'_> {
    if text.is_empty() {
        Known::Nothing
    } else {
        Known::Value(text.into())
    }
}

fn owned<'a>(text: String) -> Known<'a> {
    if text.is_empty() {
        Known::Nothing
    } else {
        Known::Value(text.into())
    }
}
