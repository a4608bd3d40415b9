//! Commands: what an MTA tells a milter.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut as _, BytesMut};

use crate::frame::encode;

/// Octets of body in one SMFIC_BODY (MILTER_CHUNK_SIZE).
pub const BODY_OCTETS_MAX: usize = 65_535;

pub(crate) const SMFIC_ABORT: u8 = b'A';
pub(crate) const SMFIC_BODY: u8 = b'B';
pub(crate) const SMFIC_CONNECT: u8 = b'C';
pub(crate) const SMFIC_MACRO: u8 = b'D';
pub(crate) const SMFIC_BODYEOB: u8 = b'E';
pub(crate) const SMFIC_HELO: u8 = b'H';
pub(crate) const SMFIC_HEADER: u8 = b'L';
pub(crate) const SMFIC_MAIL: u8 = b'M';
pub(crate) const SMFIC_EOH: u8 = b'N';
pub(crate) const SMFIC_OPTNEG: u8 = b'O';
pub(crate) const SMFIC_QUIT: u8 = b'Q';
pub(crate) const SMFIC_RCPT: u8 = b'R';
pub(crate) const SMFIC_DATA: u8 = b'T';

/// One command. A NUL ends a text on the wire, so one inside is sent as `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// A client has connected.
    Connect {
        /// Its verified name, or its address in brackets.
        name: &'a str,
        /// Where from.
        address: ClientAddress,
    },
    /// HELO or EHLO.
    Helo(&'a str),
    /// MAIL.
    Mail {
        /// With its angle brackets.
        path: &'a str,
        /// `KEYWORD` or `KEYWORD=VALUE`.
        parameters: &'a [String],
    },
    /// RCPT.
    Rcpt {
        /// As with MAIL.
        path: &'a str,
        /// As with MAIL.
        parameters: &'a [String],
    },
    /// DATA.
    Data,
    /// One header field.
    Header {
        /// Before the colon.
        name: &'a [u8],
        /// Everything after it, with its leading white space and without its final line end; folded as received.
        value: &'a [u8],
    },
    /// The header section is complete.
    EndOfHeader,
    /// The next octets of the body, at most [`BODY_OCTETS_MAX`].
    Body(&'a [u8]),
    /// The message is complete.
    EndOfMessage,
    /// The message is given up; another MAIL may follow.
    Abort,
    /// The connection will be closed.
    Quit,
}

/// Where a client comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// SMFIA_INET or SMFIA_INET6.
    Inet(SocketAddr),
    /// SMFIA_UNKNOWN.
    Unknown,
}

impl Command<'_> {
    /// SMFIC_*.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Connect { .. } => SMFIC_CONNECT,
            Self::Helo(_) => SMFIC_HELO,
            Self::Mail { .. } => SMFIC_MAIL,
            Self::Rcpt { .. } => SMFIC_RCPT,
            Self::Data => SMFIC_DATA,
            Self::Header { .. } => SMFIC_HEADER,
            Self::EndOfHeader => SMFIC_EOH,
            Self::Body(_) => SMFIC_BODY,
            Self::EndOfMessage => SMFIC_BODYEOB,
            Self::Abort => SMFIC_ABORT,
            Self::Quit => SMFIC_QUIT,
        }
    }

    /// Appends its frame. `leading_space`: SMFIP_HDR_LEADSPC was agreed on.
    pub(crate) fn encode(&self, leading_space: bool, out: &mut BytesMut) {
        encode(self.code(), out, |out| match self {
            Self::Connect { name, address } => connect(name, *address, out),
            Self::Helo(argument) => text(argument.as_bytes(), out),
            Self::Mail { path, parameters } | Self::Rcpt { path, parameters } => {
                text(path.as_bytes(), out);
                for parameter in *parameters {
                    text(parameter.as_bytes(), out);
                }
            }
            Self::Header { name, value } => {
                text(name, out);
                header_value(value, leading_space, out);
            }
            Self::Body(octets) => out.extend_from_slice(octets),
            Self::Data | Self::EndOfHeader | Self::EndOfMessage | Self::Abort | Self::Quit => {}
        });
    }
}

