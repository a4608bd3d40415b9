//! Listeners: where clients come in, and how they are spoken with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use opes_smtp::limits::{ERRORS_MAX_DEFAULT, IDLE_COMMANDS_MAX_DEFAULT};
use serde::Deserialize;

use super::check::Wrong;
use super::units::{duration, octets};
use super::yes;

/// One listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent keys, each on or off"
)]
pub struct ListenerConfig {
    /// Name that rules match on.
    pub name: String,
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Dialect.
    #[serde(default)]
    pub protocol: ListenerProtocol,
    /// What happens where some recipients are to get a message and others not, and one reply is owed for all.
    #[serde(default)]
    pub mixed_verdicts: MixedVerdicts,
    /// What 250 after the end of data stands for.
    #[serde(default)]
    pub delivery: Acceptance,
    /// Certificate for STARTTLS or implicit TLS. None: no TLS.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// File of `name:argon2-hash` lines for AUTH. None: AUTH is not offered.
    #[serde(default)]
    pub users: Option<PathBuf>,
    /// Peers that speak the PROXY protocol on this listener. Empty: the protocol is off. Not empty: others are refused.
    #[serde(default)]
    pub proxy_from: Vec<IpNet>,
    /// Largest message in octets (RFC 1870).
    #[serde(default = "default_size_max", deserialize_with = "octets")]
    pub size_max: u64,
    /// Most recipients of a transaction (RFC 5321 §4.5.3.1.8 asks for 100 at least).
    #[serde(default = "default_recipients_max")]
    pub recipients_max: usize,
    /// No mail without TLS (RFC 3207 §4); needs `tls`.
    #[serde(default)]
    pub require_tls: bool,
    /// Offer PRDR (draft-hall-prdr-00). Without effect with `lmtp`.
    #[serde(default = "yes")]
    pub prdr: bool,
    /// Offer SMTPUTF8 (RFC 6531).
    #[serde(default = "yes")]
    pub smtputf8: bool,
    /// Offer CHUNKING (RFC 3030).
    #[serde(default = "yes")]
    pub chunking: bool,
    /// Offer DSN (RFC 3461).
    #[serde(default)]
    pub dsn: bool,
    /// Protocol errors of one session before 421 (RFC 5321 §4.3.2).
    #[serde(default = "default_errors_max")]
    pub errors_max: u32,
    /// Commands between two messages that bring no mail forward, before 421.
    #[serde(default = "default_idle_commands_max")]
    pub idle_commands_max: u32,
    /// How long a client may be silent (RFC 5321 §4.5.3.2.7: at least 5 minutes).
    #[serde(default = "default_client_timeout", deserialize_with = "duration")]
    pub client_timeout: Duration,
}

/// Dialect of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ListenerProtocol {
    /// RFC 5321.
    #[default]
    Smtp,
    /// RFC 6409: AUTH is required, any recipient is accepted afterwards.
    Submission,
    /// RFC 2033.
    Lmtp,
}

/// Some recipients are to get a message, others not, and the client takes one reply for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MixedVerdicts {
    /// Ask the client for transactions of their own: 452 at RCPT where the rules tell them apart before the data, else 451 after it and
    /// 452 when it comes again.
    #[default]
    Split,
    /// Nobody gets it; the refusal is the reply.
    RejectAll,
    /// Everybody is answered 250, and those who were refused are held in the quarantine.
    QuarantineRejected,
}

/// What 250 after the end of data stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Acceptance {
    /// The message is durable in the spool.
    #[default]
    Spool,
    /// The next hop has said 250; nothing is spooled.
    CutThrough,
}

/// PEM files, read again when they change.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// TLS from the first octet on (RFC 8314 §3), in place of STARTTLS.
    #[serde(default)]
    pub implicit: bool,
}

// === impl ListenerConfig ===

impl ListenerConfig {
    /// A listener with every default.
    pub fn new(name: &str, address: SocketAddr, protocol: ListenerProtocol) -> Self {
        Self {
            name: name.into(),
            address,
            protocol,
            mixed_verdicts: MixedVerdicts::Split,
            delivery: Acceptance::Spool,
            tls: None,
            users: None,
            proxy_from: Vec::new(),
            size_max: default_size_max(),
            recipients_max: default_recipients_max(),
            require_tls: false,
            prdr: yes(),
            smtputf8: yes(),
            chunking: yes(),
            dsn: false,
            errors_max: default_errors_max(),
            idle_commands_max: default_idle_commands_max(),
            client_timeout: default_client_timeout(),
        }
    }

    /// What does not fit its other keys.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        if self.require_tls && self.tls.is_none() {
            return Err((
                "requireTls",
                "nobody could ever send mail: the listener has no certificate",
                "set `tls: { certificate: FILE, key: FILE }`, or leave `requireTls` out",
            ));
        }
        for (key, limit) in [
            ("errorsMax", self.errors_max),
            ("idleCommandsMax", self.idle_commands_max),
        ] {
            if limit == 0 {
                let remedy = "leave it out for the default, or write a number from 1 on";
                return Err((key, "every session would end at once", remedy));
            }
        }
        if self.protocol == ListenerProtocol::Submission && self.users.is_none() {
            return Err((
                "users",
                "a submission listener needs a user file",
                "set `users: FILE` with lines `name:argon2-hash` (`opes user hash` makes one)",
            ));
        }
        Ok(())
    }
}

fn default_size_max() -> u64 {
    35 << 20
}

fn default_recipients_max() -> usize {
    1000
}

fn default_client_timeout() -> Duration {
    Duration::from_mins(5)
}

fn default_errors_max() -> u32 {
    ERRORS_MAX_DEFAULT
}

fn default_idle_commands_max() -> u32 {
    IDLE_COMMANDS_MAX_DEFAULT
}
