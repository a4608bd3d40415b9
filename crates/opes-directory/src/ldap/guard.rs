//! Stands between network and library: lets whole LDAP messages through that are neither too large nor too deep.
//!
//! The library reads messages by recursion and keeps what it reads, without limit: a few kilobytes of nested sequences would end
//! the process, an endless message would fill its memory. What does not look like an answer to one of our operations is kept
//! from it too.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Elements in elements. A value in a search result is the sixth (RFC 4511 §4.5.2).
const DEPTH_MAX: usize = 8;
/// SEQUENCE, constructed (X.690 §8.9).
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
/// Controls (RFC 4511 §4.1.1).
const CONTROLS: u8 = 0xa0;
/// Set in the tags of what has elements within.
const CONSTRUCTED: u8 = 0x20;
/// The answers there are: bind, entry, end of search, reference, extended (RFC 4511 §4.2.2, §4.5.2, §4.5.3, §4.12).
const ANSWERS: [u8; 5] = [0x61, 0x64, 0x65, 0x73, EXTENDED_RESPONSE];
pub(super) const EXTENDED_RESPONSE: u8 = 0x78;

/// What one connection may still bring, and why it was ended.
#[derive(Debug, Default)]
pub(super) struct Guard {
    octets_left: AtomicUsize,
    fault: OnceLock<Fault>,
}

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// By the server, or the network.
    Closed,
    TooLarge,
    TooDeep,
    Malformed,
}

/// One element: tag, content, and what is behind it.
type Element<'a> = (u8, &'a [u8], &'a [u8]);

// === impl Guard ===

impl Guard {
    /// So many octets may come now.
    pub(super) fn allow(&self, octets: usize) {
        self.octets_left.store(octets, Ordering::Release);
    }

    /// Why the connection was ended, if this did it.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    /// Until a message must not pass, or either side is gone.
    pub(super) async fn pass<R, W>(&self, network: &mut R, library: &mut W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            // Not before a message has begun: while nothing comes, another look-up begins, with octets of its own.
            let left = || self.octets_left.load(Ordering::Acquire);
            let message = match read_message(network, left).await {
                Ok(message) => message,
                Err(fault) => {
                    let _set_already = self.fault.set(fault);
                    return;
                }
            };
            let left = left().saturating_sub(message.len());
            self.octets_left.store(left, Ordering::Release);
            if library.write_all(&message).await.is_err() {
                return;
            }
        }
    }
}

// === impl Fault ===

impl Fault {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Closed => "the connection was closed",
            Self::TooLarge => "more than sizeMax octets; narrow the filter, or raise it",
            Self::TooDeep | Self::Malformed => "what it says is not LDAP",
        }
    }
}

/// One LDAP message, not an octet more. `octets_max`: of the whole; asked for when its length is known.
pub(super) async fn read_message<R: AsyncRead + Unpin>(
    reader: &mut R,
    octets_max: impl Fn() -> usize,
) -> Result<Vec<u8>, Fault> {
    let mut message = vec![0; 2];
    read(reader, &mut message, 0).await?;
    let [tag, first] = message[..] else {
        return Err(Fault::Malformed);
    };
    if tag != SEQUENCE {
        return Err(Fault::Malformed);
    }
    // Definite lengths only (RFC 4511 §5.1).
    let more = length_octets(first).ok_or(Fault::Malformed)?;
    message.resize(2 + more, 0);
    read(reader, &mut message, 2).await?;
    let length = length(message.get(1..).unwrap_or_default()).ok_or(Fault::Malformed)?;
    let head = message.len();
    if length > octets_max().saturating_sub(head) {
        return Err(Fault::TooLarge);
    }
    message.resize(head + length, 0);
    read(reader, &mut message, head).await?;
    check(message.get(head..).unwrap_or_default())?;
    Ok(message)
}

async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
    message: &mut [u8],
    from: usize,
) -> Result<(), Fault> {
    let missing = message.get_mut(from..).unwrap_or_default();
    reader
        .read_exact(missing)
        .await
        .map(|_| ())
        .map_err(|_| Fault::Closed)
}

/// Is this the content of an answer?
fn check(content: &[u8]) -> Result<(), Fault> {
    let (id, number, rest) = element(content).ok_or(Fault::Malformed)?;
    let (answer, _, rest) = element(rest).ok_or(Fault::Malformed)?;
    let is_answer = id == INTEGER && (1..=4).contains(&number.len()) && ANSWERS.contains(&answer);
    let is_end = match rest {
        [] => true,
        [CONTROLS, ..] => matches!(element(rest), Some((_, _, []))),
        _ => false,
    };
    if !is_answer || !is_end {
        return Err(Fault::Malformed);
    }
    walk(content, 1)
}

/// Bounded by [`DEPTH_MAX`].
fn walk(mut content: &[u8], depth: usize) -> Result<(), Fault> {
    while !content.is_empty() {
        let (tag, inner, rest) = element(content).ok_or(Fault::Malformed)?;
        if tag & CONSTRUCTED != 0 {
            if depth == DEPTH_MAX {
                return Err(Fault::TooDeep);
            }
            walk(inner, depth + 1)?;
        }
        content = rest;
    }
    Ok(())
}

/// The first element.
pub(super) fn element(octets: &[u8]) -> Option<Element<'_>> {
    let (tag, rest) = octets.split_first()?;
    let more = length_octets(*rest.first()?)?;
    let (head, rest) = rest.split_at_checked(1 + more)?;
    let (content, rest) = rest.split_at_checked(length(head)?)?;
    Some((*tag, content, rest))
}

/// How many octets of length follow the first one; none for the indefinite form, and for lengths that nobody needs.
fn length_octets(first: u8) -> Option<usize> {
    match first {
        0..=0x7f => Some(0),
        0x81..=0x84 => Some(usize::from(first - 0x80)),
        0x80 | 0x85..=0xff => None,
    }
}

fn length(head: &[u8]) -> Option<usize> {
    match head {
        [short] => Some(usize::from(*short)),
        [_, long @ ..] => Some(
            long.iter()
                .fold(0, |length, octet| (length << 8) | usize::from(*octet)),
        ),
        [] => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
