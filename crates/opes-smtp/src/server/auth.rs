//! AUTH (RFC 4954) with the mechanisms of [`crate::auth`].

use bytes::BytesMut;
use secrecy::SecretString;

use super::action::Response;
use super::{
    AUTH_LINE_OCTETS_MAX, Action, Asked, Authenticated, Line, Phase, RespondError, Session,
};
use super::{Exchange, Mechanism, answer::wrong_kind};
use crate::auth::Step;
use crate::reply::Reply;

impl Session {
    pub(super) fn start_auth(
        &mut self,
        mechanism: &str,
        initial: Option<&SecretString>,
    ) -> Option<Action> {
        let Some(mechanism) = Mechanism::of(mechanism) else {
            self.protocol_error(&Reply::UNKNOWN_MECHANISM);
            return None;
        };
        let (exchange, step) = Exchange::start(mechanism, initial);
        self.phase = Phase::Sasl(exchange);
        self.on_step(step)
    }

    pub(super) fn poll_sasl(&mut self, input: &mut BytesMut) -> Option<Action> {
        let line = self.take_line(input, AUTH_LINE_OCTETS_MAX);
        let Phase::Sasl(exchange) = &mut self.phase else {
            return None;
        };
        let step = match line {
            Line::NeedInput => return Some(Action::NeedInput),
            Line::TooLong => Step::Failed(Reply::AUTHENTICATION_LINE_TOO_LONG),
            Line::BareLineEnd => Step::Failed(Reply::BARE_LINE_END),
            Line::Complete(line) => exchange.line(&line),
        };
        self.on_step(step)
    }

    fn on_step(&mut self, step: Step) -> Option<Action> {
        match step {
            Step::Challenge(challenge) => {
                self.push(&challenge);
                None
            }
            Step::Failed(reply) => {
                self.phase = Phase::Commands;
                self.protocol_error(&reply);
                None
            }
            Step::Credentials(credentials) => {
                self.phase = Phase::Commands;
                let (mechanism, identity) = (credentials.mechanism, credentials.identity.clone());
                self.asked = Asked::Auth(Authenticated {
                    mechanism,
                    identity,
                });
                Some(Action::Authenticate(credentials))
            }
        }
    }

    pub(super) fn finish_auth(
        &mut self,
        asked: Asked,
        response: &Response,
    ) -> Result<(), (Asked, RespondError)> {
        let Asked::Auth(authenticated) = asked else {
            return Err(wrong_kind(asked));
        };
        match response {
            Response::AuthOk => {
                self.authenticated = Some(authenticated);
                self.push(&Reply::AUTHENTICATED);
            }
            Response::AuthTempFail => self.push(&Reply::AUTHENTICATION_UNAVAILABLE),
            _ => self.protocol_error(&Reply::AUTHENTICATION_FAILED),
        }
        Ok(())
    }
}
