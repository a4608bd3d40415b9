//! What a listener offers and how much it takes.

use std::net::SocketAddr;

use crate::limits::{
    ERRORS_MAX_DEFAULT, IDLE_COMMANDS_MAX_DEFAULT, MESSAGE_OCTETS_MAX_DEFAULT,
    RECIPIENTS_MAX_DEFAULT,
};

/// Settings of one listener, shared by its sessions.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent offers, each on or off"
)]
pub struct Config {
    /// Our name in greetings.
    pub hostname: String,
    /// Which protocol is spoken.
    pub protocol: Protocol,
    /// Free text after the host name in the greeting.
    pub banner: String,
    /// Octets of one message, offered as SIZE (RFC 1870). `u64::MAX` = no limit.
    pub size_max: u64,
    /// Recipients of one transaction; the next gets 452.
    pub recipients_max: usize,
    /// Offer STARTTLS.
    pub tls_available: bool,
    /// No mail without TLS (RFC 3207 §4).
    pub tls_required: bool,
    /// Offer AUTH.
    pub auth: AuthMode,
    /// No mail without authentication (RFC 6409 §4.3).
    pub auth_required: bool,
    /// Offer SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// Offer CHUNKING (RFC 3030).
    pub chunking: bool,
    /// Offer DSN (RFC 3461); its parameters are kept for the next hop.
    pub dsn: bool,
    /// Offer PRDR after EHLO (draft-hall-prdr-00 §4.1): a reply for each recipient after the content. Without effect with LMTP.
    pub prdr: bool,
    /// Offer OPESBYPASS (R4902-23); whether a request counts is the shell's decision.
    pub opes_bypass: bool,
    /// Protocol errors of one session before 421.
    pub errors_max: u32,
    /// Commands without mail between two messages before 421.
    pub idle_commands_max: u32,
}

/// What the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 6409.
    Submission,
    /// RFC 2033: LHLO, and a reply for each recipient after the data.
    Lmtp,
}

/// When AUTH is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthMode {
    /// Never.
    Off,
    /// Once TLS is active, since PLAIN and LOGIN show the password (RFC 4954 §4).
    TlsOnly,
}

/// What is known before the first octet.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The client, by PROXY protocol where the listener has it.
    pub client: SocketAddr,
    /// Implicit TLS (RFC 8314 §3).
    pub tls: Option<TlsInfo>,
}

/// What a handshake agreed on; texts for logs, trace fields and rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// Such as `TLSv1.3`.
    pub version: String,
    /// Name of the cipher suite.
    pub cipher: String,
    /// Server name that the client asked for.
    pub server_name: Option<String>,
}

impl Config {
    /// A listener with the defaults of [`crate::limits`]: no TLS, no AUTH, SMTPUTF8 and CHUNKING offered.
    pub fn new(hostname: impl Into<String>, protocol: Protocol) -> Self {
        Self {
            hostname: hostname.into(),
            protocol,
            banner: "OPES".to_owned(),
            size_max: MESSAGE_OCTETS_MAX_DEFAULT,
            recipients_max: RECIPIENTS_MAX_DEFAULT,
            tls_available: false,
            tls_required: false,
            auth: AuthMode::Off,
            auth_required: false,
            smtputf8: true,
            chunking: true,
            dsn: false,
            prdr: false,
            opes_bypass: false,
            errors_max: ERRORS_MAX_DEFAULT,
            idle_commands_max: IDLE_COMMANDS_MAX_DEFAULT,
        }
    }
}
