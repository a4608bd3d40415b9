//! The recipients of one message, parted into groups that share one fate.
//!
//! A message starts as one group. What a service says of some recipients parts a group in two; nothing joins groups again before
//! the end, but recipients that would be shown the same share one callout, whichever groups they are in.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use opes_content::View;
use opes_proto::smtp;
use opes_rules::RecipientSet;
use opes_spool::NextHop;

use crate::outcome::Verdict;

/// What services have said in the course of a plan.
pub(crate) type Annotations = BTreeMap<String, String>;

/// Recipients that services may add to one message.
pub(crate) const ADDED_MAX: usize = 100;

/// One recipient as the services have left it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) address: String,
    pub(crate) parameters: Vec<String>,
    /// Named by a rule or service in place of the edge's own.
    pub(crate) next_hop: Option<NextHop>,
    /// A service took it out: the message counts as handled for it.
    pub(crate) removed: bool,
    /// A service put it in: the client knows nothing of it.
    pub(crate) added: bool,
}

impl Recipient {
    /// It is `address`, and still to get the message.
    pub(crate) fn is(&self, address: &str) -> bool {
        !self.removed && self.address.eq_ignore_ascii_case(address)
    }
}

/// The message as one service saw it or another made it.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    /// Equal numbers mean equal octets.
    pub(crate) number: usize,
    pub(crate) view: View,
}

/// Advice to hold the message, and whose it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) reason: String,
    /// Empty: the quarantine itself.
    pub(crate) queue: String,
    pub(crate) rule: String,
    pub(crate) service: String,
}

/// What is to become of the message for some recipients.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fate {
    pub(crate) verdict: Verdict,
    /// None at points without content.
    pub(crate) version: Option<Version>,
    /// Replacement of the command, last adapter's word.
    pub(crate) command_line: Option<Bytes>,
    /// Reverse-path in place of the client's.
    pub(crate) sender: Option<String>,
    pub(crate) hold: Option<Hold>,
    pub(crate) annotations: Arc<Annotations>,
}

/// Recipients with one fate.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// Indexes into [`Groups::recipients`], ascending; only 0 where there are none.
    pub(crate) members: Vec<usize>,
    pub(crate) fate: Fate,
}

/// Recipients that are shown the same.
#[derive(Debug, Clone)]
pub(crate) struct Audience {
    pub(crate) members: Vec<usize>,
    pub(crate) fate: Fate,
}

/// See the module.
#[derive(Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "they are the groups of the partition"
)]
pub(crate) struct Groups {
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) groups: Vec<Group>,
    versions: usize,
}

impl Fate {
    /// Nothing that runs later can change it.
    pub(crate) fn is_over(&self) -> bool {
        self.verdict != Verdict::Accept
    }

    fn looks_like(&self, other: &Self) -> bool {
        let number = |fate: &Self| fate.version.as_ref().map(|version| version.number);
        number(self) == number(other)
            && self.sender == other.sender
            && self.command_line == other.command_line
            && self.annotations == other.annotations
    }

    fn ends_like(&self, other: &Self) -> bool {
        self.looks_like(other) && self.verdict == other.verdict && self.hold == other.hold
    }
}

