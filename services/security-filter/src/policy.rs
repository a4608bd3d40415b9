//! Which recipients are under which sub-policy (RFC 4496 §4.1).

use std::sync::Arc;

use anyhow::ensure;
use opes_proto::smtp::Context;

use crate::config::Config;

/// What holds for some of the recipients.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) config: Arc<Config>,
    /// As the context names them; empty in the first group: all that are in no other.
    pub(crate) recipients: Vec<String>,
}

/// The groups of a message, one at least. The first one is for all that are in no other.
pub(crate) fn groups(config: &Arc<Config>, context: &Context) -> anyhow::Result<Vec<Group>> {
    let policies = config.policies();
    if policies.is_empty() {
        return Ok(vec![for_all(config)]);
    }
    ensure!(
        context.mail_from.is_some() && !context.recipients.is_empty(),
        "there are sub-policies, but the processor told no addresses; they are known at `content`"
    );
    let sender = context
        .mail_from
        .as_ref()
        .map_or("", |sender| sender.address.as_str());
    // By policy; the last one is that of those without.
    let mut by_policy = vec![Vec::new(); policies.len() + 1];
    for recipient in &context.recipients {
        let is_for = |policy: &crate::config::Policy| policy.is_for(sender, &recipient.address);
        let index = policies.iter().position(is_for).unwrap_or(policies.len());
        if let Some(group) = by_policy.get_mut(index) {
            group.push(recipient.address.clone());
        }
    }
    let configs = policies.iter().map(|policy| &policy.config).chain([config]);
    let groups = configs.zip(by_policy);
    let mut groups: Vec<Group> = groups
        .filter(|(_, recipients)| !recipients.is_empty())
        .map(|(config, recipients)| Group {
            config: Arc::clone(config),
            recipients,
        })
        .collect();
    if let Some(first) = groups.first_mut() {
        first.recipients.clear();
    }
    Ok(groups)
}

fn for_all(config: &Arc<Config>) -> Group {
    Group {
        config: Arc::clone(config),
        recipients: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use opes_proto::smtp::Address;
    use serde_json::json;

    use super::*;

    fn context(sender: &str, recipients: &[&str]) -> Context {
        let address = |address: &str| Address {
            address: address.into(),
            ..Address::default()
        };
        Context {
            mail_from: Some(address(sender)),
            recipients: recipients.iter().map(|to| address(to)).collect(),
            ..Context::default()
        }
    }

    fn config() -> Arc<Config> {
        let policies = json!([
            { "senders": ["*@partner.example.net"], "set": { "blockTypes": [], "blockNames": [] } },
            { "recipients": ["lab-*@example.com", "*@lab.example.com"], "set": { "onViolation": "reject" } },
            { "senders": [""], "set": { "quarantine": true } },
        ]);
        Arc::new(Config::from_json(&json!({ "policies": policies })).unwrap())
    }

    fn parted(sender: &str, recipients: &[&str]) -> Vec<Vec<String>> {
        let groups = groups(&config(), &context(sender, recipients)).unwrap();
        groups.into_iter().map(|group| group.recipients).collect()
    }

    #[test]
    fn the_first_that_fits_holds() {
        let to = ["ann@example.com", "LAB-1@example.com", "x@lab.example.com"];
        // The first group stands for whoever is in no other.
        assert_eq!(
            parted("bob@example.org", &to),
            [vec![], vec!["ann@example.com".to_owned()]]
        );
        assert_eq!(
            parted("bob@PARTNER.example.net", &to),
            [Vec::<String>::new()]
        );
        assert_eq!(parted("", &to[..1]), [Vec::<String>::new()]);
        let of_null = groups(&config(), &context("", &to[..1])).unwrap();
        assert!(of_null.iter().all(|group| group.config.settings.quarantine));
    }

    #[test]
    fn without_addresses_nothing_is_decided() {
        let error = groups(&config(), &Context::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no addresses"), "{error}");
        let plain = Arc::new(Config::from_json(&json!({})).unwrap());
        assert_eq!(groups(&plain, &Context::default()).unwrap().len(), 1);
    }

    #[test]
    fn a_sub_policy_is_checked_like_the_rest() {
        for (policies, said) in [
            (json!([{ "set": { "clamd": null } }]), "sub-policy's"),
            (json!([{ "set": { "policies": [] } }]), "none of its own"),
            (json!([{ "set": { "blockTypes": ["exes"] } }]), "blockTypes"),
            (
                json!([{ "set": { "onViolatoin": "reject" } }]),
                "onViolatoin",
            ),
            (json!([{ "recipients": ["*"] }]), "missing field `set`"),
        ] {
            let error = Config::from_json(&json!({ "policies": policies })).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(said), "{error}");
        }
        let silent = Config::from_json(&json!({})).unwrap();
        let rule = r#"{"policies":[{"set":{"report":false}}]}"#;
        let error = silent.with_parameters(rule).unwrap_err().to_string();
        assert!(error.contains("policies: []"), "{error}");
        let asking = Config::from_json(&json!({ "policies": [] })).unwrap();
        assert_eq!(asking.with_parameters(rule).unwrap().policies().len(), 1);
    }
}
