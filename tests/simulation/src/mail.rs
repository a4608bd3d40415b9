//! The messages of a run: what a client sends, and what it may look like when it is delivered.

use opes_host::Random;

/// What the analyser says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Clean,
    /// To be refused for good.
    Bad,
    /// To be held.
    Suspect,
    /// To be refused for now at the first attempt.
    Grey,
    /// To be held for [`SUSPECT_FOR`], refused for [`BAD_FOR`], and delivered to the others.
    Mixed,
}

/// For whom a mixed message is suspect.
pub(crate) const SUSPECT_FOR: &str = "good1@";
/// For whom a mixed message is bad.
pub(crate) const BAD_FOR: &str = "good2@";
/// The one for whom a message is adapted that is adapted apart.
pub(crate) const APART_FOR: &str = "good0@";

/// How the adapter adapts a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// By edits beside the flow.
    Edits,
    /// By a flow of its own that refers to the original.
    Flow,
    /// By a flow of its own that repeats the original.
    Copy,
    /// By a message of its own for [`APART_FOR`]; the others get the original.
    Apart,
}

/// A message that a client wants to get rid of.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    pub(crate) manner: Manner,
    pub(crate) recipients: Vec<String>,
    /// Of the client's first attempt, in milliseconds from the start.
    pub(crate) start_ms: u64,
    body: Vec<u8>,
}

/// One try of a client to hand over a message: (number of the message, number of the try).
pub(crate) type Attempt = (usize, u32);

/// First line of an adapted message.
pub(crate) const ADDED_FIELD: &str = "X-Adapted: yes\r\n";
/// Before and after the body of an adapted message.
pub(crate) const ADDED_HEAD: &str = "[this was checked]\r\n";
pub(crate) const ADDED_TAIL: &str = "[to the very end]\r\n";

/// What a delivered message turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Original,
    Adapted,
    /// Something that nobody may ever see.
    Broken,
}

// === impl Mail ===

impl Mail {
    pub(crate) fn random(number: usize, random: &Random, span_ms: u64) -> Self {
        let kind = match random.below(10) {
            0 => Kind::Bad,
            1 | 2 => Kind::Suspect,
            3 => Kind::Grey,
            4 | 5 => Kind::Mixed,
            _ => Kind::Clean,
        };
        let manner = match random.below(4) {
            0 => Manner::Edits,
            1 => Manner::Flow,
            2 => Manner::Copy,
            _ => Manner::Apart,
        };
        let octets = 1 + match random.below(10) {
            0 => 30_000 + random.below(90_000),
            1..=3 => 2_000 + random.below(12_000),
            _ => random.below(600),
        };
        let mut recipients: Vec<_> = (0..=random.below(3))
            .map(|index| format!("good{index}@example.org"))
            .collect();
        if random.below(4) == 0 {
            recipients.push("nobody@example.org".into());
        }
        Self {
            number,
            kind,
            manner,
            recipients,
            start_ms: random.below(span_ms),
            body: body(octets, random),
        }
    }

    /// Reverse-path of an attempt, which tells it apart at the next hop.
    pub(crate) fn sender((number, attempt): Attempt) -> String {
        format!("s-{number}.{attempt}@example.com")
    }

    /// The attempt that an address made by [`Mail::sender`] belongs to.
    pub(crate) fn attempt_of(sender: &str) -> Option<Attempt> {
        parse_attempt(sender.strip_prefix("s-")?.split('@').next()?)
    }

    /// The octets of one attempt.
    pub(crate) fn original(&self, attempt: u32) -> Vec<u8> {
        let mut octets = self.header(attempt).into_bytes();
        octets.extend_from_slice(&self.body);
        octets
    }

    /// Its recipients are not all treated alike.
    pub(crate) fn is_mixed(&self) -> bool {
        self.kind == Kind::Mixed
    }

    /// What the analyser wants for `recipient`, if it is asked about this attempt.
    pub(crate) fn kind_for(&self, attempt: u32, recipient: &str) -> Kind {
        match self.kind {
            Kind::Grey if attempt > 1 => Kind::Clean,
            Kind::Mixed if recipient.starts_with(SUSPECT_FOR) => Kind::Suspect,
            Kind::Mixed if recipient.starts_with(BAD_FOR) => Kind::Bad,
            Kind::Mixed => Kind::Clean,
            kind => kind,
        }
    }

