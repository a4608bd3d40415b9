//! What a service may do to a message: its outcome, cut down to the rule's `allow` list and checked.
//!
//! Anything beyond the list is dropped and counted, never half applied: an outcome that loses its verdict still has its edits.

use opes_callout_client::Answer;
use opes_proto::smtp::{self, edit, verdict::Action};
use opes_rules::{Permission, PermissionSet};
use opes_smtp::reply::{Enhanced, Reply};

/// An outcome of which every part is allowed.
#[derive(Debug, Default)]
pub(crate) struct Permitted {
    pub(crate) verdict: Verdict,
    pub(crate) edits: Vec<smtp::Edit>,
    pub(crate) adapted: Option<opes_mime::Rope>,
    pub(crate) command_line: Option<bytes::Bytes>,
    pub(crate) sender: Option<String>,
    pub(crate) recipients: Vec<smtp::RecipientChange>,
    pub(crate) quarantine: Option<smtp::Quarantine>,
    pub(crate) annotations: std::collections::HashMap<String, String>,
    pub(crate) reason: String,
    /// What was dropped, by permission.
    pub(crate) refused: Vec<Permission>,
}

/// What is to become of the message or command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    #[default]
    Accept,
    Refuse(Reply),
    Discard,
}

/// Cuts `answer`, given at `point`, down to what `allow` names.
pub(crate) fn permit(answer: Answer, allow: PermissionSet, point: smtp::Point) -> Permitted {
    let mut gate = Gate {
        allow,
        refused: Vec::new(),
    };
    let outcome = answer.outcome;
    let verdict = gate.verdict(outcome.verdict);
    let edits = outcome
        .edits
        .into_iter()
        .filter(|edit| gate.edit(edit))
        .collect();
    let adapted = answer.adapted.filter(|_| gate.may(Permission::Rewrite));
    let command_line = answer
        .command_line
        .filter(|_| gate.may_any(command_permissions(point)));
    let envelope = outcome.envelope.unwrap_or_default();
    let sender = envelope.mail_from.filter(|_| gate.may(Permission::Sender));
    let recipients = envelope
        .recipients
        .into_iter()
        .filter_map(|change| gate.recipient(change))
        .collect();
    let quarantine = outcome
        .quarantine
        .filter(|_| gate.may(Permission::Quarantine));
    Permitted {
        verdict,
        edits,
        adapted,
        command_line,
        sender,
        recipients,
        quarantine,
        annotations: outcome.annotations,
        reason: outcome.reason,
        refused: gate.refused,
    }
}

/// Any of them lets a service put another command line in place of the client's (docs/rules.md).
fn command_permissions(point: smtp::Point) -> &'static [Permission] {
    match point {
        smtp::Point::MailFrom => &[Permission::Sender, Permission::Rewrite],
        smtp::Point::RcptTo => &[Permission::Recipients, Permission::Rewrite],
        _ => &[Permission::Rewrite],
    }
}

struct Gate {
    allow: PermissionSet,
    refused: Vec<Permission>,
}

impl Gate {
    fn may(&mut self, permission: Permission) -> bool {
        let allowed = self.allow.contains(permission);
        if !allowed {
            self.refused.push(permission);
        }
        allowed
    }

    fn may_any(&mut self, permissions: &[Permission]) -> bool {
        permissions
            .iter()
            .any(|permission| self.allow.contains(*permission))
            || permissions.first().is_some_and(|first| self.may(*first))
    }

    fn verdict(&mut self, verdict: Option<smtp::Verdict>) -> Verdict {
        let Some(verdict) = verdict else {
            return Verdict::Accept;
        };
        match verdict.action() {
            Action::Reject if self.may(Permission::Reject) => {
                Verdict::Refuse(service_reply(verdict.reply, 5).unwrap_or(Reply::REFUSED))
            }
            Action::Tempfail if self.may(Permission::Reject) => {
                Verdict::Refuse(service_reply(verdict.reply, 4).unwrap_or(Reply::TRY_LATER))
            }
            Action::Discard if self.may(Permission::Discard) => Verdict::Discard,
            // Accepted, or a refusal that the rule does not allow.
            Action::Unspecified
            | Action::Accept
            | Action::Reject
            | Action::Tempfail
            | Action::Discard => Verdict::Accept,
        }
    }

    fn edit(&mut self, edit: &smtp::Edit) -> bool {
        match edit.kind {
            Some(
                edit::Kind::HeaderAdd(_)
                | edit::Kind::HeaderReplace(_)
                | edit::Kind::HeaderDelete(_),
            ) => self.may(Permission::Header),
            Some(edit::Kind::SubjectMark(_)) => self.may(Permission::Subject),
            Some(edit::Kind::PartReplace(_)) => self.may(Permission::ReplacePart),
            Some(edit::Kind::Splice(_) | edit::Kind::BodyMark(_)) => self.may(Permission::Body),
            // An edit that a newer service knows and we do not: ignored, as OCP has it for unknown elements.
            None => false,
        }
    }

