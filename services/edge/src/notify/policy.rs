//! Who may be notified. One function of values; everything that could make a loop, or mail to strangers, is decided here.

use opes_proto::smtp::notification::To;

use super::facts::MessageFacts;

/// Addresses that a notification goes to at most; more recipients of one message are not told.
const ADDRESSEES_MAX: usize = 100;

/// Local parts that programs read or nobody does (RFC 3834 §2, RFC 2142).
const DAEMONS: [&str; 11] = [
    "mailer-daemon",
    "daemon",
    "nobody",
    "noreply",
    "no-reply",
    "donotreply",
    "do-not-reply",
    "bounce",
    "bounces",
    "listserv",
    "majordomo",
];

/// What is known of the message, its client and this edge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    /// Reverse-path; empty is the null reverse-path, none is before MAIL.
    pub(crate) sender: Option<&'a str>,
    pub(crate) authenticated: bool,
    /// The client is in `relayNetworks`.
    pub(crate) relayed: bool,
    /// The client was answered 4xx or 5xx.
    pub(crate) refused: bool,
    /// None before there is a message.
    pub(crate) facts: Option<&'a MessageFacts>,
    /// Ours.
    pub(crate) domains: &'a [String],
    pub(crate) administrator: Option<&'a str>,
}

/// Why somebody is not notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The message must not be answered (RFC 3834 §2).
    Automatic,
    /// A program reads this address.
    Daemon,
    /// Not one of ours, and nobody we know asked for it.
    Outsider,
    /// The message was refused, so its client knows, and its recipients never get it.
    Refused,
    /// There is nobody of that kind.
    NoAddress,
    /// The address has had its share.
    RecipientLimit,
    /// The rule has had its share.
    RuleLimit,
}

/// Each address that a notification to `to` may go to, or why not.
pub(crate) fn addressees(
    to: To,
    recipients: &[String],
    circumstances: &Circumstances<'_>,
) -> Vec<Result<String, Refusal>> {
    match to {
        To::Administrator => vec![circumstances.administrator()],
        To::Sender => vec![circumstances.sender()],
        To::Recipients if recipients.is_empty() => vec![Err(Refusal::NoAddress)],
        To::Recipients => {
            let mut seen: Vec<&str> = Vec::new();
            let mut each = Vec::new();
            for address in recipients.iter().take(ADDRESSEES_MAX) {
                if !seen.iter().any(|known| known.eq_ignore_ascii_case(address)) {
                    seen.push(address);
                    each.push(circumstances.recipient(address));
                }
            }
            each
        }
        // A newer service knows others.
        To::Unspecified => vec![Err(Refusal::NoAddress)],
    }
}

// === impl Circumstances ===

impl Circumstances<'_> {
    /// Told of everything that cannot be a notification, or the bounce of one, itself.
    fn administrator(&self) -> Result<String, Refusal> {
        if self.sender == Some("") || self.facts.is_some_and(|facts| facts.automatic) {
            return Err(Refusal::Automatic);
        }
        self.administrator
            .map(str::to_owned)
            .ok_or(Refusal::NoAddress)
    }

    /// Told if we know who it is: a sender's address is whatever the client says.
    fn sender(&self) -> Result<String, Refusal> {
        self.check_answerable()?;
        let sender = self.sender.ok_or(Refusal::NoAddress)?;
        let is_known = self.authenticated || (self.relayed && self.is_ours(sender));
        if !is_known {
            return Err(Refusal::Outsider);
        }
        if self.refused && !self.authenticated {
            return Err(Refusal::Refused);
        }
        check_person(sender)
    }

    fn recipient(&self, address: &str) -> Result<String, Refusal> {
        self.check_answerable()?;
        if self.refused {
            return Err(Refusal::Refused);
        }
        if !(self.is_ours(address) || self.authenticated || self.relayed) {
            return Err(Refusal::Outsider);
        }
        check_person(address)
    }

    /// Before its header section is there, nobody knows whether a message may be answered.
    fn check_answerable(&self) -> Result<(), Refusal> {
        match self.facts {
            Some(facts) if self.sender != Some("") && !facts.automatic && !facts.mass => Ok(()),
            Some(_) | None => Err(Refusal::Automatic),
        }
    }

    fn is_ours(&self, address: &str) -> bool {
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        self.domains
            .iter()
            .any(|ours| ours.eq_ignore_ascii_case(domain))
    }
}

