//! The session: what scripts cannot say. Arbitrary input in arbitrary pieces, and the contract with the shell.

mod contract;
mod prdr;
mod table;

use proptest::prelude::*;

use crate::dialog::Settings;
use crate::dialog::core::Player;
use crate::server::{AuthMode, Protocol};

/// What came of a dialog.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    output: Vec<u8>,
    accepted: Vec<Vec<u8>>,
    closed: bool,
}

fn play(settings: &Settings, octets: &[u8], piece: usize) -> Outcome {
    let mut player = Player::new(settings);
    player.pump().unwrap();
    player.send(octets, piece).unwrap();
    let output = player.take_output().to_vec();
    let accepted = player.accepted().map(<[u8]>::to_vec).collect();
    Outcome {
        output,
        accepted,
        closed: player.is_closed(),
    }
}

fn settings(protocol: Protocol) -> Settings {
    let mut settings = Settings::default();
    settings.config.protocol = protocol;
    settings.config.size_max = 64;
    settings.config.recipients_max = 2;
    settings.config.prdr = true;
    settings.config.auth = AuthMode::TlsOnly;
    settings.implicit_tls = true;
    settings.users.push(("tim".to_owned(), "sesame".to_owned()));
    settings
}

/// Fragments of dialogs, good and bad, so that deep states are reached.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        &b"EHLO client.example.org\r\n"[..],
        b"LHLO client.example.org\r\n",
        b"MAIL FROM:<a@example.org>\r\n",
        b"MAIL FROM:<a@example.org> SIZE=70\r\n",
        b"MAIL FROM:<a@example.org> PRDR\r\n",
        b"MAIL FROM:<a@example.org> OPESBYPASS=*\r\n",
        b"RCPT TO:<b@example.com>\r\n",
        b"RCPT TO:<\r\n",
        b"DATA\r\n",
        b"Subject: x\r\n\r\nbody\r\n.\r\n",
        b"..\r\n",
        b".\r\n",
        b"\n.\r\n",
        b"\r",
        b"\n",
        b"BDAT 5\r\n",
        b"BDAT 7 LAST\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT x\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"STARTTLS\r\n",
        b"AUTH PLAIN\r\n",
        b"AUTH LOGIN dGlt\r\n",
        b"c2VzYW1l\r\n",
        b"AUTH PLAIN AHRpbQBzZXNhbWU=\r\n",
        b"QUIT\r\n",
    ]);
    prop_oneof![
        8 => known.prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => Just(vec![b'x'; 2100]),
    ]
}

/// Lines of a body: any octets but CR and LF.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![3 => any::<u8>(), 1 => Just(b'.')];
    let line = prop::collection::vec(
        octet.prop_filter("line end", |b| !matches!(b, b'\r' | b'\n')),
        0..12,
    );
    prop::collection::vec(line, 0..12).prop_map(|lines| {
        lines
            .iter()
            .flat_map(|line| [line, &b"\r\n"[..]].concat())
            .collect()
    })
}

/// RFC 5321 §4.5.2, the sender's side.
fn stuff(body: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::new();
    for line in body.split_inclusive(|octet| *octet == b'\n') {
        if line.first() == Some(&b'.') {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed
}

const ENVELOPE: &[u8] =
    b"EHLO client.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn outcome_does_not_depend_on_how_octets_arrive(
        fragments in prop::collection::vec(fragment(), 0..24),
        lmtp: bool,
        piece in 1_usize..50,
    ) {
        let settings = settings(if lmtp { Protocol::Lmtp } else { Protocol::Smtp });
        let octets = fragments.concat();
        let whole = play(&settings, &octets, usize::MAX);
        prop_assert_eq!(play(&settings, &octets, piece), whole);
    }

    #[test]
    fn content_of_data_arrives_unchanged(body in body(), piece in 1_usize..200) {
        let octets = [ENVELOPE, b"DATA\r\n", &stuff(&body), b".\r\nQUIT\r\n"].concat();
        let outcome = play(&Settings::default(), &octets, piece);
        prop_assert_eq!(outcome.accepted, [body]);
        prop_assert!(outcome.closed);
    }

    #[test]
    fn content_of_chunks_arrives_unchanged(
        body in body(),
        chunk in 1_usize..40,
        piece in 1_usize..200,
    ) {
        let mut octets = ENVELOPE.to_vec();
        for part in body.chunks(chunk) {
            octets.extend([format!("BDAT {}\r\n", part.len()).as_bytes(), part].concat());
        }
        octets.extend_from_slice(b"BDAT 0 LAST\r\nQUIT\r\n");
        let outcome = play(&Settings::default(), &octets, piece);
        prop_assert_eq!(outcome.accepted, [body]);
        prop_assert!(outcome.closed);
    }
}
