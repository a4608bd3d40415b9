//! Who may do something with whose mail: one end of the consent is in `operator.yaml`, the other is the rule itself.

use opes_rules::object::{OpesRule, Resource};

use crate::config::Tenant;

/// Why an object may not run: field, message and remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotPermitted {
    /// The field that decides.
    pub field: &'static str,
    /// What is missing.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// May it run? Without tenants everything may.
pub fn check(tenants: &[Tenant], resource: &Resource) -> Result<(), NotPermitted> {
    if tenants.is_empty() {
        return Ok(());
    }
    let namespace = match resource {
        Resource::OpesRule(rule) => &rule.metadata.namespace,
        Resource::CalloutService(service) => &service.metadata.namespace,
    };
    let granted = |tenant: &&Tenant| tenant.namespace == *namespace;
    let grants: Vec<&str> = tenants
        .iter()
        .filter(granted)
        .flat_map(|tenant| &tenant.domains)
        .map(String::as_str)
        .collect();
    if grants.is_empty() {
        return Err(NotPermitted {
            field: "metadata.namespace",
            message: format!("namespace {namespace} was granted no mail"),
            remedy: "ask for it to be listed under tenants in operator.yaml".into(),
        });
    }
    match resource {
        Resource::OpesRule(rule) => check_rule(rule, &grants),
        // It does nothing before a rule calls it, and rules call services of their own namespace only.
        Resource::CalloutService(_) => Ok(()),
    }
}

/// The rule must be about granted domains only, as sender or as recipient.
fn check_rule(rule: &OpesRule, grants: &[&str]) -> Result<(), NotPermitted> {
    if grants.contains(&"*") {
        return Ok(());
    }
    let matching = &rule.spec.matching;
    let lists = [
        ("spec.match.recipientDomains", &matching.recipient_domains),
        ("spec.match.senderDomains", &matching.sender_domains),
    ];
    let mut outside = None;
    for (field, domains) in lists {
        let Some(domains) = domains else { continue };
        match domains
            .iter()
            .find(|domain| !grants.iter().any(|grant| covers(grant, domain)))
        {
            None if !domains.is_empty() => return Ok(()),
            found => outside = outside.or(found.map(|domain| (field, domain))),
        }
    }
    let remedy = format!("name domains of: {}", grants.join(", "));
    Err(match outside {
        Some((field, domain)) => NotPermitted {
            field,
            message: format!("`{domain}` was not granted to this namespace"),
            remedy,
        },
        None => NotPermitted {
            field: "spec.match",
            message: "a rule of this namespace must say for which of its domains it is".into(),
            remedy: format!("write recipientDomains or senderDomains; {remedy}"),
        },
    })
}

/// Is every domain of `asked` one of `grant`? Both may begin with `*.`, which stands for any subdomain.
fn covers(grant: &str, asked: &str) -> bool {
    let (grant, asked) = (grant.to_ascii_lowercase(), asked.to_ascii_lowercase());
    if grant == asked {
        return true;
    }
    let Some(parent) = grant.strip_prefix("*.") else {
        return false;
    };
    let below = asked.strip_prefix("*.").unwrap_or(&asked);
    let wildcard = asked.starts_with("*.");
    let is_below = below
        .strip_suffix(parent)
        .is_some_and(|front| front.ends_with('.') && front.len() > 1);
    is_below || (wildcard && below == parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(namespace: &str, matching: &str) -> Resource {
        let text = format!(
            "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: r, namespace: {namespace} }}\n\
             spec: {{ at: [rcptTo], {matching} action: {{ accept: {{}} }} }}\n"
        );
        let (mut objects, found) = opes_rules::parse("test", &text);
        assert!(found.is_empty(), "{found:?}");
        objects.pop().unwrap().resource
    }

    fn tenants() -> Vec<Tenant> {
        let tenant = |namespace: &str, domains: &[&str]| Tenant {
            namespace: namespace.into(),
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        };
        vec![
            tenant("a", &["a.example", "*.a.example"]),
            tenant("all", &["*"]),
        ]
    }

    #[test]
    fn a_rule_is_for_granted_domains_only() {
        for (namespace, matching, field) in [
            ("a", "match: { recipientDomains: [a.example] },", None),
            (
                "a",
                "match: { recipientDomains: [A.Example, x.a.example, '*.a.example', '*.y.a.example'] },",
                None,
            ),
            ("a", "match: { senderDomains: [a.example] },", None),
            (
                "a",
                "match: { recipientDomains: [other.example], senderDomains: [a.example] },",
                None,
            ),
            ("all", "", None),
            ("a", "", Some("spec.match")),
            (
                "a",
                "match: { recipientDomains: [a.example, other.example] },",
                Some("spec.match.recipientDomains"),
            ),
            (
                "a",
                "match: { recipientDomains: [nota.example] },",
                Some("spec.match.recipientDomains"),
            ),
            (
                "a",
                "match: { recipientDomains: ['*.example'] },",
                Some("spec.match.recipientDomains"),
            ),
            (
                "a",
                "match: { senderDomains: ['<>'] },",
                Some("spec.match.senderDomains"),
            ),
            (
                "b",
                "match: { recipientDomains: [a.example] },",
                Some("metadata.namespace"),
            ),
        ] {
            let found = check(&tenants(), &rule(namespace, matching))
                .err()
                .map(|no| no.field);
            assert_eq!(found, field, "{namespace} {matching}");
        }
    }

    #[test]
    fn without_tenants_nothing_is_restricted() {
        assert_eq!(check(&[], &rule("b", "")), Ok(()));
    }

    #[test]
    fn a_wildcard_is_not_the_domain_itself() {
        assert!(!covers("*.a.example", "a.example"));
        assert!(covers("*.a.example", "*.a.example"));
        assert!(!covers("a.example", "*.a.example"));
        assert!(!covers("*.a.example", "*.example"));
    }
}
