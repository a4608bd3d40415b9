//! From a [`Route`] to what the processor gets: a new RCPT line, a next hop, or both (command modification, RFC 4496 §4.7).

use opes_callout_server::CommandAnswer;
use opes_proto::smtp::{NextHop as ProtoNextHop, RecipientChange};
use opes_smtp::grammar::Parameters;

use crate::map::{NextHop, Origin, Route};

/// The answer to a RCPT command whose recipient lives at `route`.
pub fn command_answer(route: &Route, parameters: &Parameters) -> CommandAnswer {
    let answer = match &route.address {
        Some(address) => CommandAnswer::rewrite(rcpt_line(address.as_str(), parameters)),
        None => CommandAnswer::proceed(),
    };
    let answer = match &route.next_hop {
        None => answer,
        Some(NextHop {
            host,
            port,
            lmtp: true,
        }) => answer.next_hop_lmtp(host, *port),
        Some(NextHop {
            host,
            port,
            lmtp: false,
        }) => answer.next_hop(host, *port),
    };
    answer.reason(reason(route))
}

/// The answer to a RCPT command whose recipient nobody knows (RFC 3463 §3.2: bad destination mailbox address).
pub fn unknown_recipient() -> CommandAnswer {
    CommandAnswer::reply(550, "5.1.1", "Recipient address unknown here")
        .reason("the directory does not know the recipient")
}

/// The same for a recipient that has been accepted already, at the points after RCPT.
pub fn recipient_change(original: &str, route: &Route) -> RecipientChange {
    RecipientChange {
        original: original.to_owned(),
        address: route
            .address
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        remove: false,
        next_hop: route
            .next_hop
            .as_ref()
            .map(|NextHop { host, port, lmtp }| ProtoNextHop {
                host: host.clone(),
                port: u32::from(*port),
                lmtp: *lmtp,
            }),
    }
}

/// Parameters stay as the client gave them: `ORCPT` still names the recipient that the sender knows (RFC 3461 §4.2).
fn rcpt_line(address: &str, parameters: &Parameters) -> String {
    let mut line = format!("RCPT TO:<{address}>");
    for parameter in parameters.as_slice() {
        line.push(' ');
        line.push_str(parameter);
    }
    line
}

fn reason(route: &Route) -> String {
    let origin = match route.origin {
        Origin::Map => "map",
        Origin::Directory => "directory",
    };
    match &route.next_hop {
        Some(next_hop) => format!("{origin} entry `{}`: to {next_hop}", route.key),
        None => format!("{origin} entry `{}`: rewritten", route.key),
    }
}
