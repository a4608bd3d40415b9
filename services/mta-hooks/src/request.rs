//! The hook's request: what is known at a point of the dialog, as the scanner's JSON has it.
//!
//! Mail is octets and JSON is text: what is no UTF-8 is shown as U+FFFD. That is what the scanner sees; the message keeps its octets.

use opes_mime::Structure;
use opes_proto::smtp::{self, Point};
use serde::Serialize;
use serde_json::{Map, Value};

/// Where the scanner is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Stage {
    Connect,
    Ehlo,
    Auth,
    Mail,
    Rcpt,
    Data,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    context: Context,
    #[serde(skip_serializing_if = "Option::is_none")]
    envelope: Option<Envelope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    stage: Stage,
    #[serde(skip_serializing_if = "Option::is_none")]
    sasl: Option<Sasl>,
    client: Client,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
    server: Server,
    queue: Queue,
    protocol: Protocol,
}

#[derive(Debug, Serialize)]
struct Sasl {
    login: String,
    method: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Client {
    ip: String,
    port: u32,
    ptr: Option<String>,
    ehlo: Option<String>,
    active_connections: u32,
}

#[derive(Debug, Serialize)]
struct Tls {
    version: String,
    cipher: String,
}

#[derive(Debug, Serialize)]
struct Server {
    name: String,
}

#[derive(Debug, Serialize)]
struct Queue {
    id: String,
}

#[derive(Debug, Serialize)]
struct Protocol {
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct Envelope {
    from: Address,
    to: Vec<Address>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Address {
    address: String,
    parameters: Option<Map<String, Value>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    headers: Vec<(String, String)>,
    server_headers: Vec<(String, String)>,
    contents: String,
    size: usize,
}

// === impl Stage ===

impl Stage {
    /// `None`: MTA Hooks has no word for this point.
    pub(crate) fn of(point: Point) -> Option<Self> {
        match point {
            Point::Connect => Some(Self::Connect),
            Point::Helo => Some(Self::Ehlo),
            Point::Auth => Some(Self::Auth),
            Point::MailFrom => Some(Self::Mail),
            Point::RcptTo => Some(Self::Rcpt),
            Point::Content => Some(Self::Data),
            _ => None,
        }
    }
}

// === impl Address ===

impl Address {
    /// Keywords in lower case; numbers as such, `null` for one without a value.
    pub(crate) fn new<'a>(
        address: &str,
        parameters: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Self {
        let named = |(keyword, value): (&str, Option<&str>)| {
            let value = match (value, value.and_then(|value| value.parse::<u64>().ok())) {
                (_, Some(number)) => number.into(),
                (Some(text), None) => text.into(),
                (None, None) => Value::Null,
            };
            (keyword.to_ascii_lowercase(), value)
        };
        let parameters: Map<_, _> = parameters.into_iter().map(named).collect();
        Self {
            address: address.to_owned(),
            parameters: (!parameters.is_empty()).then_some(parameters),
        }
    }

    pub(crate) fn of(address: &smtp::Address) -> Self {
        let parameters = address.parameters.iter();
        let split = parameters.map(|parameter| match parameter.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (parameter.as_str(), None),
        });
        Self::new(&address.address, split)
    }
}

// === impl Request ===

impl Request {
    /// Without envelope and message: what is known of the session.
    pub(crate) fn new(stage: Stage, context: &smtp::Context) -> Self {
        let client = context.client.clone().unwrap_or_default();
        let context = Context {
            stage,
            sasl: context.auth.as_ref().map(|auth| Sasl {
                login: auth.identity.clone(),
                method: auth.mechanism.clone(),
            }),
            client: Client {
                ip: client.ip,
                port: client.port,
                ptr: None,
                ehlo: Some(context.helo.clone()).filter(|helo| !helo.is_empty()),
                active_connections: 1,
            },
            tls: context.tls.as_ref().map(|tls| Tls {
                version: tls.version.clone(),
                cipher: tls.cipher.clone(),
            }),
            server: Server {
                name: context.listener.clone(),
            },
            queue: Queue {
                id: context.dialog_id.clone(),
            },
            protocol: Protocol { version: "1.0" },
        };
        Self {
            context,
            envelope: None,
            message: None,
        }
    }

    pub(crate) fn with_envelope(mut self, from: Address, to: Vec<Address>) -> Self {
        self.envelope = Some(Envelope { from, to });
        self
    }

    /// `structure` is that of `octets`.
    pub(crate) fn with_message(mut self, octets: &[u8], structure: &Structure) -> Self {
        let text = |from: u64, to: u64| {
            let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
            let octets = range.and_then(|(from, to)| octets.get(from..to));
            String::from_utf8_lossy(octets.unwrap_or_default()).into_owned()
        };
        let headers = structure.fields.iter().map(|field| {
            let value = text(field.value.start, field.value.end);
            let value = value.trim_start_matches([' ', '\t']).to_owned();
            (text(field.name.start, field.name.end), value)
        });
        self.message = Some(Message {
            headers: headers.collect(),
            server_headers: Vec::new(),
            contents: text(structure.header_end, structure.len),
            size: octets.len(),
        });
        self
    }

    pub(crate) fn to_json(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn context() -> smtp::Context {
        smtp::Context {
            dialog_id: "7".into(),
            listener: "mx".into(),
            client: Some(smtp::Client {
                ip: "192.0.2.1".into(),
                port: 34567,
            }),
            helo: "mail.example.org".into(),
            auth: Some(smtp::Auth {
                mechanism: "PLAIN".into(),
                identity: "tim".into(),
            }),
            ..smtp::Context::default()
        }
    }

    #[test]
    fn a_message_as_the_documentation_has_it() {
        let octets = b"From: a@example.org\r\nSubject: one\r\n two\r\n\r\ncaf\xe9\r\n";
        let address = smtp::Address {
            address: "a@example.org".into(),
            parameters: vec!["SIZE=12345".into(), "SMTPUTF8".into()],
        };
        let to = Address::new("b@example.com", [("ORCPT", Some("rfc822;b@example.com"))]);
        let request = Request::new(Stage::Data, &context())
            .with_envelope(Address::of(&address), vec![to])
            .with_message(octets, &opes_mime::scan(octets));
        let said: Value = serde_json::from_slice(&request.to_json().unwrap()).unwrap();
        let expected = json!({
            "context": {
                "stage": "DATA",
                "sasl": { "login": "tim", "method": "PLAIN" },
                "client": { "ip": "192.0.2.1", "port": 34567, "ptr": null, "ehlo": "mail.example.org", "activeConnections": 1 },
                "server": { "name": "mx" },
                "queue": { "id": "7" },
                "protocol": { "version": "1.0" },
            },
            "envelope": {
                "from": { "address": "a@example.org", "parameters": { "size": 12345, "smtputf8": null } },
                "to": [{ "address": "b@example.com", "parameters": { "orcpt": "rfc822;b@example.com" } }],
            },
            "message": {
                "headers": [["From", "a@example.org"], ["Subject", "one\r\n two"]],
                "serverHeaders": [],
                "contents": "caf\u{fffd}\r\n",
                "size": octets.len(),
            },
        });
        assert_eq!(said, expected);
    }

    #[test]
    fn what_is_not_known_yet_is_not_there() {
        let request = Request::new(Stage::Connect, &smtp::Context::default());
        let said: Value = serde_json::from_slice(&request.to_json().unwrap()).unwrap();
        assert!(
            said.get("envelope").is_none() && said.get("message").is_none(),
            "{said}"
        );
        assert!(said["context"].get("sasl").is_none(), "{said}");
    }
}
