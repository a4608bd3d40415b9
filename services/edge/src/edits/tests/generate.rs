//! Messages and changes of every shape that mail has, in a form that shrinks.

use opes_proto::smtp;
use opes_proto::smtp::edit::Kind;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::naive::Message;

/// What one adapter says: another flow, then edits.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) flow: Option<Vec<Piece>>,
    pub(super) edits: Vec<Wish>,
}

/// Of an adapted flow.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Range(Index, Index),
    Octets(Vec<u8>),
}

/// An edit whose offsets and paths are chosen when the message is known.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    Field(smtp::Edit),
    Splice {
        offset: Index,
        size: u64,
        octets: Vec<u8>,
    },
    Part {
        path: Index,
        text: String,
        name: String,
    },
    Body(String),
}

impl Step {
    /// Octets may be cut anywhere, also in what says how the parts lie.
    fn cuts(&self) -> bool {
        self.flow.is_some()
            || self
                .edits
                .iter()
                .any(|wish| matches!(wish, Wish::Splice { .. }))
    }

    fn forget_parts(&mut self) {
        self.edits
            .retain(|wish| !matches!(wish, Wish::Part { .. } | Wish::Body(_)));
    }
}

impl Wish {
    /// Mostly fits the message; sometimes a little beyond it.
    pub(super) fn edit(&self, octets: &[u8]) -> smtp::Edit {
        let kind = match self {
            Self::Field(edit) => return edit.clone(),
            Self::Splice {
                offset,
                size,
                octets: new,
            } => Kind::Splice(smtp::Splice {
                offset: offset.index(octets.len() + 2) as u64,
                size: *size,
                replacement: new.clone().into(),
            }),
            Self::Part { path, text, name } => {
                let message = Message::read(octets);
                let paths = message.entities.iter().map(|entity| entity.path.clone());
                let paths: Vec<String> = paths.chain(["9.9".to_owned()]).collect();
                Kind::PartReplace(smtp::PartReplace {
                    path: paths[path.index(paths.len())].clone(),
                    text: text.clone(),
                    name: name.clone(),
                })
            }
            Self::Body(text) => Kind::BodyMark(smtp::BodyMark { text: text.clone() }),
        };
        smtp::Edit { kind: Some(kind) }
    }
}

// === Messages ===

#[derive(Debug, Clone)]
enum Body {
    Text {
        kind: &'static str,
        encoding: &'static str,
        attached: bool,
        lines: Vec<Vec<u8>>,
    },
    Several {
        kind: &'static str,
        children: Vec<Part>,
        preamble: bool,
        closed: bool,
    },
    Message(Box<Part>),
}

#[derive(Debug, Clone)]
struct Part {
    fields: Vec<Vec<u8>>,
    empty_line: bool,
    body: Body,
}

/// Line ends: CRLF, LF, or now one, now the other.
#[derive(Debug, Clone, Copy)]
enum Ends {
    Crlf,
    Lf,
    Mixed,
}

struct Printer {
    octets: Vec<u8>,
    ends: Ends,
    lines: usize,
    boundaries: usize,
}

impl Printer {
    fn line(&mut self, text: &[u8]) {
        self.octets.extend_from_slice(text);
        self.lines += 1;
        let lf = match self.ends {
            Ends::Crlf => false,
            Ends::Lf => true,
            Ends::Mixed => self.lines.is_multiple_of(3),
        };
        self.octets
            .extend_from_slice(if lf { b"\n" } else { b"\r\n" });
    }

    fn part(&mut self, part: &Part) {
        for field in &part.fields {
            self.line(field);
        }
        let boundary = format!("b{}", self.boundaries + 1);
        match &part.body {
            Body::Text {
                kind,
                encoding,
                attached,
                ..
            } => {
                for (name, value) in [
                    ("Content-Type", *kind),
                    ("content-transfer-encoding", *encoding),
                ] {
                    if !value.is_empty() {
                        self.line(format!("{name}: {value}").as_bytes());
                    }
                }
                if *attached {
                    self.line(b"Content-Disposition: attachment");
                }
            }
            Body::Several { kind, .. } => {
                self.boundaries += 1;
                self.line(format!("Content-Type: multipart/{kind};").as_bytes());
                self.line(format!("\tboundary=\"{boundary}\"").as_bytes());
            }
            Body::Message(_) => self.line(b"CONTENT-TYPE: message/rfc822"),
        }
        if part.empty_line {
            self.line(b"");
        }
        match &part.body {
            Body::Text { lines, .. } => lines.iter().for_each(|line| self.line(line)),
            Body::Several {
                children,
                preamble,
                closed,
                ..
            } => {
                if *preamble {
                    self.line(b"preamble");
                }
                for child in children {
                    self.line(format!("--{boundary}").as_bytes());
                    self.part(child);
                }
                if *closed {
                    self.line(format!("--{boundary}-- ").as_bytes());
                }
            }
            Body::Message(inner) => self.part(inner),
        }
    }
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => select(vec![&b""[..], b"text", b"-- ", b"--b1", b"--b2", b"--b1--", b"--b2-- ", b"a\rb", b"\xe9\xff", b".", b"X: y"])
            .prop_map(<[u8]>::to_vec),
        2 => prop::collection::vec(any::<u8>().prop_filter("line end", |octet| *octet != b'\n'), 0..9),
        1 => (1_usize..40_000).prop_map(|octets| vec![b'x'; octets]),
    ]
}

