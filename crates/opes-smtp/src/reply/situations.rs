//! The replies we make, named after their situation, with the section that asks for the code.
//!
//! Texts are for the person who reads the bounce or the log: what is wrong and, where there is one, the remedy.

use super::{Enhanced, Reply};

const fn reply(code: u16, (class, subject, detail): (u8, u16, u16), text: &'static str) -> Reply {
    Reply::new(code, Some(Enhanced(class, subject, detail)), text)
}

/// Commands.
impl Reply {
    /// RSET, NOOP and the like (RFC 5321 §4.1.1.5, §4.1.1.9).
    pub const OK: Self = reply(250, (2, 0, 0), "Ok");
    /// MAIL (RFC 5321 §4.1.1.2).
    pub const SENDER_OK: Self = reply(250, (2, 1, 0), "Sender ok");
    /// RCPT (RFC 5321 §4.1.1.3).
    pub const RECIPIENT_OK: Self = reply(250, (2, 1, 5), "Recipient ok");
    /// DATA (RFC 5321 §4.1.1.4); 3yz has no enhanced code (RFC 2034 §4).
    pub const START_MAIL_INPUT: Self =
        Self::new(354, None, "Start mail input; end with <CRLF>.<CRLF>");
    /// Replies for each recipient and one for all follow (draft-hall-prdr-00 §4.5).
    pub const RECIPIENT_REPLIES_FOLLOW: Self = Self::new(
        353,
        None,
        "One reply for each recipient follows, then one for all",
    );
    /// PRDR: the one for all, if each recipient's was positive.
    pub const ACCEPTED_FOR_ALL: Self = reply(250, (2, 6, 0), "Message accepted for all recipients");
    /// PRDR: the one for all, if some were.
    pub const ACCEPTED_FOR_SOME: Self =
        reply(250, (2, 6, 0), "Message accepted for some recipients");
    /// PRDR: the one for all, if none was and some may be later.
    pub const DEFERRED_FOR_SOME: Self = reply(
        451,
        (4, 3, 0),
        "Message accepted for no recipient; some may be tried again later",
    );
    /// PRDR: the one for all, if none was or will be.
    pub const REFUSED_FOR_ALL: Self = reply(550, (5, 7, 1), "Message refused for all recipients");
    /// A chunk that is not the last (RFC 3030 §2).
    pub const CHUNK_OK: Self = reply(250, (2, 0, 0), "Chunk received");
    /// VRFY (RFC 5321 §3.5.3): we neither confirm nor deny.
    pub const CANNOT_VERIFY: Self = reply(
        252,
        (2, 5, 0),
        "Cannot VRFY user, but will take mail and attempt delivery",
    );
    /// HELP (RFC 5321 §4.1.1.8).
    pub const HELP: Self = reply(
        214,
        (2, 0, 0),
        "HELO EHLO LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT STARTTLS AUTH\nSee RFC 5321, RFC 6409, RFC 2033",
    );
    /// QUIT (RFC 5321 §4.1.1.10).
    pub const CLOSING: Self = reply(221, (2, 0, 0), "Service closing transmission channel");
    /// Greeting (RFC 5321 §3.1); no enhanced code (RFC 2034 §4). The text is the host's.
    pub const GREETING: Self = Self::new(220, None, "ESMTP");
    /// HELO, EHLO and LHLO; no enhanced code (RFC 2034 §4). The text is the host's.
    pub const HELLO: Self = Self::new(250, None, "Hello");
    /// STARTTLS (RFC 3207 §4).
    pub const READY_FOR_TLS: Self = reply(220, (2, 0, 0), "Ready to start TLS");
}

