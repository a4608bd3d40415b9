//! What a service may do to a message: its outcome, cut down to the rule's `allow` list and checked.
//!
//! Anything beyond the list is dropped and counted, never half applied: an outcome that loses its verdict still has its edits.

use std::fmt;

use opes_callout_client::Answer;
use opes_proto::smtp::{self, edit, verdict::Action};
use opes_rules::{Permission, PermissionSet};
use opes_smtp::reply::{Enhanced, Reply};

use crate::callout::{Part, Who};
use crate::check::rule_point;

/// An outcome of which every part is allowed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Permitted {
    pub(crate) verdict: Verdict,
    pub(crate) edits: Vec<smtp::Edit>,
    pub(crate) adapted: Option<opes_content::Adaptation>,
    pub(crate) command_line: Option<bytes::Bytes>,
    pub(crate) sender: Option<String>,
    pub(crate) recipients: Vec<smtp::RecipientChange>,
    pub(crate) quarantine: Option<smtp::Quarantine>,
    pub(crate) notifications: Vec<smtp::Notification>,
    /// JSON; empty = none.
    pub(crate) incident: String,
    pub(crate) annotations: std::collections::HashMap<String, String>,
    pub(crate) reason: String,
}

/// What an outcome comes to, from the least to the gravest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gravity {
    #[default]
    Accept,
    Advise,
    Change,
    Quarantine,
    Tempfail,
    Reject,
    Discard,
}

impl Gravity {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Advise => "advise",
            Self::Change => "change",
            Self::Quarantine => "quarantine",
            Self::Tempfail => "tempfail",
            Self::Reject => "reject",
            Self::Discard => "discard",
        }
    }
}

/// What is to become of the message or command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    #[default]
    Accept,
    Refuse(Reply),
    Discard,
}

/// Cuts `answer`, given at `point`, down to what `allow` names: a part for the recipients of each copy and one for the rest, and what was
/// dropped.
pub(crate) fn permit(
    answer: Answer,
    allow: PermissionSet,
    point: smtp::Point,
) -> (Vec<Part>, Vec<Permission>) {
    let mut gate = Gate {
        allow,
        point,
        refused: Vec::new(),
    };
    let mut parts = Vec::with_capacity(1 + answer.copies.len());
    let rest = gate.outcome(answer.outcome, answer.adapted, answer.command_line);
    parts.push(Part::for_all(rest));
    for copy in answer.copies {
        let permitted = gate.outcome(copy.outcome, copy.adapted, None);
        parts.push(Part {
            who: Who::Only(copy.recipients),
            permitted,
        });
    }
    (parts, gate.refused)
}

impl Permitted {
    /// Nothing but a refusal.
    pub(crate) fn refusing(reply: Reply) -> Self {
        Self {
            verdict: Verdict::Refuse(reply),
            ..Self::default()
        }
    }

    pub(crate) fn gravest(&self) -> Gravity {
        let changes = !self.edits.is_empty()
            || self.adapted.is_some()
            || self.command_line.is_some()
            || self.sender.is_some()
            || !self.recipients.is_empty();
        match &self.verdict {
            Verdict::Discard => Gravity::Discard,
            Verdict::Refuse(reply) if reply.is_permanent() => Gravity::Reject,
            Verdict::Refuse(_) => Gravity::Tempfail,
            Verdict::Accept if self.quarantine.is_some() => Gravity::Quarantine,
            Verdict::Accept if changes => Gravity::Change,
            Verdict::Accept if !self.notifications.is_empty() || !self.incident.is_empty() => {
                Gravity::Advise
            }
            Verdict::Accept => Gravity::Accept,
        }
    }
}

impl fmt::Display for Permitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        match &self.verdict {
            Verdict::Accept => {}
            Verdict::Refuse(reply) if reply.is_permanent() => {
                words.push(format!("reject {}", reply.code()));
            }
            Verdict::Refuse(reply) => words.push(format!("tempfail {}", reply.code())),
            Verdict::Discard => words.push("discard".into()),
        }
        match self.edits.len() {
            0 => {}
            1 => words.push("1 edit".into()),
            count => words.push(format!("{count} edits")),
        }
        let has = [
            (self.adapted.is_some(), "rewritten"),
            (self.command_line.is_some(), "command rewritten"),
            (self.sender.is_some(), "sender changed"),
            (!self.recipients.is_empty(), "recipients changed"),
            (self.quarantine.is_some(), "quarantine"),
            (!self.notifications.is_empty(), "notify"),
            (!self.incident.is_empty(), "incident"),
        ];
        let has = has.into_iter().filter(|(is, _)| *is);
        words.extend(has.map(|(_, word)| word.to_owned()));
        if words.is_empty() {
            words.push("accept".into());
        }
        f.write_str(&words.join(", "))
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
    point: smtp::Point,
    refused: Vec<Permission>,
}

