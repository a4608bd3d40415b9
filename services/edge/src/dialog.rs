//! What the edge knows of one SMTP dialog, and the callouts of its commands.
//!
//! [`Dialog`] is the owned picture of a session that rules and services see; it is rebuilt only where a rule looks.

use std::net::SocketAddr;
use std::sync::Arc;

use opes_proto::smtp;
use opes_rules::{Facts, Headers, Point, Recipient, Sender};
use opes_trace::Bypass;

use crate::engine::Annotations;

/// One address with its ESMTP parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path {
    pub(crate) address: String,
    pub(crate) parameters: Vec<String>,
}

/// The dialog so far.
#[derive(Debug, Clone)]
pub(crate) struct Dialog {
    /// Ties the transactions of the session; on log lines and in `Received`.
    pub(crate) id: String,
    pub(crate) listener: Arc<str>,
    pub(crate) client: SocketAddr,
    pub(crate) helo: Option<String>,
    pub(crate) tls: Option<smtp::Tls>,
    pub(crate) auth: Option<smtp::Auth>,
    pub(crate) mail_from: Option<Path>,
    pub(crate) recipients: Vec<Path>,
    pub(crate) annotations: Annotations,
    /// What an authenticated sender asked to have left out.
    pub(crate) bypass: Option<Arc<Bypass>>,
}

impl Dialog {
    /// Of which all this has been said.
    pub(crate) fn annotated(&self, said: &Annotations) -> Self {
        Self {
            annotations: said.clone(),
            ..self.clone()
        }
    }

    /// ESMTP parameters of MAIL.
    pub(crate) fn mail_parameters(&self) -> &[String] {
        self.mail_from
            .as_ref()
            .map_or(&[], |path| path.parameters.as_slice())
    }

    /// The context fields that do not depend on mail data.
    pub(crate) fn context(&self) -> smtp::Context {
        smtp::Context {
            dialog_id: self.id.clone(),
            listener: self.listener.to_string(),
            client: Some(smtp::Client {
                ip: self.client.ip().to_string(),
                port: u32::from(self.client.port()),
            }),
            helo: self.helo.clone().unwrap_or_default(),
            tls: self.tls.clone(),
            auth: self.auth.clone(),
            mail_from: self.mail_from.as_ref().map(Path::to_proto),
            recipients: self.recipients.iter().map(Path::to_proto).collect(),
            size: None,
            headers: Vec::new(),
            mime_map: Vec::new(),
            annotations: self.annotations.clone().into_iter().collect(),
            delivery: None,
            answer: None,
            event_id: String::new(),
        }
    }
}

/// What is known of the mail data when the plan is made, if anything.
#[derive(Clone, Copy, Default)]
pub(crate) struct ContentFacts<'a> {
    pub(crate) size: Option<u64>,
    pub(crate) headers: Option<&'a dyn Headers>,
}

impl Dialog {
    /// Hands the facts that rules look at to `look`. They borrow from here, so they cannot be returned.
    pub(crate) fn with_facts<T>(
        &self,
        point: Point,
        content: ContentFacts<'_>,
        look: impl FnOnce(&Facts<'_>) -> T,
    ) -> T {
        let all: Vec<Recipient<'_>> = self.recipients.iter().map(Path::to_recipient).collect();
        // At rcptTo rules look at the one being offered.
        let recipients = match (point, all.last()) {
            (Point::RcptTo, Some(last)) => std::slice::from_ref(last),
            _ => &all,
        };
        look(&Facts {
            point,
            dialog_id: &self.id,
            listener: &self.listener,
            client_ip: Some(self.client.ip()),
            client_port: Some(self.client.port()),
            helo: self.helo.as_deref(),
            tls: self.tls.as_ref().map(|tls| tls.version.as_str()),
            auth: self.auth.as_ref().map(|auth| auth.identity.as_str()),
            mail_from: self.mail_from.as_ref().map(Path::to_sender),
            recipients,
            size: content.size,
            headers: content.headers,
            annotations: Some(&self.annotations),
            bypass: self.bypass.as_deref(),
        })
    }
}

impl Path {
    fn to_recipient(&self) -> Recipient<'_> {
        Recipient {
            address: &self.address,
            parameters: &self.parameters,
        }
    }

    fn to_sender(&self) -> Sender<'_> {
        Sender {
            address: &self.address,
            parameters: &self.parameters,
        }
    }

    fn to_proto(&self) -> smtp::Address {
        smtp::Address {
            address: self.address.clone(),
            parameters: self.parameters.clone(),
        }
    }
}
