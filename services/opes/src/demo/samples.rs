//! The sample messages of `opes dev --demo`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One message to send.
pub(crate) struct Sample {
    pub(crate) title: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: Vec<String>,
    /// Header and body with CRLF line ends; dots are doubled on sending.
    pub(crate) content: String,
    /// Sent as it stands, without dot-stuffing, to show what the framing does with it.
    pub(crate) raw: bool,
}

/// A dozen, and some.
#[expect(clippy::too_many_lines, reason = "a list")]
pub(crate) fn all() -> Vec<Sample> {
    vec![
        sample(
            "dialog of RFC 4496 §3.1.1",
            "steve@example.org",
            "paul@example.com",
            rfc4496(),
        ),
        sample(
            "clean newsletter",
            "news@example.org",
            "paul@example.com",
            newsletter(),
        ),
        sample(
            "executable attachment",
            "steve@example.org",
            "paul@example.com",
            attachment(
                "your invoice",
                "application/octet-stream",
                "invoice.pdf.exe",
                &executable(),
            ),
        ),
        sample(
            "executable that says it is a photo",
            "steve@example.org",
            "paul@example.com",
            attachment("holiday", "image/jpeg", "beach.jpg", &executable()),
        ),
        sample(
            "executable inside a forwarded message",
            "steve@example.org",
            "paul@example.com",
            forwarded(),
        ),
        sample(
            "EICAR test file",
            "steve@example.org",
            "paul@example.com",
            attachment("test file", "text/plain", "eicar.txt", &eicar()),
        ),
        sample(
            "GTUBE spam test",
            "offers@example.org",
            "paul@example.com",
            text("best offer", GTUBE),
        ),
        sample(
            "denied sender",
            "spammer@example.net",
            "paul@example.com",
            text("hello", "buy now"),
        ),
        two_recipients(),
        sample(
            "recipient with a new address",
            "steve@example.org",
            "joe@example.org",
            text("for Joe", "He moved to France."),
        ),
        Sample {
            title: "over-long address",
            from: "steve@example.org",
            to: vec![format!("{}@example.com", "x".repeat(400))],
            content: text("overflow", "AAAA"),
            raw: false,
        },
        Sample {
            title: "smuggling attempt (bare LF)",
            from: "steve@example.org",
            to: vec!["paul@example.com".into()],
            content: "Subject: one\r\n\r\nfirst\n.\nMAIL FROM:<ceo@example.com>\r\n".into(),
            raw: true,
        },
        sample(
            "8-bit text",
            "steve@example.org",
            "paul@example.com",
            eight_bit(),
        ),
        sample(
            "unwelcome words",
            "offers@example.org",
            "paul@example.com",
            text("for you", "Your casino\r\nbonus is here."),
        ),
        sample(
            "likely spam, by what it shows",
            "offers@example.net",
            "paul@example.com",
            pretender(),
        ),
        sample(
            "two From fields, no Date",
            "steve@example.org",
            "paul@example.com",
            "From: steve@example.org\r\nFrom: ceo@example.com\r\nTo: paul@example.com\r\nSubject: who am I\r\n\r\nBoth of us.\r\n".into(),
        ),
        sample(
            "large attachment",
            "steve@example.org",
            "paul@example.com",
            attachment("film", "video/mp4", "film.mp4", &vec![7; 6 << 20]),
        ),
    ]
}

const GTUBE: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";

fn sample(title: &'static str, from: &'static str, to: &str, content: String) -> Sample {
    Sample {
        title,
        from,
        to: vec![to.into()],
        content,
        raw: false,
    }
}

fn two_recipients() -> Sample {
    Sample {
        title: "two recipients, one of them refused",
        from: "steve@example.org",
        to: vec![
            "former.employee@example.com".into(),
            "paul@example.com".into(),
        ],
        content: text("to both", "One of you is gone."),
        raw: false,
    }
}

fn rfc4496() -> String {
    "From: steve@example.org\r\nTo: sandra@example.com\r\nSubject: Test\r\n\r\nHi, this is a test!\r\n".into()
}

fn text(subject: &str, body: &str) -> String {
    format!(
        "From: steve@example.org\r\nTo: paul@example.com\r\nSubject: {subject}\r\nMessage-ID: <{}@example.org>\r\n\r\n{body}\r\n",
        subject.replace(' ', ".")
    )
}

fn newsletter() -> String {
    "From: News <news@example.org>\r\nTo: paul@example.com\r\nSubject: November\r\nMIME-Version: 1.0\r\n\
     Content-Type: multipart/alternative; boundary=\"alt\"\r\n\r\n--alt\r\nContent-Type: text/plain\r\n\r\nAll is well.\r\n\
     --alt\r\nContent-Type: text/html\r\n\r\n<p>All is <b>well</b>.</p>\r\n--alt--\r\n"
        .into()
}

fn attachment(subject: &str, content_type: &str, name: &str, content: &[u8]) -> String {
    format!(
        "From: steve@example.org\r\nTo: paul@example.com\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"mix\"\r\n\r\n--mix\r\nContent-Type: text/plain\r\n\r\nPlease see attached.\r\n\
         --mix\r\nContent-Type: {content_type}; name=\"{name}\"\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}\r\n--mix--\r\n",
        folded(content)
    )
}

fn forwarded() -> String {
    format!(
        "From: steve@example.org\r\nTo: paul@example.com\r\nSubject: Fwd: tool\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"out\"\r\n\r\n--out\r\nContent-Type: message/rfc822\r\n\r\n{}--out--\r\n",
        attachment(
            "tool",
            "application/octet-stream",
            "setup.exe",
            &executable()
        )
    )
}

/// The name beside the author's address is another address.
fn pretender() -> String {
    "From: \"service@bank.example\" <offers@example.net>\r\nReply-To: <collect@example.org>\r\nTo: undisclosed@example.net\r\nSubject: your account\r\n\r\n\
     Please log in.\r\n"
        .into()
}

fn eight_bit() -> String {
    "From: steve@example.org\r\nTo: paul@example.com\r\nSubject: lunch\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
     Content-Transfer-Encoding: 8bit\r\n\r\nCafé at noon? – yes\r\n"
        .into()
}

/// The smallest thing that is recognised as a Windows program: the MZ and PE headers, no code.
fn executable() -> Vec<u8> {
    let mut image = vec![0_u8; 512];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x80;
    image[0x80..0x84].copy_from_slice(b"PE\0\0");
    image
}

/// The EICAR test string, put together here so that this program is not itself "infected".
pub(crate) fn eicar() -> Vec<u8> {
    [
        "X5O!P%@AP[4\\PZX54(P^)7CC)7}$",
        "EICAR-STANDARD-ANTIVIRUS-TEST-FILE",
        "!$H+H*",
    ]
    .concat()
    .into_bytes()
}

fn folded(content: &[u8]) -> String {
    let encoded = STANDARD.encode(content);
    let lines = encoded.as_bytes().chunks(76).map(String::from_utf8_lossy);
    lines.collect::<Vec<_>>().join("\r\n")
}