fn connect(name: &str, address: ClientAddress, out: &mut BytesMut) {
    text(name.as_bytes(), out);
    let ClientAddress::Inet(address) = address else {
        out.put_u8(b'U');
        return;
    };
    out.put_u8(match address.ip() {
        IpAddr::V4(_) => b'4',
        IpAddr::V6(_) => b'6',
    });
    out.put_u16(address.port());
    text(address.ip().to_string().as_bytes(), out);
}

pub(crate) fn text(octets: &[u8], out: &mut BytesMut) {
    out.extend(octets.iter().map(|octet| match octet {
        0 => b'?',
        other => *other,
    }));
    out.put_u8(0);
}

/// Lines of a folded value are separated by LF, as Sendmail has them.
fn header_value(value: &[u8], leading_space: bool, out: &mut BytesMut) {
    let value = if leading_space {
        value
    } else {
        value.trim_ascii_start()
    };
    let mut octets = value.iter().copied().peekable();
    while let Some(octet) = octets.next() {
        match (octet, octets.peek()) {
            (b'\r', Some(b'\n')) => {}
            (0, _) => out.put_u8(b'?'),
            _ => out.put_u8(octet),
        }
    }
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::Frame;

    fn wire(command: Command<'_>, leading_space: bool) -> Vec<u8> {
        let mut out = BytesMut::new();
        command.encode(leading_space, &mut out);
        out.to_vec()
    }

    #[test]
    fn commands_as_libmilter_reads_them() {
        let inet = |address: &str| ClientAddress::Inet(address.parse().unwrap());
        let parameters = ["SIZE=12".to_owned(), "SMTPUTF8".to_owned()];
        let header = Command::Header {
            name: b"To",
            value: b"  a@example.org,\r\n\tb@example.org",
        };
        for (command, leading_space, expected) in [
            (
                Command::Connect {
                    name: "[192.0.2.1]",
                    address: inet("192.0.2.1:258"),
                },
                false,
                &b"\0\0\0\x1aC[192.0.2.1]\x004\x01\x02192.0.2.1\0"[..],
            ),
            (
                Command::Connect {
                    name: "a",
                    address: inet("[2001:db8::1]:25"),
                },
                false,
                b"\0\0\0\x12Ca\x006\0\x192001:db8::1\0",
            ),
            (
                Command::Connect {
                    name: "a",
                    address: ClientAddress::Unknown,
                },
                false,
                b"\0\0\0\x04Ca\0U",
            ),
            (
                Command::Mail {
                    path: "<>",
                    parameters: &parameters,
                },
                false,
                b"\0\0\0\x15M<>\0SIZE=12\0SMTPUTF8\0",
            ),
            (
                header,
                true,
                b"\0\0\0\x24LTo\0  a@example.org,\n\tb@example.org\0",
            ),
            (
                header,
                false,
                b"\0\0\0\x22LTo\0a@example.org,\n\tb@example.org\0",
            ),
            (Command::Body(b"a\0\r\n"), false, b"\0\0\0\x05Ba\0\r\n"),
            (Command::EndOfMessage, false, b"\0\0\0\x01E"),
        ] {
            let wire = wire(command, leading_space);
            assert_eq!(wire, expected, "{}", String::from_utf8_lossy(&wire));
        }
    }

    proptest! {
        #[test]
        fn no_text_ends_another(name in "\\PC{0,20}", value in proptest::collection::vec(any::<u8>(), 0..50), leading in any::<bool>()) {
            let mut out = BytesMut::new();
            Command::Header { name: name.as_bytes(), value: &value }.encode(leading, &mut out);
            let frame = Frame::decode(&mut out).unwrap().unwrap();
            prop_assert_eq!(frame.data.split(|octet| *octet == 0).count(), 3);
            prop_assert_eq!(frame.data.last(), Some(&0));
            prop_assert!(out.is_empty());
        }
    }
}
