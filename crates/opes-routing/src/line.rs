//! One operator, called again and again: a stream, a pause, the next stream.

use std::time::Duration;

use opes_host::Host;
use opes_proto::routing::routing_client::RoutingClient;
use opes_proto::routing::{FromEdge, FromOperator, TABLE_OCTETS_MAX};
use opes_tls::ClientTls;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::choice::LineId;
use crate::config::Address;
use crate::dial;

/// Messages that wait for an operator which does not read; one more, and the stream is given up.
const OUTBOX_MAX: usize = 64;

/// What a line tells the hub, in the order in which it happens.
#[derive(Debug)]
pub(crate) enum Word {
    /// A stream is being opened; what is put into the outbox goes to the operator.
    Opened(mpsc::Sender<FromEdge>),
    Said(Box<FromOperator>),
    /// The stream is over, or was not to be had, and why.
    Closed(String),
}

/// Everything a line needs.
pub(crate) struct Line {
    pub(crate) id: LineId,
    pub(crate) address: Address,
    pub(crate) server_name: String,
    pub(crate) tls: ClientTls,
    pub(crate) host: Host,
    pub(crate) words: mpsc::Sender<(LineId, Word)>,
    pub(crate) stop: CancellationToken,
}

/// Why a stream is over.
enum End {
    /// Other certificates are in force: the next stream is opened at once.
    Renew,
    Lost(String),
}

impl Line {
    /// Until it is stopped, or nobody listens.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.calls()).await;
    }

    async fn calls(self) {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let end = Box::pin(self.call()).await;
            let (pause, reason) = match end {
                End::Renew => (Duration::ZERO, "other certificates are in force".to_owned()),
                End::Lost(reason) => {
                    let random = self.host.random.next_u64();
                    (backoff.pause(began.elapsed(), random), reason)
                }
            };
            if self.tell(Word::Closed(reason)).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn call(&self) -> End {
        let dialled = dial::dial(&self.host, &self.tls, &self.address, &self.server_name).await;
        let (channel, link) = match dialled {
            Ok(dialled) => dialled,
            Err(reason) => return End::Lost(reason),
        };
        let (outbox, outgoing) = mpsc::channel(OUTBOX_MAX);
        // Before the call: an operator may wait for Hello before it answers at all.
        if self.tell(Word::Opened(outbox)).await.is_err() {
            return End::Renew;
        }
        let mut client = RoutingClient::new(channel)
            .max_decoding_message_size(TABLE_OCTETS_MAX)
            .max_encoding_message_size(TABLE_OCTETS_MAX);
        let talk = async {
            let opened = client.follow(ReceiverStream::new(outgoing)).await;
            let mut incoming = opened.map_err(|status| link.why(&status))?.into_inner();
            loop {
                let said = incoming.message().await;
                let Some(said) = said.map_err(|status| link.why(&status))? else {
                    return Err("the operator has ended the stream".to_owned());
                };
                self.tell(Word::Said(Box::new(said))).await?;
            }
        };
        tokio::select! {
            () = link.call.over.cancelled() => End::Renew,
            ended = talk => {
                let ended: Result<(), String> = ended;
                End::Lost(ended.err().unwrap_or_default())
            }
        }
    }

    async fn tell(&self, word: Word) -> Result<(), String> {
        let told = self.words.send((self.id, word)).await;
        told.map_err(|_| "the follower has ended".to_owned())
    }
}
