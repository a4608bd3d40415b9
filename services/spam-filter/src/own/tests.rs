use opes_proto::smtp::{Address, Auth, Client};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{Config, EngineConfig};

/// Nobody listens there, so whoever asks is told soon.
fn own(more: &Value) -> Own {
    let mut own = json!({
        "authservId": "mx.example.com", "nameservers": ["127.0.0.1:1"], "dnsTimeoutMs": 50, "timeoutMs": 200,
        "dnsbl": [{ "zone": "l.example.net", "name": "L" }],
    });
    let fields = more.as_object().unwrap().clone();
    own.as_object_mut().unwrap().extend(fields);
    let config = Config::from_json(&json!({ "engine": { "own": own } })).unwrap();
    let EngineConfig::Own(config) = config.engine else {
        unreachable!()
    };
    Own::new(&config, Metrics::default()).unwrap()
}

fn context(client: &str, auth: bool) -> Context {
    let address = |address: &str| Address {
        address: address.into(),
        parameters: Vec::new(),
    };
    Context {
        client: Some(Client {
            ip: client.into(),
            port: 4711,
        }),
        helo: "client.example.org".into(),
        auth: auth.then(Auth::default),
        mail_from: Some(address("ann@example.org")),
        recipients: vec![address("bob@example.com")],
        ..Context::default()
    }
}

async fn judge(own: &Own, context: &Context, octets: &[u8]) -> anyhow::Result<Judgement> {
    let mail = Mail {
        context,
        octets: Bytes::copy_from_slice(octets),
        structure: &opes_mime::scan(octets),
        is_whole: true,
    };
    own.judge(mail).await
}

const MESSAGE: &[u8] =
    b"From: ann@example.org\r\nTo: bob@example.com\r\nSubject: a\r\n\r\nbody\r\n";

#[tokio::test]
async fn submitted_and_relayed_mail_is_not_asked_about() {
    let own = own(&json!({ "dnsFailure": "fail", "trustedNetworks": ["2001:db8::/32"] }));
    for context in [
        context("192.0.2.1", true),
        context("2001:db8::1", false),
        Context::default(),
    ] {
        let judgement = judge(&own, &context, MESSAGE).await.unwrap();
        let [(name, field)] = &judgement.added[..] else {
            panic!("{judgement:?}")
        };
        assert_eq!(
            (name.as_str(), field.as_str()),
            (results::NAME, "mx.example.com; none")
        );
        for symbol in ["SPF_", "DKIM_", "DMARC_", "DNSBL_"] {
            assert!(!judgement.status.contains(symbol), "{judgement:?}");
        }
        assert_eq!(
            judgement.annotations,
            [(DKIM_ANNOTATION, "none".to_owned())]
        );
    }
}

#[tokio::test]
async fn dns_that_is_silent_weighs_nothing_and_is_counted() {
    let mut registry = opes_telemetry::metrics::registry::Registry::default();
    let ignores = own(&json!({}));
    ignores.metrics.declare(&mut registry);
    let stranger = context("::ffff:192.0.2.1", false);
    let judgement = judge(&ignores, &stranger, MESSAGE).await.unwrap();
    for symbol in [
        "SPF_TEMPERROR(0.0)",
        "DKIM_NONE(0.5)",
        "DMARC_TEMPERROR(0.0)",
        "DNSBL_L_TEMPERROR(0.0)",
    ] {
        assert!(judgement.status.contains(symbol), "{symbol}: {judgement:?}");
    }
    assert_eq!(judgement.done, Done::Passed);
    let mut shown = String::new();
    prometheus_client::encoding::text::encode(&mut shown, &registry).unwrap();
    for check in ["Spf", "Dmarc", "Dnsbl"] {
        let line = format!("opes_spam_dns_failures_total{{check=\"{check}\"}} 1");
        assert!(shown.contains(&line), "{shown}");
    }

    let fails = own(&json!({ "dnsFailure": "fail" }));
    let error = judge(&fails, &stranger, MESSAGE).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "DNS did not answer for [Spf, Dmarc, Dnsbl]"
    );
}

#[tokio::test]
async fn what_is_configured_is_done() {
    let trusted = context("127.0.0.1", false);
    for (thresholds, done) in [
        (json!({ "mark": 3 }), Done::Passed),
        (json!({ "mark": 1.5 }), Done::Marked { hold: true }),
        (
            json!({ "mark": 1.5, "queue": 3 }),
            Done::Marked { hold: false },
        ),
        (json!({ "mark": 1, "reject": 2 }), Done::Refused(POLICY)),
        (
            json!({ "mark": 1, "reject": null }),
            Done::Marked { hold: true },
        ),
    ] {
        let own = own(&json!({ "thresholds": thresholds }));
        let judgement = judge(&own, &trusted, MESSAGE).await.unwrap();
        // DATE_MISSING and MESSAGE_ID_MISSING.
        assert!(
            (judgement.score - 2.0).abs() < f64::EPSILON,
            "{judgement:?}"
        );
        assert_eq!(judgement.done, done, "{thresholds}");
    }
}

