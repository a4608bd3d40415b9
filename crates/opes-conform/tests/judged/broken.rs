//! Bugs, made by somebody in the middle who spoils what a good server of the SDK hears or says. Each is convicted by its own row.

use std::collections::BTreeSet;
use std::time::Duration;

use opes_conform::{ConformError, Options, check};
use opes_proto::ocp::callout_client::CalloutClient;
use opes_proto::ocp::callout_server::{Callout, CalloutServer};
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{
    ApplicationMessageEnd, ApplicationMessageStart, ConnectionEnd, Frame, Message,
    Result as OcpResult, TransactionEnd,
};
use opes_proto::smtp::{ProfileOffer, ProfileSelection};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::server::{Does, LITTLE_PATIENCE, PATIENCE, judge, start};

/// What one connection has seen.
#[derive(Debug, Default)]
struct Seen {
    started: bool,
    dead: BTreeSet<u32>,
    offset: u64,
}

/// What becomes of a message, in its direction and against it.
#[derive(Debug, Default)]
struct Passed {
    on: Vec<Kind>,
    back: Vec<Kind>,
}

fn on(kind: Kind) -> Passed {
    Passed {
        on: vec![kind],
        back: Vec::new(),
    }
}

fn back(kinds: Vec<Kind>) -> Passed {
    Passed {
        on: Vec::new(),
        back: kinds,
    }
}

fn dropped() -> Passed {
    Passed::default()
}

/// One bug.
#[derive(Clone, Copy)]
struct Bug {
    name: &'static str,
    row: &'static str,
    does: Does,
    /// What the server hears.
    hears: fn(Kind, &mut Seen) -> Passed,
    /// What it says.
    says: fn(Kind, &mut Seen) -> Passed,
}

const NONE: Bug = Bug {
    name: "none",
    row: "",
    does: Does::Nothing,
    hears: |kind, _| on(kind),
    says: |kind, _| on(kind),
};

fn failure(code: u32) -> OcpResult {
    OcpResult {
        code,
        reason: "spoiled".to_owned(),
    }
}

fn ce_400() -> Kind {
    Kind::ConnectionEnd(ConnectionEnd {
        result: Some(failure(400)),
    })
}

