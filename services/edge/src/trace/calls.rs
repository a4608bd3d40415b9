//! Which services were called for whom, and which were left out on request: what `OPES-Via` has to name.

use std::sync::Arc;

use opes_rules::Rule;

/// Calls of one message so far; before MAIL, of the session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls(Vec<Call>);

#[derive(Debug, Clone)]
struct Call {
    /// One with a callout.
    rule: Arc<Rule>,
    /// It was not called: the sender had asked for that.
    bypassed: bool,
    /// Recipients by index; none: the dialog itself, so everybody.
    members: Option<Vec<usize>>,
}

/// Services by name, each once, in the order of their calls.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Called<'a> {
    pub(crate) ran: Vec<&'a str>,
    pub(crate) bypassed: Vec<&'a str>,
}

impl Calls {
    /// The service of `rule` is called for `members`.
    pub(crate) fn ran(&mut self, rule: &Arc<Rule>, members: &[usize]) {
        self.note(rule, false, Some(members.to_vec()));
    }

    /// The service of `rule` is left out for `members`.
    pub(crate) fn bypassed(&mut self, rule: &Arc<Rule>, members: Vec<usize>) {
        self.note(rule, true, Some(members));
    }

    /// Takes over what was noted at a command. `offered`: the command was about this recipient only; else about the dialog.
    pub(crate) fn add(&mut self, calls: Self, offered: Option<usize>) {
        for call in calls.0 {
            let members = offered.map(|member| vec![member]);
            self.note(&call.rule, call.bypassed, members);
        }
    }

    /// The recipient `index` was refused after all; another will have its place.
    pub(crate) fn forget(&mut self, index: usize) {
        for call in &mut self.0 {
            if let Some(members) = &mut call.members {
                members.retain(|member| *member != index);
            }
        }
        self.0.retain(|call| {
            call.members
                .as_ref()
                .is_none_or(|members| !members.is_empty())
        });
    }

    /// Each rule once, so that a session's commands without end make no list without end.
    fn note(&mut self, rule: &Arc<Rule>, bypassed: bool, members: Option<Vec<usize>>) {
        let mut calls = self.0.iter_mut();
        let known = calls.find(|call| call.bypassed == bypassed && call.rule.name == rule.name);
        let Some(known) = known else {
            self.0.push(Call {
                rule: Arc::clone(rule),
                bypassed,
                members,
            });
            return;
        };
        known.members = match (known.members.take(), members) {
            (Some(mut all), Some(new)) => {
                let new: Vec<usize> = new.into_iter().filter(|one| !all.contains(one)).collect();
                all.extend(new);
                Some(all)
            }
            _ => None,
        };
    }

    /// What a copy for `members` went through.
    pub(crate) fn of(&self, members: &[usize]) -> Called<'_> {
        let mut called = Called::default();
        for call in &self.0 {
            let concerns = |known: &Vec<usize>| known.iter().any(|one| members.contains(one));
            let Some(callout) = &call.rule.callout else {
                continue;
            };
            if !call.members.as_ref().is_none_or(concerns) {
                continue;
            }
            let list = if call.bypassed {
                &mut called.bypassed
            } else {
                &mut called.ran
            };
            if !list.contains(&callout.service.as_str()) {
                list.push(&callout.service);
            }
        }
        called
    }
}
