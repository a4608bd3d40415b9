//! RSET, NOOP, VRFY, HELP, QUIT: commands that ask nobody (RFC 5321 §4.1.1.5 to §4.1.1.10).

use super::{Action, Phase, Session};
use crate::reply::Reply;

impl Session {
    pub(super) fn rset(&mut self) -> Option<Action> {
        self.abort_transaction();
        self.idle_command(&Reply::OK)
    }

    pub(super) fn quit(&mut self) -> Option<Action> {
        self.drop_transaction();
        self.push_from_host(&Reply::CLOSING);
        self.phase = Phase::Closed;
        None
    }

    pub(super) fn idle_command(&mut self, reply: &Reply) -> Option<Action> {
        self.push_idle(reply);
        None
    }

    /// Answers a command that brings no mail forward, up to the limit between two messages.
    pub(super) fn push_idle(&mut self, reply: &Reply) {
        self.push(reply);
        self.idle_commands = self.idle_commands.saturating_add(1);
        if self.idle_commands > self.config.idle_commands_max {
            self.close_with(&Reply::TOO_MANY_IDLE_COMMANDS);
        }
    }
}
