//! What rspamd is told of the session besides the message: the fields of its HTTP protocol.

use opes_http::Field;
use opes_proto::smtp::Context;

/// Recipients that rspamd is told of; scores do not depend on the hundredth.
const RECIPIENTS_MAX: usize = 100;

/// The fields of a request. Values that HTTP cannot carry are left out: a forged HELO must not keep a message from being looked at.
pub(crate) fn fields(context: &Context) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    let mut add = |name, value| {
        if is_sendable(value) {
            fields.push((name, value));
        }
    };
    if let Some(client) = &context.client {
        add("IP", &client.ip);
    }
    add("Helo", &context.helo);
    if let Some(auth) = &context.auth {
        add("User", &auth.identity);
    }
    if let Some(from) = &context.mail_from {
        add("From", &from.address);
    }
    for recipient in context.recipients.iter().take(RECIPIENTS_MAX) {
        add("Rcpt", &recipient.address);
    }
    add("Queue-Id", &context.dialog_id);
    if let Some(tls) = &context.tls {
        add("TLS-Version", &tls.version);
        add("TLS-Cipher", &tls.cipher);
    }
    fields
}

fn is_sendable(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|octet| octet >= b' ' && octet != 0x7f)
}

#[cfg(test)]
mod tests {
    use opes_proto::smtp::{Address, Client};

    use super::*;

    #[test]
    fn what_is_known_and_can_be_said() {
        let address = |address: &str| Address {
            address: address.into(),
            parameters: Vec::new(),
        };
        let context = Context {
            dialog_id: "7.1".into(),
            client: Some(Client {
                ip: "192.0.2.1".into(),
                port: 5,
            }),
            helo: "evil\r\nUser: root".into(),
            mail_from: Some(address("")),
            recipients: vec![address("a@example.com"), address("b@example.com")],
            ..Context::default()
        };
        let expected = [
            ("IP", "192.0.2.1"),
            ("Rcpt", "a@example.com"),
            ("Rcpt", "b@example.com"),
            ("Queue-Id", "7.1"),
        ];
        assert_eq!(fields(&context), expected);
    }
}
