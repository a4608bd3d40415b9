//! What the kit talks about: one command, one message, and the context that a server asked for.

use opes_proto::smtp::{
    Address, Client, ContentWant, Context, ContextField, HeaderField, MessageStart, MimePart,
    Point, ProfileSelection, Wants,
};
use prost::Message as _;

pub(crate) const COMMAND: &[u8] = b"RCPT TO:<bob@example.org>";
pub(crate) const RECIPIENTS: [&str; 2] = ["ann@example.com", "bob@example.org"];

/// Octets of the header section of [`message`].
pub(crate) fn header_octets(message: &[u8]) -> usize {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n");
    end.map_or(message.len(), |at| at + 4)
}

/// Mail data of at least `size` octets.
pub(crate) fn message(size: usize) -> Vec<u8> {
    let mut octets = b"From: <carol@example.net>\r\nTo: <ann@example.com>, <bob@example.org>\r\n\
        Subject: conformance\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@example.net>\r\n\r\n"
        .to_vec();
    octets.extend_from_slice(b"One line.\r\n");
    while octets.len() < size {
        octets.extend_from_slice(b"And another line, so that there is something to read.\r\n");
    }
    octets
}

/// How much of `message` this server wants.
pub(crate) fn wanted_octets(terms: &ProfileSelection, message: &[u8]) -> usize {
    let wants = terms.message.as_ref();
    match wants.map_or(ContentWant::All, Wants::content) {
        ContentWant::None => 0,
        ContentWant::Header => header_octets(message),
        ContentWant::Prefix => {
            let prefix = wants.map_or(0, |wants| wants.prefix);
            usize::try_from(prefix)
                .unwrap_or(usize::MAX)
                .min(message.len())
        }
        ContentWant::Unspecified | ContentWant::All => message.len(),
    }
}

/// `AMS.profile` of P: what is not asked for is not sent.
pub(crate) fn start(point: Point, terms: &ProfileSelection, message: &[u8]) -> Vec<u8> {
    let is_message = point >= Point::Content;
    let wants = if is_message {
        &terms.message
    } else {
        &terms.command
    };
    let mut start = MessageStart {
        point: point.into(),
        ..MessageStart::default()
    };
    let wants = wants.clone().unwrap_or_default();
    if is_message {
        start.content = match wants.content() {
            ContentWant::Unspecified => ContentWant::All.into(),
            content => content.into(),
        };
    }
    start.context = Some(context(&wants, message));
    start.encode_to_vec()
}

fn context(wants: &Wants, message: &[u8]) -> Context {
    let mut context = Context {
        dialog_id: "conformance".to_owned(),
        ..Context::default()
    };
    for field in wants.context() {
        add(&mut context, field, wants, message);
    }
    context
}

fn add(context: &mut Context, field: ContextField, wants: &Wants, message: &[u8]) {
    match field {
        ContextField::Client => {
            context.client = Some(Client {
                ip: "192.0.2.7".to_owned(),
                port: 40_000,
            });
        }
        ContextField::Helo => "client.example.net".clone_into(&mut context.helo),
        ContextField::MailFrom => context.mail_from = Some(address("carol@example.net")),
        ContextField::Recipients => context.recipients = RECIPIENTS.map(address).to_vec(),
        ContextField::Size => context.size = Some(message.len() as u64),
        ContextField::Headers => context.headers = headers(&wants.headers, message),
        ContextField::MimeMap => {
            context.mime_map = vec![MimePart {
                path: String::new(),
                content_type: "text/plain".to_owned(),
                name: String::new(),
                size: (message.len() - header_octets(message)) as u64,
            }];
        }
        ContextField::Listener => "conformance".clone_into(&mut context.listener),
        // Not encrypted, not authenticated, nothing said before, nothing delivered or answered.
        ContextField::Unspecified
        | ContextField::Tls
        | ContextField::Auth
        | ContextField::Annotations
        | ContextField::Delivery
        | ContextField::Answer => {}
    }
}

fn address(address: &str) -> Address {
    Address {
        address: address.to_owned(),
        parameters: Vec::new(),
    }
}

fn headers(names: &[String], message: &[u8]) -> Vec<HeaderField> {
    let section =
        String::from_utf8_lossy(message.get(..header_octets(message)).unwrap_or_default())
            .into_owned();
    let fields = section.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(name, _)| names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)))
        .map(|(name, value)| HeaderField {
            name: name.to_owned(),
            value: value.to_owned().into(),
        })
        .collect()
}