/// Commands that cannot be taken.
impl Reply {
    /// RFC 5321 §4.2.4.
    pub const UNKNOWN_COMMAND: Self = reply(500, (5, 5, 1), "Command not recognized");
    /// RFC 5321 §4.2.4: known, not offered here.
    pub const NOT_IMPLEMENTED: Self = reply(502, (5, 5, 1), "Command not implemented");
    /// RFC 5321 §4.5.3.1.10.
    pub const LINE_TOO_LONG: Self = reply(500, (5, 5, 6), "Command line too long");
    /// RFC 5321 §2.3.8: a LF without CR, or a CR without LF.
    pub const BARE_LINE_END: Self = reply(
        500,
        (5, 5, 2),
        "Bare CR or LF received; lines end with CRLF, see RFC 5321 section 2.3.8",
    );
    /// Octets outside printable US-ASCII (RFC 5321 §4.1.2) or UTF-8 (RFC 6531 §3.3).
    pub const INVALID_CHARACTER: Self = reply(
        500,
        (5, 5, 2),
        "Command has a control character or is not UTF-8",
    );
    /// HELO or EHLO without a name (RFC 5321 §4.1.1.1).
    pub const HELO_SYNTAX: Self = Self::new(
        501,
        None,
        "Syntax: HELO, EHLO or LHLO followed by your host name",
    );
    /// RFC 5321 §4.1.1.2.
    pub const MAIL_SYNTAX: Self = reply(501, (5, 5, 2), "Syntax: MAIL FROM:<address>");
    /// RFC 5321 §4.1.1.3.
    pub const RCPT_SYNTAX: Self = reply(501, (5, 5, 2), "Syntax: RCPT TO:<address>");
    /// RFC 3030 §2.
    pub const BDAT_SYNTAX: Self = reply(501, (5, 5, 4), "Syntax: BDAT octets [LAST]");
    /// RFC 5321 §4.3.2: an argument where none belongs.
    pub const NO_ARGUMENT: Self = reply(501, (5, 5, 4), "This command takes no argument");
    /// VRFY or EXPN without one (RFC 5321 §4.1.1.6).
    pub const ARGUMENT_MISSING: Self = reply(501, (5, 5, 4), "This command needs an argument");
    /// The mailbox of MAIL (RFC 3463 §3.2).
    pub const SENDER_SYNTAX: Self = reply(501, (5, 1, 7), "Sender address is malformed");
    /// The mailbox of RCPT (RFC 3463 §3.2).
    pub const RECIPIENT_SYNTAX: Self = reply(501, (5, 1, 3), "Recipient address is malformed");
    /// RFC 5321 §4.5.3.1.10.
    pub const SENDER_TOO_LONG: Self = reply(501, (5, 1, 7), "Sender address too long");
    /// RFC 5321 §4.5.3.1.10.
    pub const RECIPIENT_TOO_LONG: Self = reply(501, (5, 1, 3), "Recipient address too long");
    /// RFC 6531 §3.5, RFC 3463 as extended by RFC 6531 §4.3.
    pub const NON_ASCII_ADDRESS: Self = reply(
        553,
        (5, 6, 7),
        "Address is not US-ASCII and MAIL did not say SMTPUTF8",
    );
    /// RFC 5321 §4.1.1.11: parameter not recognized or not offered.
    pub const UNKNOWN_PARAMETER: Self = reply(
        555,
        (5, 5, 4),
        "Parameter not recognized or not implemented",
    );
    /// A known parameter with a value that it cannot have, or twice (RFC 5321 §4.1.1.11).
    pub const PARAMETER_SYNTAX: Self = reply(501, (5, 5, 4), "Parameter is malformed or repeated");
    /// RFC 5321 §4.1.4.
    pub const BAD_SEQUENCE: Self = reply(503, (5, 5, 1), "Bad sequence of commands");
    /// RFC 5321 §4.1.4.
    pub const NEED_HELO: Self = reply(503, (5, 5, 1), "Send HELO, EHLO or LHLO first");
    /// RFC 5321 §3.3.
    pub const NEED_MAIL: Self = reply(503, (5, 5, 1), "Need MAIL before this command");
    /// RFC 5321 §3.3, RFC 2033 §4.2.
    pub const NEED_RCPT: Self = reply(503, (5, 5, 1), "Need RCPT before this command");
    /// RFC 5321 §3.3: all recipients were refused.
    pub const NO_VALID_RECIPIENTS: Self = reply(554, (5, 5, 1), "No valid recipients");
    /// RFC 5321 §4.1.4.
    pub const NESTED_MAIL: Self = reply(503, (5, 5, 1), "Nested MAIL; send RSET first");
    /// RFC 3030 §2.
    pub const DATA_AFTER_BDAT: Self = reply(
        503,
        (5, 5, 1),
        "DATA and BDAT cannot be used in one transaction",
    );
    /// The client spoke before the greeting (RFC 5321 §4.3.1).
    pub const EARLY_TALKER: Self = Self::new(
        554,
        None,
        "Synchronization error: client spoke before the greeting",
    );
    /// RFC 5321 §4.5.3.1.10.
    pub const TOO_MANY_RECIPIENTS: Self = reply(
        452,
        (4, 5, 3),
        "Too many recipients; send the rest in another transaction",
    );
    /// RFC 5321 §4.3.2 and §7.8.
    pub const TOO_MANY_ERRORS: Self = reply(421, (4, 7, 0), "Too many errors; closing connection");
    /// As [`Reply::TOO_MANY_ERRORS`], for commands that bring no mail forward.
    pub const TOO_MANY_IDLE_COMMANDS: Self = reply(
        421,
        (4, 7, 0),
        "Too many commands without mail; closing connection",
    );
}

