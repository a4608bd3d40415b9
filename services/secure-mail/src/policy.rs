//! What a rule asks for: its `parameters`, and what is to be done when that is not possible.

use serde::{Deserialize, Deserializer, de::Error as _};

/// `parameters` of a rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// What to do.
    pub operation: Operation,
    /// With what. Needed to sign and to encrypt; a message says itself what it is signed or encrypted with.
    #[serde(default)]
    pub format: Option<Format>,
    /// `encrypt`: sign inside, with the sender's key.
    #[serde(default)]
    pub sign: bool,
    /// `encrypt` with S/MIME: of the content.
    #[serde(default)]
    pub cipher: Cipher,
    /// `decrypt` with S/MIME: content without a checksum of its own (CBC).
    #[serde(default)]
    pub unauthenticated: Unauthenticated,
    /// `dkimSign`: the domain instead of that of the field From.
    #[serde(default)]
    pub domain: Option<String>,
    #[serde(default)]
    on_missing_key: Option<Reaction>,
    #[serde(default)]
    on_bad_signature: Option<Reaction>,
    #[serde(default)]
    on_cannot_decrypt: Option<Reaction>,
    #[serde(default)]
    on_unsigned: Option<Reaction>,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// With the key of the reverse-path.
    Sign,
    /// Look at a signature, change nothing of the message.
    Verify,
    /// To the keys of the recipients.
    Encrypt,
    /// With the keys of the recipients; looks at a signature inside.
    Decrypt,
    /// With the key of a domain (RFC 6376).
    DkimSign,
}

/// With what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// PGP/MIME, RFC 3156.
    OpenPgp,
    /// RFC 8551.
    Smime,
}

/// Content encryption of S/MIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cipher {
    /// EnvelopedData, which every reader knows; it has no checksum.
    #[default]
    Aes256Cbc,
    /// AuthEnvelopedData (RFC 5083), of S/MIME 4.
    Aes256Gcm,
}

/// What to think of decrypted content that somebody on the way may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unauthenticated {
    /// It must have a good signature inside.
    #[default]
    NeedSignature,
    /// It is taken.
    Accept,
}

/// Why an operation was not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No usable key for somebody.
    MissingKey,
    /// There is a signature, and it is not a good one of the author.
    BadSignature,
    /// The octets do not decrypt.
    CannotDecrypt,
    /// There is no signature.
    Unsigned,
}

/// What is done then (RFC 4496 §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// To the message.
    pub verdict: Verdict,
    /// For the reply, the notification and the quarantine; empty: ours.
    pub text: String,
    /// Say it in the header field.
    pub header: bool,
    /// In front of the subject; empty: nothing.
    pub subject_mark: String,
    /// Who is told.
    pub notify: Vec<NotifyTo>,
    /// As an incident.
    pub report: bool,
}

/// What becomes of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It goes on as it is.
    Accept,
    /// Refused.
    Reject,
    /// Refused for now.
    Tempfail,
    /// Held.
    Quarantine,
    /// The callout fails: the rule's `onFailure` decides.
    Fail,
}

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NotifyTo {
    /// The reverse-path.
    Sender,
    /// All recipients.
    Recipients,
    /// Of the edge.
    Administrator,
}

/// Why parameters make no sense.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not the fields above.
    #[error("parameters: {0}; docs/services/secure-mail.md lists the fields")]
    Fields(#[from] serde_json::Error),
    /// Nothing to sign or encrypt with.
    #[error("parameters: format is missing; say openpgp or smime")]
    NoFormat,
}

// === impl Policy ===

impl Policy {
    /// Reads and checks a rule's `parameters`.
    pub fn from_json(json: &str) -> Result<Self, PolicyError> {
        let policy: Self = serde_json::from_str(if json.trim().is_empty() { "{}" } else { json })?;
        let needs_format = matches!(policy.operation, Operation::Sign | Operation::Encrypt);
        if needs_format && policy.format.is_none() {
            return Err(PolicyError::NoFormat);
        }
        Ok(policy)
    }