impl Groups {
    /// One group of all; where there are no recipients, of the dialog itself.
    pub(crate) fn new(recipients: Vec<Recipient>, fate: Fate) -> Self {
        let members = (0..recipients.len().max(1)).collect();
        Self {
            recipients,
            groups: vec![Group { members, fate }],
            versions: 0,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.groups.iter().all(|group| group.fate.is_over())
    }

    /// Those of `members` for whom something can still be done.
    pub(crate) fn open(&self, members: &[usize]) -> Vec<usize> {
        let mut open: Vec<usize> = Vec::with_capacity(members.len());
        for group in self.groups.iter().filter(|group| !group.fate.is_over()) {
            open.extend(group.members.iter().filter(|one| members.contains(one)));
        }
        open.sort_unstable();
        open
    }

    /// Those of `set` for whom something can still be done, by what they would be shown.
    pub(crate) fn audiences(&self, set: &RecipientSet) -> Vec<Audience> {
        self.shown(set, |group| !group.fate.is_over())
    }

    /// All of `set`, by what they would be shown.
    pub(crate) fn everybody_in(&self, set: &RecipientSet) -> Vec<Audience> {
        self.shown(set, |_| true)
    }

    fn shown(&self, set: &RecipientSet, who: impl Fn(&Group) -> bool) -> Vec<Audience> {
        let is_removed = |member: usize| self.recipients.get(member).is_some_and(|one| one.removed);
        let mut audiences: Vec<Audience> = Vec::new();
        for group in self.groups.iter().filter(|group| who(group)) {
            let members = group.members.iter().copied();
            let members: Vec<usize> = members
                .filter(|member| set.contains(*member) && !is_removed(*member))
                .collect();
            if members.is_empty() {
                continue;
            }
            let same = audiences
                .iter_mut()
                .find(|audience| audience.fate.looks_like(&group.fate));
            match same {
                Some(audience) => {
                    audience.members.extend(members);
                    audience.members.sort_unstable();
                }
                None => audiences.push(Audience {
                    members,
                    fate: group.fate.clone(),
                }),
            }
        }
        audiences
    }

    /// Distinct annotations with the recipients that they are about.
    pub(crate) fn by_annotations(&self) -> Vec<(Arc<Annotations>, Vec<usize>)> {
        let mut parts: Vec<(Arc<Annotations>, Vec<usize>)> = Vec::new();
        for group in self.groups.iter().filter(|group| !group.fate.is_over()) {
            match parts
                .iter_mut()
                .find(|(said, _)| *said == group.fate.annotations)
            {
                Some((_, members)) => members.extend(&group.members),
                None => parts.push((Arc::clone(&group.fate.annotations), group.members.clone())),
            }
        }
        parts
    }

    /// What has been said of each recipient that is still to get something.
    pub(crate) fn said_of_all(&self) -> Annotations {
        let mut parts = self.by_annotations().into_iter();
        let Some((first, _)) = parts.next() else {
            return Annotations::new();
        };
        let mut common = first.as_ref().clone();
        for (said, _) in parts {
            common.retain(|key, value| said.get(key) == Some(value));
        }
        common
    }

    /// What has been said of each recipient, also of those who get nothing.
    pub(crate) fn said_at_the_end(&self) -> Annotations {
        let mut groups = self.groups.iter().map(|group| &group.fate.annotations);
        let Some(first) = groups.next() else {
            return Annotations::new();
        };
        let mut common = first.as_ref().clone();
        for said in groups {
            common.retain(|key, value| said.get(key) == Some(value));
        }
        common
    }

    /// Does `change` to the fate of `members`, as far as it is still open; parts groups as far as need be.
    pub(crate) fn change(&mut self, members: &[usize], change: impl Fn(&mut Fate)) {
        let mut parted = Vec::new();
        for group in self.groups.iter_mut().filter(|group| !group.fate.is_over()) {
            let (inside, outside): (Vec<usize>, Vec<usize>) = group
                .members
                .iter()
                .partition(|member| members.contains(member));
            if inside.is_empty() {
                continue;
            }
            if !outside.is_empty() {
                let fate = group.fate.clone();
                parted.push(Group {
                    members: outside,
                    fate,
                });
                group.members = inside;
            }
            change(&mut group.fate);
        }
        self.groups.extend(parted);
        self.groups
            .sort_by_key(|group| group.members.first().copied());
    }

    /// Names a new version.
    pub(crate) fn version(&mut self, view: View) -> Version {
        self.versions += 1;
        Version {
            number: self.versions,
            view,
        }
    }

    /// Carries out a change of the envelope for `members`, as far as it is about them. A recipient to add joins their first group, once.
    pub(crate) fn change_recipient(&mut self, members: &[usize], change: &smtp::RecipientChange) {
        let hop = change.next_hop.as_ref().and_then(next_hop);
        if change.original.is_empty() && !change.address.is_empty() {
            self.add(members, &change.address, hop);
            return;
        }
        for member in members {
            let Some(recipient) = self.recipients.get_mut(*member) else {
                continue;
            };
            // At rcptTo the one in question need not be named.
            let is_anybody = change.original.is_empty() || change.original == "*";
            if !is_anybody && !recipient.address.eq_ignore_ascii_case(&change.original) {
                continue;
            }
            recipient.removed |= change.remove;
            if !change.address.is_empty() {
                recipient.address.clone_from(&change.address);
            }
            recipient.next_hop = hop.clone().or(recipient.next_hop.take());
        }
    }

    fn add(&mut self, members: &[usize], address: &str, next_hop: Option<NextHop>) {
        let is_there = |recipient: &Recipient| recipient.is(address);
        let added = self.recipients.iter().filter(|recipient| recipient.added);
        if added.count() >= ADDED_MAX || self.recipients.iter().any(is_there) {
            return;
        }
        let first = members.first();
        let group = first.and_then(|first| {
            let mut groups = self.groups.iter_mut();
            groups.find(|group| group.members.contains(first))
        });
        if let Some(group) = group {
            group.members.push(self.recipients.len());
            self.recipients.push(Recipient {
                address: address.to_owned(),
                next_hop,
                added: true,
                ..Recipient::default()
            });
        }
    }

    /// The groups at the end, those with the same fate as one.
    pub(crate) fn joined(self) -> (Vec<Recipient>, Vec<Group>) {
        let mut joined: Vec<Group> = Vec::new();
        for group in self.groups {
            match joined
                .iter_mut()
                .find(|known| known.fate.ends_like(&group.fate))
            {
                Some(known) => known.members.extend(group.members),
                None => joined.push(group),
            }
        }
        for group in &mut joined {
            group.members.sort_unstable();
        }
        (self.recipients, joined)
    }
}

/// The profile's next hop; none if the port is none.
fn next_hop(hop: &smtp::NextHop) -> Option<NextHop> {
    let port = u16::try_from(hop.port).ok().filter(|port| *port != 0)?;
    Some(NextHop {
        host: hop.host.clone(),
        port,
        lmtp: hop.lmtp,
    })
}