    /// What the adapter makes of it for `recipient`.
    pub(crate) fn form_for(&self, recipient: &str) -> Form {
        if self.manner == Manner::Apart && !recipient.starts_with(APART_FOR) {
            Form::Original
        } else {
            Form::Adapted
        }
    }

    fn header(&self, attempt: u32) -> String {
        format!(
            "Subject: {:?} {:?}\r\nX-Attempt: {}.{attempt}\r\n\r\n",
            self.kind, self.manner, self.number
        )
    }

    fn adapted(&self, attempt: u32) -> Vec<u8> {
        let mut octets = format!("{ADDED_FIELD}{}{ADDED_HEAD}", self.header(attempt)).into_bytes();
        octets.extend_from_slice(&self.body);
        octets.extend_from_slice(ADDED_TAIL.as_bytes());
        octets
    }

    /// What `octets`, delivered or held for `attempt`, are below the trace fields that the edge puts on top.
    pub(crate) fn form(&self, attempt: u32, octets: &[u8]) -> Form {
        let ours = without_trace(octets);
        if ours == self.original(attempt) {
            Form::Original
        } else if ours == self.adapted(attempt) {
            Form::Adapted
        } else {
            Form::Broken
        }
    }
}

/// The attempt that `octets` belong to, by the header field in them.
pub(crate) fn attempt_in(octets: &[u8]) -> Option<Attempt> {
    let text = String::from_utf8_lossy(octets.get(..2048.min(octets.len()))?).into_owned();
    let (_, rest) = text.split_once("X-Attempt: ")?;
    parse_attempt(rest.lines().next()?)
}

fn parse_attempt(text: &str) -> Option<Attempt> {
    let (number, attempt) = text.split_once('.')?;
    Some((number.parse().ok()?, attempt.parse().ok()?))
}

/// Without the header fields that an edge writes: they are not the client's and not the services'.
fn without_trace(octets: &[u8]) -> Vec<u8> {
    let end = octets.windows(4).position(|four| four == b"\r\n\r\n");
    let (header, body) = octets.split_at(end.map_or(octets.len(), |end| end + 2));
    let mut ours = Vec::with_capacity(octets.len());
    let mut is_trace = false;
    for line in header.split_inclusive(|octet| *octet == b'\n') {
        let starts_with = |start: &&[u8]| line.starts_with(start);
        if ![&b" "[..], b"\t"].iter().any(starts_with) {
            is_trace = [&b"Received:"[..], b"OPES-"].iter().any(starts_with);
        }
        if !is_trace {
            ours.extend_from_slice(line);
        }
    }
    ours.extend_from_slice(body);
    ours
}

/// The subject of a message, which says what a service is to do with it.
pub(crate) fn subject_in(octets: &[u8]) -> Option<String> {
    let mut lines = octets.split(|octet| *octet == b'\n');
    let subject = lines.find_map(|line| line.strip_prefix(b"Subject: "))?;
    Some(String::from_utf8_lossy(subject).trim_end().to_owned())
}

/// Lines of different lengths, some of which begin with a dot.
fn body(octets: u64, random: &Random) -> Vec<u8> {
    let mut body = Vec::new();
    while (body.len() as u64) < octets {
        let dots = if random.below(8) == 0 { "." } else { "" };
        let line = usize::try_from(random.below(70)).unwrap_or(0);
        body.extend_from_slice(format!("{dots}{}{}\r\n", body.len(), "x".repeat(line)).as_bytes());
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_octet_more_or_less_is_broken() {
        let mail = Mail::random(3, &Random::seeded(1), 1000);
        let original = mail.original(2);
        assert_eq!(attempt_in(&original), Some((3, 2)));
        assert_eq!(mail.form(2, &original), Form::Original);
        assert!(subject_in(&original).is_some());
        let traced = [
            b"Received: from x\r\n\tby y\r\nOPES-Via: z\r\n",
            &original[..],
        ]
        .concat();
        assert_eq!(mail.form(2, &traced), Form::Original);
        assert_eq!(mail.form(2, &mail.adapted(2)), Form::Adapted);
        assert_eq!(mail.form(1, &original), Form::Broken);
        assert_eq!(mail.form(2, &original[..original.len() - 1]), Form::Broken);
        let half = [ADDED_FIELD.as_bytes(), &original].concat();
        assert_eq!(mail.form(2, &half), Form::Broken);
        assert_eq!(Mail::attempt_of(&Mail::sender((7, 4))), Some((7, 4)));
    }
}