    fn recipient(&mut self, mut change: smtp::RecipientChange) -> Option<smtp::RecipientChange> {
        if change.next_hop.is_some() && !self.may(Permission::Route) {
            change.next_hop = None;
        }
        let renames = change.remove || !change.address.is_empty() || change.original.is_empty();
        if renames && !self.may(Permission::Recipients) {
            return None;
        }
        (renames || change.next_hop.is_some()).then_some(change)
    }
}

/// A service's reply, if it is one we can send for a verdict of this class.
fn service_reply(reply: Option<smtp::Reply>, class: u16) -> Option<Reply> {
    let reply = reply?;
    let code = u16::try_from(reply.code)
        .ok()
        .filter(|code| code / 100 == class)?;
    let enhanced = match reply.enhanced.as_str() {
        "" => None,
        text => Some(text.parse::<Enhanced>().ok()?),
    };
    match Reply::checked(code, enhanced, &reply.lines) {
        Ok(reply) => Some(reply),
        Err(error) => {
            tracing::warn!(%error, "reply of a service replaced by ours");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(permissions: &[Permission]) -> PermissionSet {
        let mut set = PermissionSet::NONE;
        for permission in permissions {
            set.insert(*permission);
        }
        set
    }

    fn answer(outcome: smtp::Outcome) -> Answer {
        Answer {
            outcome,
            ..Answer::default()
        }
    }

    fn reject(code: u32, lines: &[&str]) -> smtp::Outcome {
        smtp::Outcome {
            verdict: Some(smtp::Verdict {
                action: Action::Reject.into(),
                reply: Some(smtp::Reply {
                    code,
                    enhanced: "5.7.1".into(),
                    lines: lines.iter().map(|line| (*line).to_owned()).collect(),
                }),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_verdict_beyond_the_list_is_dropped_and_counted() {
        let permitted = permit(
            answer(reject(550, &["no"])),
            set(&[Permission::Header]),
            smtp::Point::Content,
        );
        assert_eq!(permitted.verdict, Verdict::Accept);
        assert_eq!(permitted.refused, [Permission::Reject]);
    }

    #[test]
    fn a_reply_that_breaks_smtp_is_replaced_by_ours() {
        for bad in [
            reject(250, &["fine"]),
            reject(550, &["a\r\n250 b"]),
            reject(354, &[]),
        ] {
            let permitted = permit(
                answer(bad),
                set(&[Permission::Reject]),
                smtp::Point::Content,
            );
            assert_eq!(permitted.verdict, Verdict::Refuse(Reply::REFUSED));
        }
    }

    #[test]
    fn edits_are_filtered_one_by_one() {
        let outcome = smtp::Outcome {
            edits: vec![
                smtp::Edit {
                    kind: Some(edit::Kind::HeaderAdd(smtp::HeaderAdd::default())),
                },
                smtp::Edit {
                    kind: Some(edit::Kind::PartReplace(smtp::PartReplace::default())),
                },
                smtp::Edit { kind: None },
            ],
            ..Default::default()
        };
        let permitted = permit(
            answer(outcome),
            set(&[Permission::Header]),
            smtp::Point::Content,
        );
        assert_eq!(permitted.edits.len(), 1);
        assert_eq!(permitted.refused, [Permission::ReplacePart]);
    }

    #[test]
    fn a_route_without_permission_leaves_the_recipient_as_it_is() {
        let change = smtp::RecipientChange {
            original: "joe@example.org".into(),
            next_hop: Some(smtp::NextHop {
                host: "mx.example.net".into(),
                port: 25,
                lmtp: false,
            }),
            ..Default::default()
        };
        let envelope = smtp::EnvelopeChange {
            mail_from: None,
            recipients: vec![change],
        };
        let outcome = smtp::Outcome {
            envelope: Some(envelope),
            ..Default::default()
        };
        let permitted = permit(
            answer(outcome),
            set(&[Permission::Recipients]),
            smtp::Point::Content,
        );
        assert!(permitted.recipients.is_empty());
        assert_eq!(permitted.refused, [Permission::Route]);
    }

    #[test]
    fn another_command_line_needs_the_permission_of_its_command() {
        use smtp::Point::{Helo, MailFrom, RcptTo};
        for (point, permission, allowed) in [
            (Helo, Permission::Rewrite, true),
            (MailFrom, Permission::Rewrite, true),
            (MailFrom, Permission::Sender, true),
            (MailFrom, Permission::Recipients, false),
            (RcptTo, Permission::Rewrite, true),
            (RcptTo, Permission::Recipients, true),
            (RcptTo, Permission::Sender, false),
        ] {
            let answer = Answer {
                command_line: Some("NOOP".into()),
                ..Answer::default()
            };
            let permitted = permit(answer, set(&[permission]), point);
            assert_eq!(
                permitted.command_line.is_some(),
                allowed,
                "{point:?} {permission:?}"
            );
            assert_eq!(
                permitted.refused.is_empty(),
                allowed,
                "{point:?} {permission:?}"
            );
        }
    }
}