/// What stands beyond the limits is seen by others: here a field in our name, and a signature.
#[tokio::test]
async fn a_header_beyond_the_limits_is_refused() {
    let own = own(&json!({ "trustedNetworks": ["2001:db8::/32"] }));
    let forged = b"Authentication-Results: mx.example.com; dmarc=pass\r\n";
    let fields = b"X:\r\n".repeat(1001);
    let octets = format!("X: {}\r\n", "y".repeat(1024 * 1024)).into_bytes();
    for much in [fields.clone(), octets] {
        let message = [&much[..], forged, MESSAGE].concat();
        for context in [
            context("192.0.2.1", false),
            context("192.0.2.1", true),
            Context::default(),
        ] {
            let judgement = judge(&own, &context, &message).await.unwrap();
            assert_eq!(judgement.done, Done::Never("6.0"), "{judgement:?}");
        }
        let relay = context("2001:db8::1", false);
        let judgement = judge(&own, &relay, &message).await.unwrap();
        assert!(!matches!(judgement.done, Done::Never(_)), "{judgement:?}");
        assert!(
            judgement.status.contains("HEADER_TOO_LARGE(3.0)"),
            "{judgement:?}"
        );
    }
    // Only the message's own header counts.
    let inside = [&b"Content-Type: message/rfc822\r\n\r\n"[..], &fields].concat();
    let judgement = judge(&own, &context("192.0.2.1", true), &inside).await;
    assert!(!judgement.unwrap().status.contains("HEADER_TOO_LARGE"));
}

/// A junk signature and a body beyond `messageSizeMax` do not make a failure go away, unless it could have been the author's.
#[tokio::test]
async fn a_signature_that_is_not_read_hides_no_failure() {
    let own = own(&json!({
        "nameservers": [resolver().await.to_string()], "dnsTimeoutMs": 2000, "timeoutMs": 10000, "dmarcReject": true,
    }));
    let stranger = context("192.0.2.1", false);
    for (signer, done) in [
        ("example.net", Done::Refused(AUTHENTICATION)),
        ("example.org.example.net", Done::Refused(AUTHENTICATION)),
        ("example.org", Done::Passed),
        ("Mail.Example.ORG", Done::Passed),
    ] {
        let signature = format!(
            "DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d={signer}; s=s; h=From; bh=YWJj; b=YWJj\r\n"
        );
        let octets = [signature.as_bytes(), MESSAGE].concat();
        let mail = Mail {
            context: &stranger,
            structure: &opes_mime::scan(&octets),
            octets: octets.into(),
            is_whole: false,
        };
        let judgement = own.judge(mail).await.unwrap();
        assert_eq!(judgement.done, done, "{signer}: {judgement:?}");
    }
}

/// Knows one record, lives as long as the test.
async fn resolver() -> std::net::SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0; 512];
        loop {
            let (octets, client) = socket.recv_from(&mut question).await.unwrap();
            let answer = answer(&question[..octets]);
            socket.send_to(&answer, client).await.unwrap();
        }
    });
    address
}

/// RFC 1035 §4.1: the question, and for `_dmarc.example.org` a TXT record.
fn answer(question: &[u8]) -> Vec<u8> {
    const RECORD: &[u8] = b"\xc0\x0c\0\x10\0\x01\0\0\0\x3c\0\x13\x12v=DMARC1; p=reject";
    let name = question[12..].iter().position(|octet| *octet == 0).unwrap();
    let question_end = 12 + name + 5;
    let asked = question[12..question_end].to_ascii_lowercase();
    let known = asked.starts_with(b"\x06_dmarc\x07example\x03org\0\0\x10");
    let count = [0, u8::from(known), 0, 0, 0, 0];
    let record = if known { RECORD } else { b"" };
    let header = [&question[..2], b"\x81\x80\0\x01", &count].concat();
    [&header[..], &question[12..question_end], record].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_messages_cannot_panic(
        octets in proptest::collection::vec(any::<u8>(), 0..300),
        name in "(From|To|Date|DKIM-Signature|Authentication-Results|X)",
    ) {
        let mut message = format!("{name}:").into_bytes();
        message.extend_from_slice(&octets);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let own = own(&json!({}));
        let judged = runtime.block_on(judge(&own, &context("192.0.2.1", true), &message));
        prop_assert!(judged.is_ok());
    }
}
