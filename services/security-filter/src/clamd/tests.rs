use opes_mime::Encoding;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream as Stream};

use super::session::parse;
use super::*;

fn clamd(folder: &tempfile::TempDir, timeout_ms: u64) -> Clamd {
    let address = format!("unix:{}/clamd", folder.path().display());
    let config =
        serde_json::json!({ "address": address, "timeoutMs": timeout_ms, "sizeMax": 1_000_000 });
    Clamd::new(&serde_json::from_value(config).unwrap()).unwrap()
}

fn leaf(path: &str, body: std::ops::Range<usize>, encoding: Encoding) -> Leaf {
    let (path, name) = (path.to_owned(), String::new());
    Leaf {
        path,
        name,
        body,
        encoding,
    }
}

/// A clamd that says these answers, and what it was sent.
fn answers(
    folder: &tempfile::TempDir,
    said: &'static [&'static str],
) -> tokio::task::JoinHandle<Vec<Vec<u8>>> {
    let listener = UnixListener::bind(folder.path().join("clamd")).unwrap();
    tokio::spawn(async move {
        let mut seen = Vec::new();
        let (mut stream, _) = listener.accept().await.unwrap();
        expect(&mut stream, b"zIDSESSION\0").await;
        for answer in said {
            expect(&mut stream, b"zINSTREAM\0").await;
            let mut content = Vec::new();
            loop {
                let size = stream.read_u32().await.unwrap() as usize;
                if size == 0 {
                    break;
                }
                let start = content.len();
                content.resize(start + size, 0);
                stream.read_exact(&mut content[start..]).await.unwrap();
            }
            seen.push(content);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        seen
    })
}

async fn expect(stream: &mut Stream, octets: &[u8]) {
    let mut read = vec![0; octets.len()];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(read, octets);
}

#[tokio::test]
async fn parts_are_sent_decoded_and_answers_belong_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let server = answers(
        &folder,
        &["1: stream: Some.Thing-1 FOUND\0", "2: stream: OK\0"],
    );
    let mut clamd = clamd(&folder, 10_000);
    // One connection: the order is that of the parts from the last one on.
    clamd.connections = Arc::new(Semaphore::new(1));
    let message = Bytes::from_static(b"plain text aGVsbG8=");
    let leaves = vec![
        leaf("1", 0..10, Encoding::SevenBit),
        leaf("2", 11..19, Encoding::Base64),
        leaf("3", 0..2_000_000, Encoding::Binary),
    ];
    let found = clamd.scan(&message, leaves).await.unwrap();
    let labels: Vec<_> = found
        .iter()
        .map(|it| (it.path.as_str(), it.cause.clone()))
        .collect();
    let too_large = Cause::Unseen(Unseen::Scanner(1_000_000));
    assert_eq!(
        labels,
        [("3", too_large), ("2", Cause::Virus("Some.Thing-1".into()))]
    );
    assert_eq!(
        server.await.unwrap(),
        [b"hello".to_vec(), b"plain text".to_vec()]
    );
}

#[tokio::test]
async fn no_answer_is_never_clean() {
    for (said, expected) in [
        (&["1: stream: OK"][..], "cut off"),
        (&[""], "hung up"),
        (&["2: stream: OK\0"], "says: 2: stream: OK"),
        (&["COMMAND READ TIMED OUT\0"], "TIMED OUT"),
        (
            &["1: stream: Can't allocate memory ERROR\0"],
            "allocate memory",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let _server = answers(&folder, said);
        let asked = clamd(&folder, 10_000);
        let message = Bytes::from_static(b"x");
        let scanned = asked.scan(&message, vec![leaf("", 0..1, Encoding::SevenBit)]);
        let error = scanned.await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let missing = clamd(&folder, 10_000);
    let leaves = || vec![leaf("", 0..1, Encoding::SevenBit)];
    let error = missing
        .scan(&Bytes::from_static(b"x"), leaves())
        .await
        .unwrap_err();
    assert!(matches!(error, ClamdError::Unreachable { .. }), "{error}");
    let _silent = UnixListener::bind(folder.path().join("clamd")).unwrap();
    let hasty = clamd(&folder, 50);
    let error = hasty
        .scan(&Bytes::from_static(b"x"), leaves())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("clamd.timeoutMs"), "{error}");
}

#[test]
fn answers_are_read_strictly() {
    let said = |text: &str| parse(text.as_bytes(), 7);
    assert_eq!(said("7: stream: OK\0").unwrap(), Said::Clean);
    assert_eq!(
        said("7: stream: A FOUND\0").unwrap(),
        Said::Virus("A".into())
    );
    for text in [
        "INSTREAM size limit exceeded. ERROR\0",
        "7: INSTREAM size limit exceeded. ERROR\0",
        "7: stream: Heuristics.Limits.Exceeded.MaxScanTime FOUND\0",
    ] {
        assert_eq!(said(text).unwrap(), Said::TooMuch);
    }
    for text in [
        "",
        "\0",
        "8: stream: OK\0",
        "stream: OK\0",
        "7: stream: ok\0",
        "7: stream: OK OK\0",
    ] {
        assert!(said(text).is_err(), "{text}");
    }
}

#[test]
fn where_mail_may_go() {
    for (address, fits) in [
        ("unix:/run/clamav/clamd.ctl", true),
        ("127.0.0.1:3310", true),
        ("[::1]:3310", true),
        ("localhost:3310", true),
        ("unix:clamd.ctl", false),
        ("127.0.0.1", false),
        (":3310", false),
        ("scan.example.com:3310", false),
        ("192.0.2.1:3310", false),
    ] {
        let config = |open: bool| {
            let config = serde_json::json!({ "address": address, "insecurePlaintext": open });
            serde_json::from_value::<ClamdConfig>(config)
                .unwrap()
                .place()
        };
        assert_eq!(config(false).is_ok(), fits, "{address}");
        let names_another = ["scan.example.com:3310", "192.0.2.1:3310"].contains(&address);
        assert_eq!(config(true).is_ok(), fits || names_another, "{address}");
    }
}

proptest! {
    #[test]
    fn any_answer_is_read(octets in proptest::collection::vec(any::<u8>(), 0..300), count in any::<u32>()) {
        let _said = parse(&octets, count);
        let clean = parse(&octets, count).is_ok_and(|said| said == Said::Clean);
        let only = format!("{count}: stream: OK\0").into_bytes();
        prop_assert!(!clean || octets == only);
    }
}