/// Mail data.
impl Reply {
    /// Accepted (RFC 5321 §4.2.4).
    pub const QUEUED: Self = reply(250, (2, 6, 0), "Message queued for delivery");
    /// RFC 1870 §6.1 and §6.3.
    pub const MESSAGE_TOO_LARGE: Self = reply(552, (5, 3, 4), "Message size exceeds fixed maximum");
    /// RFC 5321 §2.3.8: never relayed, since it may be read as two messages further on.
    pub const BARE_LINE_END_IN_CONTENT: Self = reply(
        550,
        (5, 5, 2),
        "Message has bare CR or LF; lines end with CRLF, see RFC 5321 section 2.3.8",
    );
    /// RFC 5321 §4.2.4: storage is full.
    pub const INSUFFICIENT_STORAGE: Self = reply(452, (4, 3, 1), "Insufficient system storage");
    /// RFC 5321 §4.2.4.
    pub const LOCAL_ERROR: Self =
        reply(451, (4, 3, 0), "Local error in processing; try again later");
    /// Too many hops (RFC 5321 §6.3).
    pub const ROUTING_LOOP: Self = reply(554, (5, 4, 6), "Too many hops; routing loop");
}

/// Policy.
impl Reply {
    /// Refused for good (RFC 5321 §4.2.4).
    pub const REFUSED: Self = reply(550, (5, 7, 1), "Refused by policy");
    /// The message, refused for good after its data.
    pub const CONTENT_REFUSED: Self = reply(554, (5, 7, 1), "Message refused by policy");
    /// Refused for now.
    pub const TRY_LATER: Self = reply(451, (4, 7, 1), "Try again later");
    /// No mailbox of that name (RFC 3463 §3.2).
    pub const NO_SUCH_MAILBOX: Self = reply(550, (5, 1, 1), "No such mailbox here");
    /// Relaying refused.
    pub const RELAY_DENIED: Self = reply(550, (5, 7, 1), "Relaying denied");
    /// This recipient must be sent in a transaction of its own: 452 as for too many recipients, so that clients retry it.
    pub const SEPARATE_TRANSACTION: Self =
        reply(452, (4, 5, 3), "Send this recipient in another transaction");
    /// What the rules decided differs between recipients, and the client takes one reply for all.
    pub const SEPARATE_TRANSACTIONS: Self = reply(
        451,
        (4, 5, 3),
        "Recipients need transactions of their own; try again",
    );
    /// The message would have to be kept, and nothing here outlives this process (RFC 3463 §3.4).
    pub const NOTHING_IS_KEPT: Self = reply(
        451,
        (4, 3, 5),
        "This server cannot keep mail, and would have to keep this message; try again later",
    );
    /// The client may have given up waiting by now.
    pub const DECISION_TOO_LATE: Self = reply(451, (4, 3, 2), "Decision took too long; try again");
    /// A service that must decide is away (RFC 3463 §3.4).
    pub const SERVICE_UNAVAILABLE: Self = reply(
        451,
        (4, 3, 0),
        "A service needed for this message is unavailable; try again later",
    );
}

/// The connection.
impl Reply {
    /// RFC 5321 §3.8.
    pub const SHUTTING_DOWN: Self =
        reply(421, (4, 3, 2), "Service shutting down; closing connection");
    /// RFC 5321 §4.5.3.2.7.
    pub const TIMEOUT: Self = reply(421, (4, 4, 2), "Timeout; closing connection");
    /// RFC 5321 §4.3.2.
    pub const TOO_MANY_CONNECTIONS: Self =
        reply(421, (4, 7, 0), "Too many connections; try again later");
    /// RFC 5321 §3.1: no mail from this client, ever.
    pub const CLIENT_REFUSED: Self = reply(554, (5, 7, 1), "No mail accepted from your host");
}

