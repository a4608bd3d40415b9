//! The scenarios: each on a connection of its own, each about one thing, named by the rows that it asks for.

mod connection;
mod copies;
mod data;
mod invalid;
mod negotiation;
mod questions;
mod transactions;

use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::fault::Fault;
use crate::peer::{Peer, Setting};

/// How long one scenario may take, in patiences: more than any has waits.
const SCENARIO_PATIENCES: u32 = 12;

type Run = for<'a> fn(&'a mut Peer) -> BoxFuture<'a, Result<(), Fault>>;

/// One conversation.
pub(crate) struct Scenario {
    /// As a sentence, for findings.
    pub(crate) name: &'static str,
    /// The rows that hold if it goes well.
    pub(crate) ids: &'static [&'static str],
    pub(crate) run: Run,
}

/// How a scenario went.
pub(crate) struct Trial {
    pub(crate) result: Result<(), Fault>,
    pub(crate) transcript: Vec<String>,
    /// Rows about what a server need not do, and this one did.
    pub(crate) exercised: BTreeSet<&'static str>,
}

/// Keeps the transcript whatever happens.
pub(crate) async fn run(scenario: &Scenario, setting: &Setting) -> Trial {
    let mut peer = Peer::connect(setting);
    let limit = setting.patience * SCENARIO_PATIENCES;
    let run = tokio::time::timeout(limit, (scenario.run)(&mut peer)).await;
    let result = run.unwrap_or_else(|_| {
        let what = format!("no end after {} s", limit.as_secs());
        Err(Fault::broken("C-52", what))
    });
    Trial {
        result,
        transcript: peer.wire.transcript,
        exercised: peer.wire.observer.exercised,
    }
}

macro_rules! scenarios {
    ($($ids:expr, $name:literal => $run:path;)*) => {
        /// In the order of the checklist, the most basic first.
        pub(crate) const ALL: &[Scenario] = &[$(Scenario {
            ids: &$ids,
            name: $name,
            run: |peer| $run(peer).boxed(),
        },)*];
    };
}

scenarios! {
    ["C-01", "C-06"], "it starts with CS and selects the profile" => negotiation::profile;
    ["C-01", "C-03"], "a first message that is not CS" => connection::not_started;
    ["C-02"], "a repeated CS" => connection::started_twice;
    ["C-03", "C-04"], "CE while a transaction runs" => connection::ended;
    ["C-06", "C-10"], "an unknown feature is offered" => negotiation::unknown_offer;
    ["C-06"], "an empty offer" => negotiation::empty_offer;
    ["C-09"], "an offer for a group" => negotiation::group_offer;
    ["C-11", "C-12"], "a negotiation phase while an answer is due" => negotiation::phase;
    ["C-13", "C-14"], "the profile is offered again while a transaction runs" => negotiation::again;
    ["C-16", "C-27", "C-29", "C-44", "C-54"], "a command" => transactions::command;
    ["C-29", "C-30", "C-31", "C-36", "C-37", "C-42", "B4"], "a small message" => transactions::small_message;
    ["C-30", "C-36", "C-42", "C-53", "C-55", "A5"], "200 kB of unknown size" => transactions::large_message;
    ["C-41"], "a message that ends early" => transactions::partial_message;
    ["A5"], "a message, and 16 octets of credit at a time" => transactions::little_credit;
    ["C-17"], "a group that does not exist" => transactions::unknown_group;
    ["C-17"], "a group that was destroyed, and one that was destroyed too late" => transactions::destroyed_group;
    ["C-18"], "an xid that was used before" => transactions::reused_xid;
    ["C-18"], "an xid below the last one" => transactions::lower_xid;
    ["C-18"], "an sg_id that was used before" => invalid::reused_group;
    ["C-20"], "the same ids on two connections" => connection::independent;
    ["C-22"], "TE for one of two transactions" => transactions::neighbours;
    ["C-23"], "messages for a transaction that has ended" => transactions::late;
    ["C-24"], "messages for a transaction that was never started" => invalid::never_started;
    ["C-24"], "DUM without payload" => invalid::no_payload;
    ["C-24"], "a group before the profile is agreed" => invalid::group_without_profile;
    ["C-24"], "AA without AQ" => invalid::answer_without_question;
    ["C-24"], "an id above 2147483647" => invalid::id_too_large;
    ["C-25"], "payload beyond the credit" => invalid::beyond_credit;
    ["C-26"], "messages and fields that nobody knows" => invalid::unknown;
    ["C-27"], "an unknown result code" => invalid::unknown_code;
    ["C-30"], "data that does not begin at 0" => data::late_beginning;
    ["C-30"], "data with a gap" => data::gap;
    ["C-30"], "data with an overlap" => data::overlap;
    ["C-31"], "data before AMS" => data::before_start;
    ["C-31"], "an empty DUM" => data::empty;
    ["C-47"], "DWP" => data::pause;
    ["C-49"], "DWM without a pause" => data::more;
    ["C-50"], "PQ" => questions::progress;
    ["C-51"], "AQ" => questions::ability;
    ["C-53"], "parts in the wrong order" => data::part_order;
    ["C-55"], "another size than announced" => data::wrong_size;
    ["C-58"], "copies are not offered" => copies::not_offered;
    ["B5", "C-58"], "copies are offered" => copies::offered;
}
