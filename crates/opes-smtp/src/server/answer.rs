//! Answers of the shell: what each means for what was asked.

use super::action::Asked;
use super::{Phase, Recipient, RespondError, Response, Session};
use crate::command::{Command, parse_line};
use crate::reply::Reply;

impl Session {
    /// Gives the question back with the error, so that another answer can be given.
    pub(super) fn answer(
        &mut self,
        asked: Asked,
        response: Response,
    ) -> Result<(), (Asked, RespondError)> {
        match response {
            _ if matches!(asked, Asked::Nothing) => Err((asked, RespondError::NotAsked)),
            Response::Disconnect(reply) => {
                self.abort(reply);
                Ok(())
            }
            Response::Refuse(reply) if !reply.is_refusal() => {
                Err((asked, RespondError::ReplyClass(reply)))
            }
            Response::Refuse(reply) => {
                self.refuse(&asked, &reply);
                Ok(())
            }
            Response::Proceed => self.proceed(asked),
            Response::ProceedWith(line) => self.proceed_with(asked, &line),
            Response::Content(reply) => self.finish_content(asked, reply),
            Response::AuthOk | Response::AuthFailed | Response::AuthTempFail => {
                self.finish_auth(asked, &response)
            }
        }
    }

    fn proceed(&mut self, asked: Asked) -> Result<(), (Asked, RespondError)> {
        match asked {
            Asked::Connect => self.greet(),
            Asked::Helo { verb, argument } => self.proceed_hello(verb, argument),
            Asked::StartTls => self.phase = Phase::StartTls,
            Asked::Mail { path, params } => self.proceed_mail(path, params),
            Asked::Rcpt(recipient) => self.proceed_rcpt(recipient),
            Asked::Data => self.proceed_data(),
            Asked::Bdat { octets, last } => self.proceed_bdat(octets, last),
            Asked::Nothing | Asked::Auth(_) | Asked::ContentEnd => return Err(wrong_kind(asked)),
        }
        Ok(())
    }

    /// The replacement passes through the same grammar and limits as the original; the sequence is the same as before.
    fn proceed_with(&mut self, asked: Asked, line: &[u8]) -> Result<(), (Asked, RespondError)> {
        let command = match parse_line(line) {
            Ok(command) => command,
            Err(error) => return Err((asked, RespondError::Replacement(error))),
        };
        match self.replace(&asked, command) {
            Ok(replaced) => self.proceed(replaced),
            Err(error) => Err((asked, error)),
        }
    }

    fn replace(&self, asked: &Asked, command: Command) -> Result<Asked, RespondError> {
        let unacceptable = |reply: Reply| RespondError::Replacement(reply.into());
        match (asked, command) {
            (
                Asked::Helo { verb, .. },
                Command::Hello {
                    verb: new,
                    argument,
                },
            ) if *verb == new => Ok(Asked::Helo {
                verb: new,
                argument,
            }),
            (
                Asked::Mail { .. },
                Command::Mail {
                    path,
                    parameters: params,
                },
            ) => {
                self.admit_mail(&path, &params).map_err(unacceptable)?;
                Ok(Asked::Mail { path, params })
            }
            (
                Asked::Rcpt(_),
                Command::Rcpt {
                    path: address,
                    parameters: params,
                },
            ) => {
                let recipient = Recipient { address, params };
                self.admit_rcpt(&recipient).map_err(unacceptable)?;
                Ok(Asked::Rcpt(recipient))
            }
            (Asked::Data, Command::Data) => Ok(Asked::Data),
            (Asked::StartTls, Command::StartTls) => Ok(Asked::StartTls),
            (Asked::Bdat { octets, last }, Command::Bdat { octets: o, last: l })
                if (*octets, *last) == (o, l) =>
            {
                Ok(Asked::Bdat { octets: o, last: l })
            }
            _ => Err(RespondError::VerbChanged {
                question: asked.name(),
            }),
        }
    }

    /// What a refusal leaves behind. It is the shell's decision, not an error of the client, so it is not counted.
    fn refuse(&mut self, asked: &Asked, reply: &Reply) {
        if reply.closes() {
            return self.abort(reply.clone());
        }
        match asked {
            Asked::Nothing | Asked::Helo { .. } | Asked::StartTls | Asked::Mail { .. } => {
                self.push(reply);
            }
            Asked::Connect => self.refuse_connect(reply),
            Asked::Rcpt(_) => self.refuse_rcpt(reply),
            Asked::Data => self.refuse_data(reply),
            Asked::Bdat { octets, last } => self.refuse_bdat(*octets, *last, reply.clone()),
            Asked::Auth(_) => self.protocol_error(reply),
            Asked::ContentEnd => self.reply_to_content(reply),
        }
    }
}

pub(super) fn wrong_kind(asked: Asked) -> (Asked, RespondError) {
    let question = asked.name();
    (asked, RespondError::WrongKind { question })
}
