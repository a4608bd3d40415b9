//! Against a server that says what it is told to, over loopback.

use std::net::SocketAddr;

use clap::Parser as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::cli::{Cli, Command};

fn args(server: SocketAddr, more: &[&str]) -> SendArgs {
    let port = server.port().to_string();
    let mut line = vec![
        "opes",
        "send",
        "--server",
        "127.0.0.1",
        "--port",
        &port,
        "--from",
        "ann@example.org",
        "--to",
        "paul@example.com",
        "--patience",
        "20",
    ];
    line.extend(more);
    match Cli::parse_from(line).command {
        Command::Send(args) => args,
        other => panic!("{other:?}"),
    }
}

/// Takes one connection and answers RCPT and the end of data with these; gives the content.
async fn server(listener: TcpListener, rcpt: &'static str, end: &'static str) -> Vec<String> {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut content = Vec::new();
    say(&mut stream, "220 mx.example.com").await;
    while let Some(line) = line(&mut stream).await {
        let verb = line.split(' ').next().unwrap_or_default().to_owned();
        match verb.as_str() {
            "RCPT" => say(&mut stream, rcpt).await,
            "DATA" if rcpt.starts_with('2') => {
                say(&mut stream, "354 go on").await;
                while let Some(line) = self::line(&mut stream).await.filter(|line| line != ".") {
                    content.push(line);
                }
                say(&mut stream, end).await;
            }
            "DATA" => say(&mut stream, "503 5.5.1 no recipient").await,
            "QUIT" => break,
            _ => say(&mut stream, "250 ok").await,
        }
    }
    content
}

async fn say(stream: &mut BufReader<TcpStream>, line: &str) {
    stream
        .write_all(format!("{line}\r\n").as_bytes())
        .await
        .unwrap();
}

async fn line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let count = stream.read_line(&mut line).await.ok()?;
    (count > 0).then(|| line.trim_end_matches("\r\n").to_owned())
}

async fn verdict(rcpt: &'static str, end: &'static str, expect: &str) -> (bool, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let args = args(listener.local_addr().unwrap(), &["--expect", expect]);
    let (code, content) = tokio::join!(run(args), server(listener, rcpt, end));
    (code.unwrap() == ExitCode::SUCCESS, content)
}

#[tokio::test]
async fn a_message_arrives_whole_and_its_reply_decides() {
    let (met, content) = verdict("250 2.1.5 ok", "250 2.6.0 queued", "2").await;
    assert!(met);
    assert_eq!(content.first().unwrap(), "From: <ann@example.org>");
    assert!(
        content
            .iter()
            .any(|line| line.ends_with(" +0000") && line.starts_with("Date: "))
    );
    assert_eq!(content.last().unwrap(), "Sent with `opes send`.");
    assert!(!verdict("250 2.1.5 ok", "451 4.3.0 later", "2").await.0);
    assert!(verdict("250 2.1.5 ok", "451 4.3.0 later", "4").await.0);
}

#[tokio::test]
async fn a_refusal_can_be_what_is_expected() {
    assert!(verdict("550 5.7.1 not here", "", "5").await.0);
    assert!(!verdict("550 5.7.1 not here", "", "2").await.0);
    assert!(!verdict("250 2.1.5 ok", "250 2.6.0 queued", "5").await.0);
}

#[tokio::test]
async fn a_connection_closed_without_a_word_is_an_answer_too() {
    for (expect, met) in [("closed", true), ("2", false), ("4", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let args = args(listener.local_addr().unwrap(), &["--expect", expect]);
        let close = async {
            drop(listener.accept().await.unwrap());
        };
        let (code, ()) = tokio::join!(run(args), close);
        assert_eq!(code.unwrap() == ExitCode::SUCCESS, met, "{expect}");
    }
}

#[test]
fn a_date_field_is_as_rfc_5322_has_it() {
    assert_eq!(time::date_field(0), "1 Jan 1970 00:00:00 +0000");
    assert_eq!(
        time::date_field(951_827_696_000),
        "29 Feb 2000 12:34:56 +0000"
    );
}