    /// What is done about a failure. By default what was to be encrypted does not leave in the clear, and what arrives is marked.
    pub fn reaction(&self, failure: Failure) -> Reaction {
        let configured = match failure {
            Failure::MissingKey => &self.on_missing_key,
            Failure::BadSignature => &self.on_bad_signature,
            Failure::CannotDecrypt => &self.on_cannot_decrypt,
            Failure::Unsigned => &self.on_unsigned,
        };
        if let Some(reaction) = configured {
            return reaction.clone();
        }
        let subject_mark = match failure {
            Failure::BadSignature => "[BAD SIGNATURE] ".to_owned(),
            _ => String::new(),
        };
        let verdict = match (failure, self.operation) {
            (Failure::MissingKey, Operation::Encrypt) => Verdict::Reject,
            _ => Verdict::Accept,
        };
        Reaction {
            subject_mark,
            ..Reaction::from(verdict)
        }
    }
}

// === impl Failure ===

impl Failure {
    /// For annotations, incidents and the header field.
    pub const fn label(self) -> &'static str {
        match self {
            Self::MissingKey => "missing-key",
            Self::BadSignature => "bad-signature",
            Self::CannotDecrypt => "cannot-decrypt",
            Self::Unsigned => "unsigned",
        }
    }

    /// The field of the parameters that decides.
    pub const fn field(self) -> &'static str {
        match self {
            Self::MissingKey => "onMissingKey",
            Self::BadSignature => "onBadSignature",
            Self::CannotDecrypt => "onCannotDecrypt",
            Self::Unsigned => "onUnsigned",
        }
    }
}

// === impl Reaction ===

impl From<Verdict> for Reaction {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            text: String::new(),
            header: true,
            subject_mark: String::new(),
            notify: Vec::new(),
            report: false,
        }
    }
}

/// The long form; the short one is the verdict alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    verdict: Verdict,
    #[serde(default)]
    text: String,
    #[serde(default = "yes")]
    header: bool,
    #[serde(default)]
    subject_mark: String,
    #[serde(default)]
    notify: Vec<NotifyTo>,
    #[serde(default)]
    report: bool,
}

const fn yes() -> bool {
    true
}

impl<'de> Deserialize<'de> for Reaction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if value.is_string() {
            let verdict = Verdict::deserialize(value).map_err(D::Error::custom)?;
            return Ok(verdict.into());
        }
        let Fields {
            verdict,
            text,
            header,
            subject_mark,
            notify,
            report,
        } = Fields::deserialize(value).map_err(D::Error::custom)?;
        Ok(Self {
            verdict,
            text,
            header,
            subject_mark,
            notify,
            report,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (json, said) in [
            ("", "missing field `operation`"),
            (r#"{"operation":"seal"}"#, "unknown variant `seal`"),
            (r#"{"operation":"sign"}"#, "format is missing"),
            (
                r#"{"operation":"verify","onUnsigned":"shrug"}"#,
                "unknown variant `shrug`",
            ),
            (
                r#"{"operation":"verify","onUnsigned":{"verdict":"accept","notifiy":[]}}"#,
                "unknown field `notifiy`",
            ),
        ] {
            let error = Policy::from_json(json).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn nothing_leaves_in_the_clear_by_default() {
        let policy = |json| Policy::from_json(json).unwrap();
        let encrypt = policy(r#"{"operation":"encrypt","format":"openpgp"}"#);
        assert_eq!(
            encrypt.reaction(Failure::MissingKey).verdict,
            Verdict::Reject
        );
        let verify = policy(r#"{"operation":"verify","onUnsigned":{"verdict":"quarantine"}}"#);
        assert_eq!(
            verify.reaction(Failure::Unsigned).verdict,
            Verdict::Quarantine
        );
        let bad = verify.reaction(Failure::BadSignature);
        assert_eq!(
            (bad.verdict, bad.subject_mark.as_str()),
            (Verdict::Accept, "[BAD SIGNATURE] ")
        );
    }
}