/// STARTTLS and AUTH.
impl Reply {
    /// RFC 3207 §4: the server cannot at the moment.
    pub const TLS_UNAVAILABLE: Self =
        reply(454, (4, 7, 0), "TLS not available due to temporary reason");
    /// RFC 3207 §4.2: a second STARTTLS.
    pub const TLS_ACTIVE: Self = reply(503, (5, 5, 1), "TLS already active");
    /// Input behind STARTTLS would be taken for encrypted input (CVE-2011-0411).
    pub const TLS_PIPELINED: Self = reply(
        503,
        (5, 5, 1),
        "Input after STARTTLS before the handshake; closing connection",
    );
    /// RFC 3207 §4.
    pub const TLS_REQUIRED: Self = reply(530, (5, 7, 0), "Must issue a STARTTLS command first");
    /// RFC 4954 §6.
    pub const AUTHENTICATION_REQUIRED: Self = reply(530, (5, 7, 0), "Authentication required");
    /// RFC 4954 §4.
    pub const AUTHENTICATED: Self = reply(235, (2, 7, 0), "Authentication succeeded");
    /// RFC 4954 §6.
    pub const AUTHENTICATION_FAILED: Self =
        reply(535, (5, 7, 8), "Authentication credentials invalid");
    /// RFC 4954 §6.
    pub const AUTHENTICATION_UNAVAILABLE: Self = reply(
        454,
        (4, 7, 0),
        "Temporary authentication failure; try again later",
    );
    /// RFC 4954 §6.
    pub const ENCRYPTION_REQUIRED: Self = reply(
        538,
        (5, 7, 11),
        "Encryption required for requested authentication mechanism; use STARTTLS",
    );
    /// RFC 4954 §4.
    pub const UNKNOWN_MECHANISM: Self = reply(
        504,
        (5, 5, 4),
        "Authentication mechanism not supported; use PLAIN or LOGIN",
    );
    /// RFC 4954 §4: the client sent `*`.
    pub const AUTHENTICATION_CANCELLED: Self = reply(501, (5, 7, 0), "Authentication cancelled");
    /// RFC 4954 §4: no base64, or not what the mechanism expects.
    pub const AUTHENTICATION_SYNTAX: Self =
        reply(501, (5, 5, 2), "Authentication exchange is malformed");
    /// RFC 4954 §4: line of more than 12,288 octets.
    pub const AUTHENTICATION_LINE_TOO_LONG: Self =
        reply(500, (5, 5, 6), "Authentication exchange line is too long");
    /// RFC 4954 §4: a second AUTH.
    pub const ALREADY_AUTHENTICATED: Self = reply(503, (5, 5, 1), "Already authenticated");
    /// RFC 4954 §4: AUTH during a transaction.
    pub const AUTHENTICATION_IN_TRANSACTION: Self = reply(
        503,
        (5, 5, 1),
        "AUTH is not permitted during a mail transaction",
    );
    /// A challenge, base64 (RFC 4954 §4). The text is the mechanism's.
    pub const CHALLENGE: Self = Self::new(334, None, "");
}

/// What we say in the name of a next hop that did not answer.
impl Reply {
    /// RFC 3463 §3.5: no answer from host.
    pub const NEXT_HOP_UNREACHABLE: Self = reply(451, (4, 4, 1), "No answer from the next hop");
    /// RFC 3463 §3.5: bad connection.
    pub const NEXT_HOP_CONNECTION_LOST: Self =
        reply(451, (4, 4, 2), "Connection to the next hop lost");
    /// RFC 3463 §3.6: the next hop broke the protocol.
    pub const NEXT_HOP_PROTOCOL_ERROR: Self =
        reply(451, (4, 5, 0), "The next hop broke the protocol");
    /// RFC 6531 §3.6: the next hop lacks SMTPUTF8.
    pub const NEXT_HOP_WITHOUT_SMTPUTF8: Self = reply(
        550,
        (5, 6, 7),
        "The next hop does not offer SMTPUTF8, which this message needs",
    );
    /// RFC 6152 §3: the next hop lacks 8BITMIME.
    pub const NEXT_HOP_WITHOUT_8BITMIME: Self = reply(
        554,
        (5, 6, 3),
        "The next hop does not offer 8BITMIME, which this message needs",
    );
}
