//! Every number of the protocol, with its source. Units come last in the names.
//!
//! RFC 5321 §4.5.3.1 states what a receiver must take *at least*; where we take more, the line says why.

/// Longest command line that is parsed, with CRLF. RFC 5321 §4.5.3.1.4 says 512 and lets extensions add to it (SIZE,
/// 8BITMIME, SMTPUTF8 and DSN together ask for less than 1,500 more; RFC 6531 §3.4, RFC 3461 §4), so one limit fits all.
pub const COMMAND_LINE_OCTETS_MAX: usize = 2048;

/// Longest line of an AUTH exchange, with CRLF (RFC 4954 §4).
pub const AUTH_LINE_OCTETS_MAX: usize = 12_288;

/// Longest reply line, with code and CRLF (RFC 5321 §4.5.3.1.5).
pub const REPLY_LINE_OCTETS_MAX: usize = 512;

/// Longest reply line that is taken from a server; beyond 512 for the servers that paste URLs into their refusals.
pub const RECEIVED_REPLY_LINE_OCTETS_MAX: usize = 4096;

/// Most lines of one reply, made by a service or received. RFC 5321 §4.2.1 names no number.
pub const REPLY_LINES_MAX: usize = 128;

/// Longest mailbox in a path: RFC 5321 §4.5.3.1.3 has 256 for the path with its angle brackets. The 64 octets of
/// §4.5.3.1.1 for the local part are deliberately not enforced: VERP and SRS addresses of good senders exceed them.
pub const PATH_OCTETS_MAX: usize = 256;

/// Longest domain (RFC 5321 §4.5.3.1.2, RFC 1035 §2.3.4), and longest argument of HELO.
pub const DOMAIN_OCTETS_MAX: usize = 255;

/// EHLO keyword and MAIL parameter of a request not to be handled by OPES services (R4902-23; docs/ocp-smtp.md).
pub const BYPASS_KEYWORD: &str = "OPESBYPASS";

/// Most parameters of one MAIL or RCPT command; the registry knows fewer than this.
pub const PARAMETERS_MAX: usize = 16;

/// Digits of a SIZE value (RFC 1870 §3) and of a BDAT chunk size.
pub const SIZE_DIGITS_MAX: usize = 20;

/// Recipients of one transaction unless configured; RFC 5321 §4.5.3.1.8 demands 100.
pub const RECIPIENTS_MAX_DEFAULT: usize = 1000;

/// Protocol errors of one session before 421 (RFC 5321 §4.3.2, RFC 4954 §6 for authentication).
pub const ERRORS_MAX_DEFAULT: u32 = 20;

/// Commands that bring no mail forward (NOOP, RSET, VRFY, HELP, EHLO …) between two transactions before 421.
pub const IDLE_COMMANDS_MAX_DEFAULT: u32 = 100;

/// Size of a message unless configured: 50 MiB.
pub const MESSAGE_OCTETS_MAX_DEFAULT: u64 = 50 * 1024 * 1024;
