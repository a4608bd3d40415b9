//! Macros: what an MTA knows beyond the commands, sent before them (SMFIC_MACRO).

use bytes::{BufMut as _, BytesMut};

use crate::command::{SMFIC_MACRO, text};
use crate::frame::encode;

/// Before which commands macros are sent, and lists of them can be asked for. The numbers are SMFIM_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// SMFIC_CONNECT.
    Connect = 0,
    /// SMFIC_HELO.
    Helo = 1,
    /// SMFIC_MAIL.
    Mail = 2,
    /// SMFIC_RCPT.
    Rcpt = 3,
    /// SMFIC_DATA.
    Data = 4,
    /// SMFIC_BODYEOB.
    EndOfMessage = 5,
    /// SMFIC_EOH.
    EndOfHeader = 6,
}

/// Names and values. A later value of a name counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Macros(Vec<(String, String)>);

// === impl Stage ===

impl Stage {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Connect,
            1 => Self::Helo,
            2 => Self::Mail,
            3 => Self::Rcpt,
            4 => Self::Data,
            5 => Self::EndOfMessage,
            6 => Self::EndOfHeader,
            _ => return None,
        })
    }

    /// What is sent if the milter does not say: what Sendmail and Postfix send at this stage, as far as it is known.
    pub(crate) fn default_names(self) -> &'static [&'static str] {
        match self {
            Self::Connect => &[
                "j",
                "_",
                "v",
                "daemon_name",
                "daemon_addr",
                "client_addr",
                "client_name",
                "client_port",
                "client_ptr",
            ],
            Self::Helo => &[
                "tls_version",
                "cipher",
                "cipher_bits",
                "cert_subject",
                "cert_issuer",
            ],
            Self::Mail => &[
                "i",
                "auth_type",
                "auth_authen",
                "auth_author",
                "mail_addr",
                "mail_host",
                "mail_mailer",
            ],
            Self::Rcpt => &["i", "rcpt_addr", "rcpt_host", "rcpt_mailer"],
            Self::Data | Self::EndOfHeader | Self::EndOfMessage => &["i"],
        }
    }
}

// === impl Macros ===

impl Macros {
    /// Sets `name` (without braces); an empty value is none.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        self.0.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.0.push((name.to_owned(), value));
        }
    }

    /// As [`Self::set`], for a chain.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// Value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Appends a frame with those of `names` that have a value, for command `code`; nothing if none has.
    pub(crate) fn encode<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
        code: u8,
        out: &mut BytesMut,
    ) {
        let known = |name: &'n str| self.get(name).map(|value| (name, value));
        let mut known = names.into_iter().filter_map(known).peekable();
        if known.peek().is_none() {
            return;
        }
        encode(SMFIC_MACRO, out, |out| {
            out.put_u8(code);
            for (name, value) in known {
                if name.chars().nth(1).is_some() {
                    text(format!("{{{name}}}").as_bytes(), out);
                } else {
                    text(name.as_bytes(), out);
                }
                text(value.as_bytes(), out);
            }
        });
    }
}
