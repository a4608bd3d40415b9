//! One form for addresses, so that a policy cannot be walked around by writing an address differently.
//!
//! Lower case (local parts too: RFC 5321 §2.4 allows a host to tell `Joe` from `joe`, but no sender of abuse may profit from
//! that), without source route, quoted local parts unquoted. U-labels and A-labels of one domain are not unified.

/// An address in the form that patterns are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    /// Where the `@` is; `None` for `postmaster` without a domain and for the empty reverse-path.
    at: Option<usize>,
    octets_as_written: usize,
}

// === impl Address ===

impl Address {
    /// `written`: without angle brackets; empty = the null reverse-path.
    pub fn new(written: &str) -> Self {
        let bare = without_source_route(written);
        let (local, domain) = match bare.rsplit_once('@') {
            Some((local, domain)) => (local, Some(domain)),
            None => (bare, None),
        };
        let mut text = unquoted(local).to_lowercase();
        let at = domain.map(|domain| {
            let at = text.len();
            text.push('@');
            text.push_str(&domain.to_lowercase());
            at
        });
        Self {
            text,
            at,
            octets_as_written: written.len(),
        }
    }

    /// The null reverse-path, `<>`.
    pub fn is_null(&self) -> bool {
        self.text.is_empty()
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// In front of the last `@`.
    pub fn local_part(&self) -> &str {
        self.text
            .get(..self.at.unwrap_or(self.text.len()))
            .unwrap_or_default()
    }

    /// After the last `@`; empty if there is none.
    pub fn domain(&self) -> &str {
        self.at
            .and_then(|at| self.text.get(at + 1..))
            .unwrap_or_default()
    }

    /// Length of the address as the client wrote it.
    pub fn octets_as_written(&self) -> usize {
        self.octets_as_written
    }
}

/// `@relay.example,@other.example:joe@example.org`: the route is ignored (RFC 5321 §4.1.2).
fn without_source_route(written: &str) -> &str {
    if !written.starts_with('@') {
        return written;
    }
    written
        .split_once(':')
        .map_or(written, |(_, address)| address)
}

/// `"joe"` and `"j\oe"` are the mailbox `joe` (RFC 5321 §4.1.2: quoting has no meaning of its own).
fn unquoted(local: &str) -> String {
    let inner = local
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return local.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        let pair = (character == '\\').then(|| characters.next()).flatten();
        plain.push(pair.unwrap_or(character));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn one_mailbox_has_one_form() {
        let spellings = [
            "joe@example.org",
            "Joe@EXAMPLE.org",
            "\"joe\"@example.org",
            "\"j\\oe\"@Example.org",
            "@relay.example.net,@other.example.net:joe@example.org",
        ];
        for written in spellings {
            assert_eq!(
                Address::new(written).as_str(),
                "joe@example.org",
                "{written}"
            );
        }
    }

    #[test]
    fn the_last_at_divides() {
        let address = Address::new("\"a@example.net\"@example.org");
        assert_eq!(
            (address.local_part(), address.domain()),
            ("a@example.net", "example.org")
        );
    }

    #[test]
    fn addresses_without_a_domain() {
        assert!(Address::new("").is_null());
        let postmaster = Address::new("Postmaster");
        assert_eq!(
            (postmaster.local_part(), postmaster.domain()),
            ("postmaster", "")
        );
    }
}