fn check_person(address: &str) -> Result<String, Refusal> {
    let local = address.rsplit_once('@').map_or(address, |(local, _)| local);
    let local = local.to_ascii_lowercase();
    let is_daemon = DAEMONS.contains(&local.as_str())
        || local.starts_with("owner-")
        || ["-request", "-bounces", "-owner"]
            .iter()
            .any(|end| local.ends_with(end));
    if is_daemon {
        return Err(Refusal::Daemon);
    }
    Ok(address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message from outside, accepted, for people in our domain.
    fn inbound<'a>(facts: &'a MessageFacts, domains: &'a [String]) -> Circumstances<'a> {
        Circumstances {
            sender: Some("steve@example.org"),
            authenticated: false,
            relayed: false,
            refused: false,
            facts: Some(facts),
            domains,
            administrator: Some("postmaster@example.com"),
        }
    }

    fn ours() -> Vec<String> {
        vec!["example.com".to_owned()]
    }

    fn one(to: To, circumstances: &Circumstances<'_>) -> Result<String, Refusal> {
        let recipients = ["paul@example.com".to_owned()];
        let mut all = addressees(to, &recipients, circumstances);
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn strangers_who_send_are_never_told() {
        let (facts, domains) = (MessageFacts::default(), ours());
        let inbound = inbound(&facts, &domains);
        assert_eq!(one(To::Sender, &inbound), Err(Refusal::Outsider));
        let forged = Circumstances {
            sender: Some("eve@example.com"),
            ..inbound
        };
        assert_eq!(one(To::Sender, &forged), Err(Refusal::Outsider));
        let network = Circumstances {
            relayed: true,
            ..forged
        };
        assert_eq!(one(To::Sender, &network), Ok("eve@example.com".into()));
        let foreign = Circumstances {
            relayed: true,
            ..inbound
        };
        assert_eq!(one(To::Sender, &foreign), Err(Refusal::Outsider));
        let user = Circumstances {
            authenticated: true,
            ..inbound
        };
        assert_eq!(one(To::Sender, &user), Ok("steve@example.org".into()));
    }

    #[test]
    fn recipients_are_told_if_they_are_ours_or_the_client_is() {
        let (facts, domains) = (MessageFacts::default(), ours());
        let inbound = inbound(&facts, &domains);
        let recipients: Vec<String> = ["paul@EXAMPLE.com", "Paul@example.com", "x@example.net"]
            .map(str::to_owned)
            .to_vec();
        let all = addressees(To::Recipients, &recipients, &inbound);
        assert_eq!(all, [Ok("paul@EXAMPLE.com".into()), Err(Refusal::Outsider)]);
        let user = Circumstances {
            authenticated: true,
            ..inbound
        };
        let all = addressees(To::Recipients, &recipients, &user);
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        assert_eq!(
            addressees(To::Recipients, &[], &user),
            [Err(Refusal::NoAddress)]
        );
        let many: Vec<String> = (0..1000).map(|n| format!("u{n}@example.com")).collect();
        assert_eq!(
            addressees(To::Recipients, &many, &user).len(),
            ADDRESSEES_MAX
        );
    }

    #[test]
    fn nothing_automatic_is_answered() {
        let domains = ours();
        let user = |sender, facts| Circumstances {
            sender: Some(sender),
            authenticated: true,
            ..inbound(facts, &domains)
        };
        let plain = MessageFacts::default();
        let automatic = MessageFacts {
            automatic: true,
            ..MessageFacts::default()
        };
        let mass = MessageFacts {
            mass: true,
            ..MessageFacts::default()
        };
        for (sender, facts, administrator) in [
            ("", &plain, false),
            ("steve@example.org", &automatic, false),
            ("steve@example.org", &mass, true),
        ] {
            let circumstances = user(sender, facts);
            for to in [To::Sender, To::Recipients] {
                assert_eq!(one(to, &circumstances), Err(Refusal::Automatic));
            }
            // A list cannot send our own notifications back, so the administrator hears of its viruses.
            assert_eq!(
                one(To::Administrator, &circumstances).is_ok(),
                administrator
            );
        }
    }

    #[test]
    fn before_there_is_a_message_only_the_administrator_is_told() {
        let (facts, domains) = (MessageFacts::default(), ours());
        let early = Circumstances {
            facts: None,
            sender: None,
            authenticated: true,
            ..inbound(&facts, &domains)
        };
        assert_eq!(one(To::Sender, &early), Err(Refusal::Automatic));
        assert_eq!(one(To::Recipients, &early), Err(Refusal::Automatic));
        assert!(one(To::Administrator, &early).is_ok());
    }

    #[test]
    fn of_refused_messages_only_administrator_and_authenticated_senders_hear() {
        let (facts, domains) = (MessageFacts::default(), ours());
        let refused = Circumstances {
            refused: true,
            relayed: true,
            sender: Some("ann@example.com"),
            ..inbound(&facts, &domains)
        };
        assert_eq!(one(To::Sender, &refused), Err(Refusal::Refused));
        assert_eq!(one(To::Recipients, &refused), Err(Refusal::Refused));
        assert!(one(To::Administrator, &refused).is_ok());
        let user = Circumstances {
            authenticated: true,
            ..refused
        };
        assert!(one(To::Sender, &user).is_ok());
        assert_eq!(one(To::Recipients, &user), Err(Refusal::Refused));
    }

    #[test]
    fn programs_are_not_written_to() {
        let (facts, domains) = (MessageFacts::default(), ours());
        for local in [
            "MAILER-DAEMON",
            "noreply",
            "owner-list",
            "list-request",
            "list-bounces",
        ] {
            let sender = format!("{local}@example.com");
            let user = Circumstances {
                authenticated: true,
                sender: Some(&sender),
                ..inbound(&facts, &domains)
            };
            assert_eq!(one(To::Sender, &user), Err(Refusal::Daemon), "{local}");
        }
        let nobody = Circumstances {
            administrator: None,
            ..inbound(&facts, &domains)
        };
        assert_eq!(one(To::Administrator, &nobody), Err(Refusal::NoAddress));
        assert_eq!(one(To::Unspecified, &nobody), Err(Refusal::NoAddress));
    }
}