const NAMES: [&str; 7] = [
    "Subject",
    "sUBJECT",
    "X-A",
    "x-a",
    "Received",
    "Mime-Version",
    "X-Long-Name",
];

fn field_line() -> impl Strategy<Value = Vec<u8>> {
    let value = select(vec![
        &b" hello"[..],
        b"",
        b"   ",
        b"none",
        b" folded\r\n\tonce\r\n  twice",
        b" =?UTF-8?Q?[SPAM]_hi?=",
        b" =?utf-8?Q?gr=C3=BC=C3=9Fe?= =?UTF-8?Q?x?=",
        b" [SPAM] already",
        b"\r\n [EXT] on the next line",
    ]);
    prop_oneof![
        8 => (select(NAMES.to_vec()), value).prop_map(|(name, value)| [name.as_bytes(), b":", value].concat()),
        1 => select(vec![&b"no field"[..], b"X-A : blank before the colon", b" starts with a fold", b": no name"])
            .prop_map(<[u8]>::to_vec),
        1 => (200_usize..3000).prop_map(|octets| [b"Subject: ", &*vec![b's'; octets]].concat()),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let kinds = select(vec![
        "",
        "text/plain",
        "text/plain; charset=utf-8",
        "Text/HTML; charset=\"utf-8\"",
        "text/html; charset=iso-8859-1",
        "application/pdf",
    ]);
    let encodings = select(vec!["", "7bit", "8bit", "base64", "Quoted-Printable"]);
    let lines = prop::collection::vec(line(), 0..5);
    let text = (kinds, encodings, prop::bool::weighted(0.1), lines).prop_map(
        |(kind, encoding, attached, lines)| Body::Text {
            kind,
            encoding,
            attached,
            lines,
        },
    );
    let fields = || prop::collection::vec(field_line(), 0..4);
    let some = move |body| (fields(), prop::bool::weighted(0.95), body);
    let leaf = some(text.boxed()).prop_map(|(fields, empty_line, body)| Part {
        fields,
        empty_line,
        body,
    });
    leaf.prop_recursive(3, 12, 3, move |inner| {
        let several = (
            select(vec!["mixed", "alternative", "related"]),
            prop::collection::vec(inner.clone(), 0..4),
            any::<bool>(),
            prop::bool::weighted(0.9),
        )
            .prop_map(|(kind, children, preamble, closed)| Body::Several {
                kind,
                children,
                preamble,
                closed,
            });
        let message = inner.prop_map(|part| Body::Message(Box::new(part)));
        let body = prop_oneof![4 => several, 1 => message];
        some(body.boxed()).prop_map(|(fields, empty_line, body)| Part {
            fields,
            empty_line,
            body,
        })
    })
}

/// Whole messages, and a few octets that are hardly one.
pub(super) fn message() -> impl Strategy<Value = Vec<u8>> {
    let ends = select(vec![
        Ends::Crlf,
        Ends::Crlf,
        Ends::Crlf,
        Ends::Lf,
        Ends::Mixed,
    ]);
    let printed = (part(), ends, 0_usize..4).prop_map(|(part, ends, cut)| {
        let mut printer = Printer {
            octets: Vec::new(),
            ends,
            lines: 0,
            boundaries: 0,
        };
        printer.part(&part);
        // BDAT brings messages whose last line has no end.
        let octets = printer.octets.len().saturating_sub(cut.saturating_sub(1));
        printer.octets.truncate(octets);
        printer.octets
    });
    prop_oneof![
        12 => printed,
        1 => Just(Vec::new()),
        1 => prop::collection::vec(select(b"A: \r\n\nx".to_vec()), 0..12),
    ]
}

// === Changes ===

fn field_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => select(vec![&b"yes"[..], b"", b" led", b"folded\r\n here", b"\r\n\tdown", b"[SPAM] new"]).prop_map(<[u8]>::to_vec),
        1 => select(vec![&b"a\r\nInjected: x"[..], b"a\n b", b"nul\0", b"end\r\n", b"blank\r\n \r\n x"]).prop_map(<[u8]>::to_vec),
        1 => (900_usize..1100).prop_map(|octets| vec![b'v'; octets]),
    ]
}

