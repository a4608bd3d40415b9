//! Context on demand: cuts the context down to what the service asked for when the connection was negotiated.

use opes_proto::smtp::{Context, ContextField, HeaderField, Wants};

/// The negotiated wants of one kind of transaction, ready for use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Bit n = the field with number n.
    fields: u32,
    headers: Vec<String>,
}

impl Filter {
    pub(crate) fn new(wants: &Wants) -> Self {
        let known = wants
            .context()
            .map(i32::from)
            .filter_map(|n| u32::try_from(n).ok());
        let fields = known
            .filter(|&n| n < u32::BITS)
            .fold(0, |bits, n| bits | 1 << n);
        Self {
            fields,
            headers: wants.headers.clone(),
        }
    }

    fn has(&self, field: ContextField) -> bool {
        u32::try_from(i32::from(field)).is_ok_and(|n| self.fields & (1 << n) != 0)
    }

    pub(crate) fn has_recipients(&self) -> bool {
        self.has(ContextField::Recipients)
    }

    /// `dialog_id` and `event_id` always go along: they only tie transactions together.
    pub(crate) fn apply(&self, full: &Context) -> Context {
        use ContextField as F;
        let mut context = Context {
            dialog_id: full.dialog_id.clone(),
            event_id: full.event_id.clone(),
            ..Context::default()
        };
        if self.has(F::Client) {
            context.client.clone_from(&full.client);
        }
        if self.has(F::Helo) {
            context.helo.clone_from(&full.helo);
        }
        if self.has(F::Tls) {
            context.tls.clone_from(&full.tls);
        }
        if self.has(F::Auth) {
            context.auth.clone_from(&full.auth);
        }
        if self.has(F::MailFrom) {
            context.mail_from.clone_from(&full.mail_from);
        }
        if self.has(F::Recipients) {
            context.recipients.clone_from(&full.recipients);
        }
        self.apply_content(full, &mut context);
        context
    }

    fn apply_content(&self, full: &Context, context: &mut Context) {
        use ContextField as F;
        if self.has(F::Size) {
            context.size = full.size;
        }
        if self.has(F::Headers) {
            context.headers = full
                .headers
                .iter()
                .filter(|h| self.wanted(h))
                .cloned()
                .collect();
        }
        if self.has(F::MimeMap) {
            context.mime_map.clone_from(&full.mime_map);
        }
        if self.has(F::Annotations) {
            context.annotations.clone_from(&full.annotations);
        }
        if self.has(F::Delivery) {
            context.delivery.clone_from(&full.delivery);
        }
        if self.has(F::Answer) {
            context.answer.clone_from(&full.answer);
        }
        if self.has(F::Listener) {
            context.listener.clone_from(&full.listener);
        }
    }

    fn wanted(&self, field: &HeaderField) -> bool {
        self.headers
            .iter()
            .any(|name| name.eq_ignore_ascii_case(&field.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opes_proto::smtp::{Address, Client};

    fn full() -> Context {
        let header = |name: &str| HeaderField {
            name: name.to_owned(),
            value: "x".into(),
        };
        Context {
            dialog_id: "d1".into(),
            helo: "client.example.com".into(),
            client: Some(Client {
                ip: "192.0.2.1".into(),
                port: 25,
            }),
            mail_from: Some(Address {
                address: "a@example.com".into(),
                parameters: vec![],
            }),
            headers: vec![header("Subject"), header("X-Other")],
            size: Some(7),
            ..Context::default()
        }
    }

    #[test]
    fn nothing_asked_nothing_sent() {
        let context = Filter::new(&Wants::default()).apply(&full());
        assert_eq!(
            context,
            Context {
                dialog_id: "d1".into(),
                ..Context::default()
            }
        );
    }

    #[test]
    fn only_what_was_asked() {
        let wants = Wants {
            context: vec![
                ContextField::Client.into(),
                ContextField::Headers.into(),
                99,
            ],
            headers: vec!["subject".into()],
            ..Wants::default()
        };
        let context = Filter::new(&wants).apply(&full());
        assert!(context.client.is_some() && context.helo.is_empty() && context.mail_from.is_none());
        assert_eq!(context.headers.len(), 1);
        assert_eq!(context.size, None);
    }
}
