//! What a configuration that can be read must hold besides.

use std::path::Path;

use opes_trace::AgentUri;

use super::{Acceptance, ConfigError, EdgeConfig, ListenerConfig, default_system};

/// What is wrong: key, message, remedy.
pub(super) type Wrong<Key = &'static str, Message = &'static str> = (Key, Message, &'static str);

// === impl EdgeConfig ===

impl EdgeConfig {
    /// The first value that does not fit the others; `path` names the file in the error.
    pub(super) fn check(&self, path: &Path) -> Result<(), ConfigError> {
        self.check_values()
            .map_err(|(field, message, remedy)| ConfigError::Value {
                path: path.into(),
                field,
                message,
                remedy,
            })?;
        if let Some(routing) = &self.routing {
            routing.check(path, self)?;
        }
        if let Some(webhook) = &self.incidents.webhook {
            webhook.check(path)?;
        }
        self.quarantine.check(path)
    }

    fn check_values(&self) -> Result<(), Wrong<String, String>> {
        let wrong =
            |field: &str, message: &str, remedy| (field.to_owned(), message.to_owned(), remedy);
        self.check_system().map_err(|message| {
            wrong(
                "system",
                &message,
                "write an absolute URI that is this installation's alone, such as `https://mail.example.com/opes`",
            )
        })?;
        if self.listeners.is_empty() {
            return Err(wrong("listeners", "is empty", "name at least one listener"));
        }
        if self.delivery.maildir.is_some() == self.delivery.next_hop.is_some() {
            return Err(wrong(
                "delivery",
                "needs exactly one of `maildir` and `nextHop`",
                "write `delivery: { nextHop: \"HOST:PORT\" }` or `delivery: { maildir: DIR }`",
            ));
        }
        if let Some(field) = self.broken_address() {
            return Err(wrong(
                field,
                "is not an address",
                "write LOCAL-PART@DOMAIN, for example postmaster@example.com",
            ));
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            let at = |key: &str| format!("listeners[{index}].{key}");
            let earlier = self.listeners.iter().take(index);
            if earlier.into_iter().any(|other| other.name == listener.name) {
                return Err(wrong(
                    &at("name"),
                    &format!("`{}` is used twice", listener.name),
                    "rules match listeners by name: give each its own",
                ));
            }
            self.check_acceptance(listener)
                .and_then(|()| listener.check())
                .map_err(|(key, message, remedy)| wrong(&at(key), message, remedy))?;
        }
        Ok(())
    }

    /// Whether a listener can keep what its 250 promises.
    fn check_acceptance(&self, listener: &ListenerConfig) -> Result<(), Wrong> {
        match listener.delivery {
            Acceptance::CutThrough if self.delivery.maildir.is_some() => Err((
                "delivery",
                "cutThrough needs a next hop",
                "set `delivery.nextHop`, or leave this listener at `delivery: spool`",
            )),
            Acceptance::Spool if !self.spool_durable => Err((
                "delivery",
                "`spool` promises what a spool that is not durable cannot keep",
                "write `delivery: cutThrough`, or give the spool a volume that stays and leave `spoolDurable` out",
            )),
            Acceptance::CutThrough | Acceptance::Spool => Ok(()),
        }
    }

    /// The key of an address of people that is none.
    fn broken_address(&self) -> Option<&'static str> {
        let addresses = [
            ("bounces.postmaster", &self.bounces.postmaster),
            (
                "notifications.administrator",
                &self.notifications.administrator,
            ),
        ];
        let broken =
            |address: &Option<String>| address.as_deref().is_some_and(|text| !is_mailbox(text));
        addresses
            .into_iter()
            .find(|(_, address)| broken(address))
            .map(|(key, _)| key)
    }

    /// A name that others may have too is worse than none (R3897-7); without rules nothing is named.
    fn check_system(&self) -> Result<(), String> {
        let system = AgentUri::system(&self.system)
            .and_then(|system| system.child(&["processor", &self.hostname]));
        match system {
            Err(error) => Err(format!("`{}` {error}", self.system)),
            Ok(_) if self.is_system_ambiguous() => Err(format!(
                "is made from the hostname `{}`, which is not a full domain name",
                self.hostname
            )),
            Ok(_) => Ok(()),
        }
    }

    fn is_system_ambiguous(&self) -> bool {
        (self.rules.is_some() || self.routing.is_some())
            && !self.hostname.contains('.')
            && self.system == default_system(&self.hostname)
    }
}

fn is_mailbox(text: &str) -> bool {
    text.is_ascii() && opes_smtp::grammar::Mailbox::parse(text).is_some()
}