impl Gate {
    fn outcome(
        &mut self,
        outcome: smtp::Outcome,
        adapted: Option<opes_content::Adaptation>,
        command_line: Option<bytes::Bytes>,
    ) -> Permitted {
        let verdict = self.verdict(outcome.verdict);
        let edits = outcome.edits.into_iter();
        let edits = edits.filter(|edit| self.edit(edit)).collect();
        let adapted = adapted.filter(|_| self.may(Permission::Rewrite));
        let line = command_permissions(self.point);
        let command_line = command_line.filter(|_| self.may_any(line));
        let envelope = outcome.envelope.unwrap_or_default();
        let sender = envelope.mail_from.filter(|_| self.may(Permission::Sender));
        let recipients = envelope.recipients.into_iter();
        let recipients = recipients.filter_map(|change| self.recipient(change));
        let recipients = recipients.collect();
        let quarantine = outcome
            .quarantine
            .filter(|_| self.may(Permission::Quarantine));
        let mut notifications = outcome.notifications;
        if !notifications.is_empty() && !self.may(Permission::Notify) {
            notifications.clear();
        }
        let mut incident = outcome.incident_json;
        if !incident.is_empty() && !self.may(Permission::Report) {
            incident.clear();
        }
        Permitted {
            verdict,
            edits,
            adapted,
            command_line,
            sender,
            recipients,
            quarantine,
            notifications,
            incident,
            annotations: outcome.annotations,
            reason: outcome.reason,
        }
    }

    /// The rule allows it, and it means something here: what a rule allows for one of its points is not for all of them.
    fn may(&mut self, permission: Permission) -> bool {
        let allowed = self.has(permission);
        if !allowed {
            self.refused.push(permission);
        }
        allowed
    }

    fn has(&self, permission: Permission) -> bool {
        let fits = |point| permission.fits_point(point);
        self.allow.contains(permission) && rule_point(self.point).is_some_and(fits)
    }

    fn may_any(&mut self, permissions: &[Permission]) -> bool {
        permissions.iter().any(|permission| self.has(*permission))
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
        let renames = change.remove || !change.address.is_empty();
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

    fn permit_one(
        answer: Answer,
        allow: PermissionSet,
        point: smtp::Point,
    ) -> (Permitted, Vec<Permission>) {
        let (mut parts, refused) = permit(answer, allow, point);
        (parts.remove(0).permitted, refused)
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
        let (permitted, refused) = permit_one(
            answer(reject(550, &["no"])),
            set(&[Permission::Header]),
            smtp::Point::Content,
        );
        assert_eq!(permitted.verdict, Verdict::Accept);
        assert_eq!(refused, [Permission::Reject]);
    }

    #[test]
    fn a_reply_that_breaks_smtp_is_replaced_by_ours() {
        for bad in [
            reject(250, &["fine"]),
            reject(550, &["a\r\n250 b"]),
            reject(354, &[]),
        ] {
            let (permitted, _refused) = permit_one(
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
        let (permitted, refused) = permit_one(
            answer(outcome),
            set(&[Permission::Header]),
            smtp::Point::Content,
        );
        assert_eq!(permitted.edits.len(), 1);
        assert_eq!(refused, [Permission::ReplacePart]);
    }

    #[test]
    fn what_means_nothing_at_this_point_is_refused_though_the_rule_allows_it_at_another() {
        let allow = set(&[
            Permission::Discard,
            Permission::Quarantine,
            Permission::Header,
        ]);
        let outcome = || smtp::Outcome {
            verdict: Some(smtp::Verdict {
                action: Action::Discard.into(),
                reply: None,
            }),
            quarantine: Some(smtp::Quarantine::default()),
            ..Default::default()
        };
        let (permitted, refused) = permit_one(answer(outcome()), allow, smtp::Point::RcptTo);
        assert_eq!(permitted.verdict, Verdict::Accept);
        assert!(permitted.quarantine.is_none());
        assert_eq!(refused, [Permission::Discard, Permission::Quarantine]);
        let (permitted, refused) = permit_one(answer(outcome()), allow, smtp::Point::Content);
        assert_eq!(permitted.verdict, Verdict::Discard);
        assert!(permitted.quarantine.is_some() && refused.is_empty());
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
        let (permitted, refused) = permit_one(
            answer(outcome),
            set(&[Permission::Recipients]),
            smtp::Point::Content,
        );
        assert!(permitted.recipients.is_empty());
        assert_eq!(refused, [Permission::Route]);
    }

    #[test]
    fn a_next_hop_at_rcpt_needs_no_more_than_its_own_permission() {
        let (outcome, _) = opes_callout_server::CommandAnswer::proceed()
            .next_hop("mx.example.net", 25)
            .into_parts();
        let (permitted, refused) = permit_one(
            answer(outcome),
            set(&[Permission::Route]),
            smtp::Point::RcptTo,
        );
        assert_eq!(permitted.recipients.len(), 1);
        assert!(refused.is_empty(), "{refused:?}");
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
            let (permitted, refused) = permit_one(answer, set(&[permission]), point);
            assert_eq!(
                permitted.command_line.is_some(),
                allowed,
                "{point:?} {permission:?}"
            );
            assert_eq!(refused.is_empty(), allowed, "{point:?} {permission:?}");
        }
    }
}
