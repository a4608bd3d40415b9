//! What is wrong with a certificate, in words for whoever is paged: a clause that follows "the certificate", and what to do.

use std::path::Path;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error};
use rustls_pki_types::{ServerName, UnixTime};

/// Names that are listed of a certificate that is for others.
const NAMES_MAX: usize = 8;

/// A clause ("expired 3 h ago") and its remedy, without full stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong, to follow "the certificate".
    pub clause: String,
    /// What to do about it.
    pub remedy: String,
}

/// Why the other end's certificate was not accepted. `ca`: the file of the authorities.
pub fn complaint(error: &CertificateError, ca: &Path) -> Complaint {
    use CertificateError as E;
    let (clause, remedy) = match error {
        E::NotValidForNameContext {
            expected,
            presented,
        } => not_for(expected, presented),
        E::ExpiredContext { time, not_after } => (
            format!("expired {} ago", span(*not_after, *time)),
            "renew it, or set the clock that is wrong".to_owned(),
        ),
        E::NotValidYetContext { time, not_before } => (
            format!("is not valid for another {}", span(*time, *not_before)),
            "set the clock that is wrong, or wait".to_owned(),
        ),
        E::UnknownIssuer | E::BadSignature => (
            format!("is not signed by {}", ca.display()),
            "put the authority that signed it into that file, or have it signed by one that is there"
                .to_owned(),
        ),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => (
            "may not be used for this end of TLS (extended key usage)".to_owned(),
            "have it made with serverAuth for services and clientAuth for edges".to_owned(),
        ),
        other if other.to_string().contains("CaUsedAsEndEntity") => (
            "is an authority's own".to_owned(),
            "have one signed by the authority; one made with `openssl req -x509` alone is an authority"
                .to_owned(),
        ),
        other => (
            format!("cannot be used: {other}"),
            "make another one; docs/operate/callout-tls.md says how".to_owned(),
        ),
    };
    Complaint { clause, remedy }
}

/// Why the other end did not accept ours, as far as its alert says. `None`: the alert says something else.
pub fn refusal(error: &Error) -> Option<Complaint> {
    use AlertDescription as A;
    let Error::AlertReceived(alert) = error else {
        return None;
    };
    let (clause, remedy) = match alert {
        A::UnknownCA => (
            "is not signed by an authority that the other end knows",
            "put its authority into the other end's client CA file",
        ),
        A::CertificateExpired => ("expired", "renew it"),
        A::CertificateRequired => (
            "is missing: the other end wants one",
            "configure certificate and key",
        ),
        A::CertificateRevoked => ("was revoked", "have another one made"),
        // What OpenSSL says of a signature that is not its authority's, rustls of a key usage.
        A::BadCertificate | A::UnsupportedCertificate | A::CertificateUnknown => (
            "was refused by the other end",
            "see the other end's log; must it have clientAuth, or come from another authority?",
        ),
        A::AccessDenied | A::DecryptError => {
            ("was refused by the other end", "see the other end's log")
        }
        _ => return None,
    };
    Some(Complaint {
        clause: format!("{clause} ({alert:?})"),
        remedy: remedy.to_owned(),
    })
}

fn not_for(expected: &ServerName<'_>, presented: &[String]) -> (String, String) {
    let expected = expected.to_str();
    if presented.is_empty() {
        return (
            format!("is not for name {expected} (it names nobody)"),
            "have one made with subjectAltName; a common name does not count (RFC 9525 §2)"
                .to_owned(),
        );
    }
    let names: Vec<&str> = presented.iter().take(NAMES_MAX).map(|n| bare(n)).collect();
    (
        format!(
            "is not for name {expected} (it is for {})",
            names.join(", ")
        ),
        format!(
            "set transport.serverName to a name that it is for, or have one made for {expected}"
        ),
    )
}

/// `DnsName("z")` and `IpAddress(192.0.2.1)` are Rust's way of putting it.
fn bare(name: &str) -> &str {
    let inner = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// `50 s`, `12 min`, `3 h`, `40 d`.
fn span(from: UnixTime, to: UnixTime) -> String {
    let seconds = Duration::from_secs(to.as_secs().saturating_sub(from.as_secs())).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn clause(error: &CertificateError) -> String {
        complaint(error, Path::new("ca.pem")).clause
    }

    #[test]
    fn clauses() {
        let expired = CertificateError::ExpiredContext {
            time: at(20_000),
            not_after: at(20_000 - 3 * 3_600),
        };
        assert_eq!(clause(&expired), "expired 3 h ago");
        let name = |presented: &[&str]| CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("y.example.com").unwrap(),
            presented: presented.iter().map(|&name| name.to_owned()).collect(),
        };
        assert_eq!(
            clause(&name(&[
                "DnsName(\"z.example.com\")",
                "IpAddress(192.0.2.1)"
            ])),
            "is not for name y.example.com (it is for z.example.com, 192.0.2.1)"
        );
        assert_eq!(
            clause(&name(&[])),
            "is not for name y.example.com (it names nobody)"
        );
        assert_eq!(
            clause(&CertificateError::UnknownIssuer),
            "is not signed by ca.pem"
        );
        let early = CertificateError::NotValidYetContext {
            time: at(0),
            not_before: at(90),
        };
        assert_eq!(clause(&early), "is not valid for another 90 s");
    }

    #[test]
    fn spans() {
        for (seconds, text) in [(0, "0 s"), (121, "2 min"), (7_200, "2 h"), (172_800, "2 d")] {
            assert_eq!(span(at(0), at(seconds)), text);
        }
        assert_eq!(span(at(9), at(3)), "0 s");
    }

    #[test]
    fn an_alert_about_something_else_is_no_refusal() {
        let alert = Error::AlertReceived(AlertDescription::UnknownCA);
        assert!(refusal(&alert).unwrap().clause.contains("UnknownCA"));
        assert_eq!(
            refusal(&Error::AlertReceived(AlertDescription::InternalError)),
            None
        );
    }
}
