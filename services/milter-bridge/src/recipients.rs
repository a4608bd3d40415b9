//! The recipients of a message as the milter leaves them.

use opes_callout_server::Answer;
use opes_proto::smtp::RecipientChange;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recipients {
    /// As the processor named them, with whether they were taken out.
    known: Vec<(String, bool)>,
    added: Vec<String>,
}

impl Recipients {
    /// As the milter was told.
    pub(crate) fn new(known: impl IntoIterator<Item = String>) -> Self {
        Self {
            known: known.into_iter().map(|address| (address, false)).collect(),
            added: Vec::new(),
        }
    }

    /// SMFIR_ADDRCPT. One that is there already is not added twice.
    pub(crate) fn add(&mut self, address: &str) {
        let address = bare(address);
        if let Some((_, removed)) = self.find(address) {
            *removed = false;
        } else if !self.added.iter().any(|known| known == address) {
            self.added.push(address.to_owned());
        }
    }

    /// SMFIR_DELRCPT. One that is not there is gone already.
    pub(crate) fn remove(&mut self, address: &str) {
        let address = bare(address);
        self.added
            .retain(|known| !known.eq_ignore_ascii_case(address));
        if let Some((_, removed)) = self.find(address) {
            *removed = true;
        }
    }

    /// Exactly so written, or else in another case.
    fn find(&mut self, address: &str) -> Option<&mut (String, bool)> {
        let exact = self.known.iter().position(|(known, _)| known == address);
        let any_case = |(known, _): &(String, bool)| known.eq_ignore_ascii_case(address);
        let at = exact.or_else(|| self.known.iter().position(any_case))?;
        self.known.get_mut(at)
    }

    /// Adds the changes to `answer`.
    pub(crate) fn change(&self, answer: Answer) -> Answer {
        let removed = self.known.iter().filter(|(_, removed)| *removed);
        let removed = removed.map(|(address, _)| RecipientChange {
            original: address.clone(),
            remove: true,
            ..RecipientChange::default()
        });
        let added = self.added.iter().map(|address| RecipientChange {
            address: address.clone(),
            ..RecipientChange::default()
        });
        removed.chain(added).fold(answer, Answer::recipient)
    }
}

/// Without angle brackets.
pub(crate) fn bare(address: &str) -> &str {
    let address = address.trim();
    let inner = address
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'));
    inner.unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `-` taken out, `+` added.
    fn changes(recipients: &Recipients) -> Vec<String> {
        let envelope = recipients.change(Answer::accept()).into_outcome().envelope;
        let changes = envelope.unwrap_or_default().recipients.into_iter();
        let text = changes.map(|change| {
            if change.remove {
                format!("-{}", change.original)
            } else {
                format!("+{}", change.address)
            }
        });
        text.collect()
    }

    #[test]
    fn what_the_milter_says_last_counts() {
        let mut recipients =
            Recipients::new(["Bob@example.com".to_owned(), "eve@example.com".to_owned()]);
        recipients.remove("<bob@EXAMPLE.com>");
        recipients.add("<new@example.net>");
        recipients.add("new@example.net");
        recipients.remove("<nobody@example.com>");
        assert_eq!(
            changes(&recipients),
            ["-Bob@example.com", "+new@example.net"]
        );
        recipients.add("<bob@example.com>");
        recipients.remove("new@example.net");
        recipients.add("<eve@example.com>");
        assert_eq!(changes(&recipients), Vec::<String>::new());
    }
}
