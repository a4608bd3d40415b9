//! One connection to clamd: parts one after the other, each answered before the next.

use std::pin::pin;

use opes_mime::Encoding;
use opes_mime::decode::Decoder;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    BufWriter, ReadHalf, WriteHalf, split,
};

use super::{Failure, Said};

/// Octets of a chunk; each has its length in front of it.
const CHUNK_OCTETS: usize = 64 * 1024;
/// Longest answer, octets.
const ANSWER_OCTETS_MAX: u64 = 4096;
/// Longest text or name that is passed on, characters.
const TEXT_CHARS_MAX: usize = 128;
/// What clamd says of a part beyond its `StreamMaxLength`, before it hangs up.
const SIZE_LIMIT: &str = "INSTREAM size limit exceeded";
/// What it calls a file beyond its other limits, with `AlertExceedsMax`.
const LIMITS_EXCEEDED: &str = "Heuristics.Limits.Exceeded";

/// See the module.
pub(super) struct Session<S> {
    from: BufReader<ReadHalf<S>>,
    to: BufWriter<WriteHalf<S>>,
    /// Parts so far: clamd numbers its answers.
    count: u32,
}

impl<S: AsyncRead + AsyncWrite> Session<S> {
    pub(super) async fn open(stream: S) -> Result<Self, Failure> {
        let (from, to) = split(stream);
        let mut session = Self {
            from: BufReader::new(from),
            to: BufWriter::with_capacity(CHUNK_OCTETS, to),
            count: 0,
        };
        session.to.write_all(b"zIDSESSION\0").await?;
        Ok(session)
    }

    /// What clamd says of this content.
    pub(super) async fn scan(&mut self, body: &[u8], encoding: Encoding) -> Result<Said, Failure> {
        self.count = self.count.wrapping_add(1);
        let Self { from, to, count } = self;
        let mut answer = Vec::new();
        let mut limited = from.take(ANSWER_OCTETS_MAX);
        let mut read = pin!(limited.read_until(0, &mut answer));
        // It may answer before it has everything, and hang up: then its answer counts, not that it could not be written to.
        let early = tokio::select! {
            biased;
            _written = send(to, body, encoding) => None,
            read = &mut read => Some(read),
        };
        match early {
            Some(read) => read?,
            None => read.await?,
        };
        parse(&answer, *count)
    }

    /// Best effort: it has answered everything.
    pub(super) async fn end(mut self) {
        let _gone = self.to.write_all(b"zEND\0").await;
        let _gone = self.to.flush().await;
    }
}

async fn send<W: AsyncWrite + Unpin>(
    to: &mut W,
    body: &[u8],
    encoding: Encoding,
) -> std::io::Result<()> {
    to.write_all(b"zINSTREAM\0").await?;
    let mut decoder = Decoder::new(encoding);
    let mut content = Vec::with_capacity(CHUNK_OCTETS);
    for piece in body.chunks(CHUNK_OCTETS) {
        decoder.push(piece, &mut content);
        chunk(to, &mut content).await?;
    }
    decoder.finish(&mut content);
    chunk(to, &mut content).await?;
    to.write_u32(0).await?;
    to.flush().await
}

/// An empty one would be the end.
async fn chunk<W: AsyncWrite + Unpin>(to: &mut W, content: &mut Vec<u8>) -> std::io::Result<()> {
    if let Ok(size @ 1..) = u32::try_from(content.len()) {
        to.write_u32(size).await?;
        to.write_all(content).await?;
        content.clear();
    }
    Ok(())
}

/// An answer with its final NUL: `1: stream: OK`, `1: stream: NAME FOUND`, or an error.
pub(super) fn parse(answer: &[u8], count: u32) -> Result<Said, Failure> {
    let Some(answer) = answer.strip_suffix(b"\0") else {
        let text = if answer.is_empty() {
            "it hung up"
        } else {
            "its answer is cut off"
        };
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, text).into());
    };
    let text = String::from_utf8_lossy(answer);
    if text.contains(SIZE_LIMIT) {
        tracing::warn!(
            answer = printable(&text),
            "clamd takes no part of that size: raise its StreamMaxLength, or lower clamd.sizeMax to it"
        );
        return Ok(Said::TooMuch);
    }
    let said = text
        .strip_prefix(&format!("{count}: "))
        .and_then(|text| text.strip_prefix("stream: "));
    match said {
        Some("OK") => Ok(Said::Clean),
        Some(said) if said.ends_with(" FOUND") => {
            let name = said.trim_end_matches(" FOUND");
            Ok(if name.starts_with(LIMITS_EXCEEDED) {
                Said::TooMuch
            } else {
                Said::Virus(printable(name))
            })
        }
        _ => Err(Failure::Text(printable(&text))),
    }
}

fn printable(text: &str) -> String {
    let shown = |character: char| match character {
        ' '..='~' => character,
        _ => '?',
    };
    text.chars().take(TEXT_CHARS_MAX).map(shown).collect()
}
