//! One transaction inside the connection's task: what its handler has said and the core has not yet let out.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use opes_ocp::{AdaptedEnd, CallError, CalloutServer};
use opes_proto::smtp::{MessageStart, Part};
use prost::Message as _;

use crate::command::GroupParameters;
use crate::handler::Running;
use crate::link::{Ending, Link, Said};

/// Octets of a command line at most. SMTP allows far less (RFC 5321 §4.5.3.1.4), extensions some more.
pub(crate) const COMMAND_OCTETS_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) link: Arc<Link>,
    pub(crate) parameters: Arc<GroupParameters>,
    pub(crate) traceparent: String,
    /// A command is handed to its handler when all of it is there.
    pub(crate) command: Option<PendingCommand>,
    pub(crate) handler: Option<Running>,
    /// Said by the handler in this order; only a pause of the peer holds it up.
    held: VecDeque<Said>,
    /// Octets of payload sent.
    mine: u64,
    started: bool,
}

#[derive(Debug)]
pub(crate) struct PendingCommand {
    pub(crate) start: MessageStart,
    pub(crate) line: BytesMut,
}

impl Transaction {
    pub(crate) fn new(
        parameters: Arc<GroupParameters>,
        traceparent: String,
        adapted_credit: u64,
    ) -> Self {
        Self {
            link: Arc::new(Link::new(adapted_credit)),
            parameters,
            traceparent,
            command: None,
            handler: None,
            held: VecDeque::new(),
            mine: 0,
            started: false,
        }
    }

    /// Takes what the handler said for the adapted flow.
    pub(crate) fn say(&mut self, said: Said) {
        self.held.push_back(said);
    }

    /// Lets out what may go now.
    pub(crate) fn pump(&mut self, xid: u32, core: &mut CalloutServer) -> Result<(), CallError> {
        self.link
            .raise_limit(self.mine.saturating_add(core.sendable(xid)));
        while let Some(said) = self.held.pop_front() {
            self.start(xid, core)?;
            if let Some(rest) = self.let_out(xid, said, core)? {
                self.held.push_front(rest);
                break;
            }
        }
        Ok(())
    }

    /// AMS before anything else of the adapted flow.
    pub(crate) fn start(&mut self, xid: u32, core: &mut CalloutServer) -> Result<(), CallError> {
        if self.started {
            return Ok(());
        }
        self.started = true;
        core.adapted_start(xid, Vec::new(), Bytes::new())
    }

    /// Gives back what has to wait.
    fn let_out(
        &mut self,
        xid: u32,
        said: Said,
        core: &mut CalloutServer,
    ) -> Result<Option<Said>, CallError> {
        match said {
            Said::UseMine(octets) => self.mine(xid, octets, core),
            Said::UseYours { offset, size } => match core.use_original(xid, offset, size) {
                Err(CallError::NotSendable { .. }) => Ok(Some(Said::UseYours { offset, size })),
                other => other.map(|()| None),
            },
            Said::Done {
                outcome,
                payload,
                ending,
            } => {
                if let Some(line) = payload.filter(|line| !line.is_empty()) {
                    core.adapted_data(xid, part(Part::Command), line, None, None)?;
                }
                let end = match ending {
                    Ending::Whole => AdaptedEnd::Complete,
                    Ending::Rest(from) => AdaptedEnd::Rest { from },
                };
                core.adapted_end(xid, end, outcome.encode_to_vec().into())?;
                core.end(xid, Ok(()))?;
                Ok(None)
            }
            // Not for the adapted flow; the connection has dealt with them.
            Said::Credit(_) | Said::StopReceiving | Said::Failed(_) => Ok(None),
        }
    }

    fn mine(
        &mut self,
        xid: u32,
        mut octets: Bytes,
        core: &mut CalloutServer,
    ) -> Result<Option<Said>, CallError> {
        let sendable = usize::try_from(core.sendable(xid)).unwrap_or(usize::MAX);
        let now = octets.split_to(octets.len().min(sendable));
        if !now.is_empty() {
            self.mine += now.len() as u64;
            core.adapted_data(xid, part(Part::Unspecified), now, None, None)?;
        }
        Ok((!octets.is_empty()).then_some(Said::UseMine(octets)))
    }
}

/// As DUM has it.
fn part(part: Part) -> u32 {
    i32::from(part).unsigned_abs()
}