const BUGS: &[Bug] = &[
    Bug {
        name: "says something before CS",
        row: "C-01",
        says: |kind, _| match kind {
            Kind::ConnectionStart(_) => dropped(),
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "takes a second CS badly",
        row: "C-02",
        hears: |kind, seen| match kind {
            Kind::ConnectionStart(_) if std::mem::replace(&mut seen.started, true) => {
                back(vec![ce_400()])
            }
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "closes without CE",
        row: "C-03",
        says: |kind, _| match kind {
            Kind::ConnectionEnd(_) => dropped(),
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "does not know what it offered itself",
        row: "C-06",
        says: |kind, _| match kind {
            Kind::NegotiationResponse(mut m) => {
                m.unknowns.clear();
                on(Kind::NegotiationResponse(m))
            }
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "NR with SG",
        row: "C-09",
        says: |kind, _| match kind {
            Kind::NegotiationResponse(mut m) => {
                m.sg_id = Some(0);
                on(Kind::NegotiationResponse(m))
            }
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "knows no phases",
        row: "C-11",
        hears: |kind, _| match kind {
            Kind::NegotiationOffer(mut m) => {
                m.offer_pending = false;
                on(Kind::NegotiationOffer(m))
            }
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "takes an xid twice",
        row: "C-18",
        hears: |kind, seen| match kind {
            Kind::TransactionStart(m) if !seen.dead.insert(m.xid) => back(answer(m.xid)),
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "no TE",
        row: "C-22",
        says: |kind, _| match kind {
            Kind::TransactionEnd(m) if m.result.is_none() => dropped(),
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "answers late messages with CE",
        row: "C-23",
        hears: |kind, seen| match kind {
            Kind::DataUseMine(m) if seen.dead.contains(&m.xid) => back(vec![ce_400()]),
            kind => on(kind),
        },
        says: |kind, seen| {
            if let Kind::TransactionEnd(m) = &kind {
                seen.dead.insert(m.xid);
            }
            on(kind)
        },
        ..NONE
    },
    Bug {
        name: "does not count credit",
        row: "C-25",
        hears: |kind, _| match kind {
            Kind::DataUseMine(mut m) if m.payload.as_ref().is_some_and(|p| p.len() > 100_000) => {
                m.payload = Some("RCPT TO:<bob@example.org>".into());
                on(Kind::DataUseMine(m))
            }
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "TE 206",
        row: "C-29",
        says: |kind, _| match kind {
            Kind::TransactionEnd(m) if m.result.is_none() => {
                on(Kind::TransactionEnd(TransactionEnd {
                    result: Some(failure(206)),
                    ..m
                }))
            }
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "does not look at offsets",
        row: "C-30",
        hears: |kind, seen| match kind {
            Kind::ApplicationMessageStart(m) => {
                seen.offset = 0;
                on(Kind::ApplicationMessageStart(m))
            }
            Kind::DataUseMine(mut m) => {
                m.offset = seen.offset;
                seen.offset += m.payload.as_ref().map_or(0, |p| p.len() as u64);
                on(Kind::DataUseMine(m))
            }
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "offsets with gaps",
        row: "C-30",
        does: Does::Rewrite,
        says: |kind, _| match kind {
            Kind::DataUseMine(mut m) => {
                m.offset += 1;
                on(Kind::DataUseMine(m))
            }
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "no AMS",
        row: "C-31",
        says: |kind, _| match kind {
            Kind::ApplicationMessageStart(_) => dropped(),
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "a J outside of the original",
        row: "C-42",
        says: |kind, _| match kind {
            Kind::ApplicationMessageEnd(mut m) if m.original_offset.is_some() => {
                m.original_offset = Some(1 << 40);
                on(Kind::ApplicationMessageEnd(m))
            }
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "ignores DWP",
        row: "C-47",
        hears: |kind, _| match kind {
            Kind::WantDataPaused(_) => dropped(),
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "does not answer PQ about a transaction",
        row: "C-50",
        says: |kind, _| match kind {
            Kind::ProgressAnswer(m) if m.xid.is_some() => dropped(),
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "can do everything",
        row: "C-51",
        says: |kind, _| match kind {
            Kind::AbilityAnswer(mut m) => {
                m.supported = true;
                on(Kind::AbilityAnswer(m))
            }
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "does not look at the announced size",
        row: "C-55",
        hears: |kind, _| match kind {
            Kind::ApplicationMessageStart(mut m) => {
                m.am_el = None;
                on(Kind::ApplicationMessageStart(m))
            }
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "selects copies that were not offered",
        row: "C-58",
        says: |kind, _| match kind {
            Kind::NegotiationResponse(mut m) => {
                if let Some(feature) = &mut m.feature {
                    let mut selection =
                        ProfileSelection::decode(feature.parameters.clone()).unwrap();
                    selection.copies = true;
                    feature.parameters = selection.encode_to_vec().into();
                }
                on(Kind::NegotiationResponse(m))
            }
            kind => on(kind),
        },
        ..NONE
    },
    Bug {
        name: "sends beyond its credit",
        row: "A5",
        does: Does::Rewrite,
        hears: |kind, _| match kind {
            Kind::NegotiationOffer(mut m) => {
                for feature in &mut m.features {
                    let mut offer = ProfileOffer::decode(feature.parameters.clone()).unwrap();
                    offer.initial_credit = 1 << 30;
                    feature.parameters = offer.encode_to_vec().into();
                }
                on(Kind::NegotiationOffer(m))
            }
            Kind::WantMoreData(m) if m.limit_offset.is_some_and(|limit| limit < 1 << 30) => {
                dropped()
            }
            kind => on(kind),
        },
        ..NONE
    },
];

/// "Use your original", whoever asked.
fn answer(xid: u32) -> Vec<Kind> {
    vec![
        Kind::ApplicationMessageStart(ApplicationMessageStart {
            xid,
            ..ApplicationMessageStart::default()
        }),
        Kind::ApplicationMessageEnd(ApplicationMessageEnd {
            xid,
            result: Some(failure(206)),
            original_offset: Some(0),
            ..ApplicationMessageEnd::default()
        }),
        Kind::TransactionEnd(TransactionEnd { xid, result: None }),
    ]
}

// ---- the one in the middle ---------------------------------------------------------------------------------------------

struct Middle {
    bug: Bug,
    server: Channel,
}

async fn spoiled(bug: Bug) -> String {
    let server = start(bug.does, "127.0.0.1:0").await;
    let server = Channel::from_shared(format!("http://{server}")).unwrap();
    let middle = Middle {
        bug,
        server: server.connect().await.unwrap(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = tonic::transport::Server::builder().add_service(CalloutServer::new(middle));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

type Frames = mpsc::Sender<Result<Frame, Status>>;

#[async_trait]
impl Callout for Middle {
    type ConnectStream = ReceiverStream<Result<Frame, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (to_server, frames) = mpsc::channel(64);
        let mut client = CalloutClient::new(self.server.clone());
        let said = client.connect(ReceiverStream::new(frames)).await?;
        let (to_client, outbound) = mpsc::channel(64);
        tokio::spawn(between(
            self.bug,
            request.into_inner(),
            said.into_inner(),
            to_server,
            to_client,
        ));
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

/// One message at a time; ends when either side does, or after a CE of its own.
async fn between(
    bug: Bug,
    mut heard: Streaming<Frame>,
    mut said: Streaming<Frame>,
    to_server: mpsc::Sender<Frame>,
    to_client: Frames,
) {
    let mut seen = Seen::default();
    loop {
        let (passed, forward) = tokio::select! {
            frame = heard.message() => match frame {
                Ok(Some(frame)) => (pass(frame, bug.hears, &mut seen), true),
                _ => return,
            },
            frame = said.message() => match frame {
                Ok(Some(frame)) => (pass(frame, bug.says, &mut seen), false),
                _ => return,
            },
        };
        let (server, client) = if forward {
            (passed.on, passed.back)
        } else {
            (passed.back, passed.on)
        };
        let over = client
            .iter()
            .any(|kind| matches!(kind, Some(Kind::ConnectionEnd(_))));
        if !server.is_empty() && to_server.send(frame(server)).await.is_err() {
            return;
        }
        if !client.is_empty() && to_client.send(Ok(frame(client))).await.is_err() || over {
            return;
        }
    }
}

struct Sorted {
    on: Vec<Option<Kind>>,
    back: Vec<Option<Kind>>,
}

fn pass(frame: Frame, spoil: fn(Kind, &mut Seen) -> Passed, seen: &mut Seen) -> Sorted {
    let mut sorted = Sorted {
        on: Vec::new(),
        back: Vec::new(),
    };
    for message in frame.messages {
        let Some(kind) = message.kind else {
            sorted.on.push(None);
            continue;
        };
        let passed = spoil(kind, seen);
        sorted.on.extend(passed.on.into_iter().map(Some));
        sorted.back.extend(passed.back.into_iter().map(Some));
    }
    sorted
}

fn frame(kinds: Vec<Option<Kind>>) -> Frame {
    let messages = kinds.into_iter().map(|kind| Message { kind });
    Frame {
        messages: messages.collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_in_the_middle_is_innocent() {
    let report = judge(&spoiled(NONE).await, PATIENCE).await;
    assert!(report.passed(), "{}", report.table(true));
}

/// The rows that it is convicted of, or why it could not be judged.
type Sentence = Result<Vec<String>, ConformError>;

async fn sentence(bug: Bug, patience: Duration) -> Sentence {
    let options = Options {
        patience,
        ..Options::default()
    };
    let report = check(&spoiled(bug).await, &options).await?;
    Ok(report.failed().map(str::to_owned).collect())
}

fn is_its_own(sentence: &Sentence, bug: &Bug) -> bool {
    let rows = sentence.as_ref().ok();
    rows.is_some_and(|rows| rows.iter().any(|row| row == bug.row))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bug_is_convicted_of_its_own_row() {
    let mut trials = tokio::task::JoinSet::new();
    for bug in BUGS {
        trials.spawn(async move {
            let mut said = sentence(*bug, LITTLE_PATIENCE).await;
            if !is_its_own(&said, bug) {
                // What gives it away may come later than that on a busy machine.
                said = sentence(*bug, PATIENCE).await;
            }
            (bug, said)
        });
    }
    let mut let_go = Vec::new();
    while let Some(trial) = trials.join_next().await {
        let (bug, said) = trial.unwrap();
        println!("{}: {said:?}", bug.name);
        if !is_its_own(&said, bug) {
            let_go.push(format!("{} ({}): {said:?}", bug.name, bug.row));
        }
    }
    assert!(let_go.is_empty(), "{let_go:#?}");
}
