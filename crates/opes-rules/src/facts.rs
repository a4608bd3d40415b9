//! What is known about a dialog and its message when rules are looked at.
//!
//! All borrowed: making a [`Facts`] costs nothing. What is not known yet is `None`, and a rule that
//! needs it does not match; what is known to be absent (a client that did not authenticate) is said
//! by the field's own empty form.

use crate::point::Point;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use opes_trace::Bypass;

/// Everything that rules can ask about.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Where the message stands.
    pub point: Point,
    /// Key of the dialog or transaction; decides which share of a rollout it falls into. The same
    /// key gives the same answer at every point and on every edge.
    pub dialog_id: &'a str,
    /// Name of the listener.
    pub listener: &'a str,
    /// Address of the client (after the PROXY protocol); `None` on a Unix socket.
    pub client_ip: Option<IpAddr>,
    /// Port of the client.
    pub client_port: Option<u16>,
    /// Argument of HELO, EHLO or LHLO.
    pub helo: Option<&'a str>,
    /// TLS version such as `TLSv1.3`; `None` in the clear.
    pub tls: Option<&'a str>,
    /// Authenticated identity; `None` if there is none.
    pub auth: Option<&'a str>,
    /// Reverse-path with its parameters.
    pub mail_from: Option<Sender<'a>>,
    /// Recipients that rules are evaluated for. At `rcptTo` just the one being offered.
    pub recipients: &'a [Recipient<'a>],
    /// Octets of the message: counted, or declared with SIZE= before that.
    pub size: Option<u64>,
    /// Header section of the message.
    pub headers: Option<&'a dyn Headers>,
    /// What services have annotated so far.
    pub annotations: Option<&'a BTreeMap<String, String>>,
    /// Services that are to be left out where they allow it; the asking was authenticated.
    pub bypass: Option<&'a Bypass>,
}

/// Reverse-path of a transaction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sender<'a> {
    /// Without angle brackets, verbatim; empty for the null reverse-path.
    pub address: &'a str,
    /// ESMTP parameters as received, such as `BODY=8BITMIME`.
    pub parameters: &'a [String],
}

/// One recipient of a transaction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recipient<'a> {
    /// Forward-path without angle brackets, verbatim.
    pub address: &'a str,
    /// ESMTP parameters as received, such as `NOTIFY=NEVER`.
    pub parameters: &'a [String],
}

/// Access to the header section.
pub trait Headers {
    /// Body of the first field of this name (any case), unfolded, without the space after the
    /// colon; `None` if there is no such field.
    fn first(&self, name: &str) -> Option<Cow<'_, str>>;
}

// === impl Facts ===

impl Facts<'_> {
    /// Nothing known but the point; fill in with `Facts { helo, ..Facts::at(point) }`.
    pub const fn at(point: Point) -> Self {
        Self {
            point,
            dialog_id: "",
            listener: "",
            client_ip: None,
            client_port: None,
            helo: None,
            tls: None,
            auth: None,
            mail_from: None,
            recipients: &[],
            size: None,
            headers: None,
            annotations: None,
            bypass: None,
        }
    }

    /// The same dialog looked at from another point; what cannot be known there is taken out.
    #[must_use]
    pub fn seen_from(self, point: Point) -> Self {
        let known = |from: Point| point.index() >= from.index();
        Self {
            point,
            helo: self.helo.filter(|_| known(Point::Helo)),
            mail_from: self.mail_from.filter(|_| known(Point::MailFrom)),
            size: self.size.filter(|_| known(Point::MailFrom)),
            recipients: if point.has_recipients() {
                self.recipients
            } else {
                &[]
            },
            headers: self.headers.filter(|_| known(Point::Content)),
            ..self
        }
    }

    /// The client's address with an IPv4 address always in IPv4 form.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.client_ip.map(|address| address.to_canonical())
    }
}

impl fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("point", &self.point)
            .field("listener", &self.listener)
            .field("recipients", &self.recipients.len())
            .finish_non_exhaustive()
    }
}

/// The domain of an address: what follows the last `@`; empty if there is none.
pub(crate) fn domain_of(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}
