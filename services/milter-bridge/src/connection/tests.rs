use proptest::prelude::*;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::Config;

/// Continue with all actions and nothing left out.
const NEGOTIATED: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\0\0\0";
const CONTINUE: &[u8] = b"\0\0\0\x01c";
const PROGRESS: &[u8] = b"\0\0\0\x01p";

const LIMIT: Duration = Duration::from_secs(10);

/// A milter that takes a packet and says `replies`, one to each packet, and then closes.
async fn milter(replies: Vec<Vec<u8>>) -> Settings {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for reply in replies {
            packet(&mut stream).await;
            stream.write_all(&reply).await.unwrap();
        }
    });
    let json = json!({
        "endpoint": format!("inet:127.0.0.1:{port}"),
        "connectTimeoutMs": 5000,
    });
    Config::from_json(&json).unwrap().settings().unwrap()
}

async fn packet(stream: &mut TcpStream) {
    let size = stream.read_u32().await.unwrap();
    let mut octets = vec![0; usize::try_from(size).unwrap()];
    stream.read_exact(&mut octets).await.unwrap();
}

async fn refusal(replies: &[&[u8]]) -> String {
    let replies = replies.iter().map(|reply| reply.to_vec()).collect();
    let settings = milter(replies).await;
    match talk(&settings, LIMIT).await {
        Ok(verdict) => format!("{verdict:?}"),
        Err(error) => error.to_string(),
    }
}

async fn talk(settings: &Settings, limit: Duration) -> Result<Verdict, MilterError> {
    let mut connection = Connection::open(settings).await?;
    let connect = Command::Connect {
        name: "[192.0.2.1]",
        address: opes_milter::ClientAddress::Unknown,
    };
    connection.say(&connect, &Macros::default(), limit).await
}

#[tokio::test]
async fn what_is_no_milter_is_told_from_one_that_goes() {
    for (replies, said) in [
        (&[NEGOTIATED, CONTINUE][..], "Continue"),
        (
            &[b"220 mail.example.com ESMTP\r\n"],
            "does a milter listen there?",
        ),
        (&[b"\0\0\0\0"], "does a milter listen there?"),
        (
            &[CONTINUE],
            "is no reply to what was sent last (Negotiating)",
        ),
        (&[&NEGOTIATED[..9]], "the milter closed the connection"),
        (&[NEGOTIATED, b""], "the milter closed the connection"),
        (&[NEGOTIATED, b"\0\0\0\x03qa\0"], "SMFIR_QUARANTINE"),
        (&[NEGOTIATED, b"\0\0\0\x01?"], "unknown code 0x3f"),
    ] {
        let refusal = refusal(replies).await;
        assert!(refusal.contains(said), "{said}: {refusal}");
    }
    let settings = milter(Vec::new()).await;
    let nobody = Settings {
        endpoint: "unix:/nonexistent/socket".parse().unwrap(),
        ..settings
    };
    let error = talk(&nobody, LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("unix:/nonexistent/socket"), "{error}");
}

#[tokio::test]
async fn progress_begins_time_anew_and_silence_ends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for (reports, verdict) in [(8, CONTINUE), (1, b"")] {
            let (mut stream, _) = listener.accept().await.unwrap();
            packet(&mut stream).await;
            stream.write_all(NEGOTIATED).await.unwrap();
            packet(&mut stream).await;
            for _ in 0..reports {
                tokio::time::sleep(Duration::from_millis(500)).await;
                stream.write_all(PROGRESS).await.unwrap();
            }
            stream.write_all(verdict).await.unwrap();
            // Until the other side has enough.
            let _end = stream.read_u8().await;
        }
    });
    let json = json!({ "endpoint": format!("inet:127.0.0.1:{port}") });
    let settings = Config::from_json(&json).unwrap().settings().unwrap();
    // Less than the eight reports take, and much more than is between two of them, even on a busy machine.
    let limit = Duration::from_secs(3);
    assert_eq!(talk(&settings, limit).await.unwrap(), Verdict::Continue);
    let late = talk(&settings, limit).await.unwrap_err();
    assert!(matches!(late, MilterError::Timeout(_)), "{late}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_comes_is_an_answer_or_an_error(octets in proptest::collection::vec(any::<u8>(), 0..300), negotiated in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let first = if negotiated { NEGOTIATED.to_vec() } else { octets.clone() };
            let settings = milter(vec![first, octets]).await;
            let _either = talk(&settings, LIMIT).await;
        });
    }
}