fn field_wish() -> impl Strategy<Value = Wish> {
    let name = || {
        prop_oneof![
            9 => select(NAMES.to_vec()),
            1 => select(vec!["bad name", "", "a:b"]),
        ]
    };
    let above = prop::option::of(0_u32..4);
    let add =
        (name(), field_value(), any::<bool>(), above).prop_map(|(name, value, append, above)| {
            Kind::HeaderAdd(smtp::HeaderAdd {
                name: name.into(),
                value: value.into(),
                append,
                above,
            })
        });
    let replace = (name(), 0_u32..3, field_value()).prop_map(|(name, index, value)| {
        Kind::HeaderReplace(smtp::HeaderReplace {
            name: name.into(),
            index,
            value: value.into(),
        })
    });
    let describing = select(vec![
        "text/plain",
        "text/html; charset=utf-8",
        "multipart/mixed; boundary=b1",
    ])
    .prop_map(|value| {
        Kind::HeaderReplace(smtp::HeaderReplace {
            name: "CONTENT-TYPE".into(),
            index: 0,
            value: value.into(),
        })
    });
    let delete = (name(), 0_u32..3, any::<bool>()).prop_map(|(name, index, all)| {
        Kind::HeaderDelete(smtp::HeaderDelete {
            name: name.into(),
            index,
            all,
        })
    });
    let mark = select(vec!["[SPAM]", " [EXT] ", "Größe:", "=?x", "", "a\nb"])
        .prop_map(|text| Kind::SubjectMark(smtp::SubjectMark { text: text.into() }));
    let kind = prop_oneof![6 => add, 4 => replace, 1 => describing, 4 => delete, 3 => mark];
    kind.prop_map(|kind| Wish::Field(smtp::Edit { kind: Some(kind) }))
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(select(b"ab:\r\n -".to_vec()), 0..6),
        1 => (1_usize..20_000).prop_map(|octets| vec![b'r'; octets]),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    let size =
        prop_oneof![3 => Just(0_u64), 4 => 1_u64..20, 1 => 20_u64..9000, 1 => Just(u64::MAX)];
    let splice = (any::<Index>(), size, octets()).prop_map(|(offset, size, octets)| Wish::Splice {
        offset,
        size,
        octets,
    });
    let text = || {
        select(vec![
            "Removed.",
            "Zwei\nZeilen <ä>\n",
            "--b1\r\nno delimiter",
            "-- \nx  ",
            "",
            "€ & co",
        ])
    };
    let name = select(vec![
        "",
        "note.txt",
        "a \"b\".txt",
        "Größe über alles.txt",
        "bad\n",
    ]);
    let part = (any::<Index>(), text(), name).prop_map(|(path, text, name)| Wish::Part {
        path,
        text: text.into(),
        name: name.into(),
    });
    let body = prop_oneof![4 => text().prop_map(str::to_owned), 1 => (10_usize..1200).prop_map(|n| "w".repeat(n))];
    prop_oneof![5 => field_wish(), 4 => splice, 1 => part, 2 => body.prop_map(Wish::Body)]
}

fn flow() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        3 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Piece::Range(from, to)),
        1 => octets().prop_map(Piece::Octets),
    ];
    prop::collection::vec(piece, 0..5)
}

/// Several adapters, one after the other. Parts are named only as long as nothing has cut through them.
pub(super) fn chain() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        prop::option::weighted(0.15, flow()),
        prop::collection::vec(wish(), 0..5),
    )
        .prop_map(|(flow, edits)| Step { flow, edits });
    prop::collection::vec(step, 1..5).prop_map(|mut steps| {
        let mut cut = false;
        for step in &mut steps {
            cut |= step.flow.is_some();
            if cut {
                step.forget_parts();
            }
            cut |= step.cuts();
        }
        steps
    })
}
