//! One `OpesRule`.

use super::{Report, action};
use crate::condition::{Condition, Variable};
use crate::diagnostic::{Diagnostic, Origin};
use crate::matcher::{Domains, Matcher, NULL_PATH};
use crate::object::{Callout, ContentChoice, Match, OpesRule, RolloutMode, RuleWants};
use crate::permission::{Permission, PermissionSet};
use crate::point::{Class, OnFailure, Point};
use crate::table::{CalloutSpec, ContentWant, Rule, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Largest `parameters`, serialized, in octets: they travel with every callout connection.
const PARAMETERS_OCTETS_MAX: usize = 64 << 10;
/// Most values in one list of `match`.
const LIST_VALUES_MAX: usize = 10_000;
/// Largest `prefix` in octets.
const PREFIX_OCTETS_MAX: u64 = 1 << 30;

/// Where a rule names its service.
pub(super) const SERVICE_FIELD: &str = "spec.callout.serviceRef.name";

/// Compiles a rule. What comes back is for further checks; it is used only if nothing was reported.
pub(super) fn compile(
    rule: &OpesRule,
    services: &BTreeMap<String, Service>,
    broken: &BTreeSet<(String, String)>,
    report: &mut Report<'_>,
) -> Rule {
    let spec = &rule.spec;
    check_points(&spec.at, report);
    let matcher = matcher(&spec.matching, &spec.at, report);
    if spec.callout.is_some() == spec.action.is_some() {
        let found = if spec.callout.is_some() {
            "both"
        } else {
            "neither"
        };
        let message = format!("exactly one of callout and action is needed, found {found}");
        report.error(
            "spec",
            message,
            "write two rules, or say what the rule does",
        );
    }
    let service_name = spec
        .callout
        .as_ref()
        .map(|callout| format!("{}/{}", rule.metadata.namespace, callout.service_ref.name));
    let service = service_name.as_ref().and_then(|name| services.get(name));
    if let (Some(name), None) = (&service_name, service)
        && !broken.contains(&("CalloutService".to_owned(), name.clone()))
    {
        let diagnostic = unresolved(name, services, report.origin);
        report.found.push(diagnostic);
    }
    let class = service.map(|service| service.class);
    let callout = spec
        .callout
        .as_ref()
        .zip(service_name)
        .map(|(callout, name)| compile_callout(callout, name, service, &spec.at, report));
    let action = spec
        .action
        .as_ref()
        .and_then(|action| action::compile(action, &spec.at, report));
    Rule {
        name: rule.metadata.qualified_name(),
        points: spec.at.clone(),
        priority: spec.priority,
        matcher,
        callout,
        action,
        shadow: spec.rollout.mode == RolloutMode::Shadow,
        percent: percent(spec.rollout.percent, report),
        class,
        stand_in: rule.metadata.is_stand_in(),
    }
}

fn check_points(points: &[Point], report: &mut Report<'_>) {
    if points.is_empty() {
        report.error(
            "spec.at",
            "the rule would run nowhere",
            "name a point, as [content]",
        );
    }
    for (index, point) in points.iter().enumerate() {
        if points.iter().take(index).any(|earlier| earlier == point) {
            report.error(
                format!("spec.at[{index}]"),
                format!("{point} is listed twice"),
                "",
            );
        }
    }
}

fn percent(percent: i64, report: &mut Report<'_>) -> u8 {
    u8::try_from(percent)
        .ok()
        .filter(|percent| *percent <= 100)
        .unwrap_or_else(|| {
            let message = format!("{percent} is not a percentage");
            report.error("spec.rollout.percent", message, "write 0 to 100");
            0
        })
}

/// There is no such service.
pub(super) fn unresolved(
    name: &str,
    services: &BTreeMap<String, Service>,
    origin: &Origin,
) -> Diagnostic {
    let namespace = name.split('/').next().unwrap_or_default();
    let wanted = name.split('/').nth(1).unwrap_or_default();
    let known: Vec<&str> = services
        .keys()
        .filter_map(|key| key.split_once('/'))
        .filter(|(of, _)| *of == namespace)
        .map(|(_, known)| known)
        .collect();
    let remedy = if known.is_empty() {
        format!("define the CalloutService {wanted} in namespace {namespace}")
    } else {
        crate::parse::suggestion(wanted, &known)
    };
    let message = format!("there is no CalloutService {name}");
    origin.error(SERVICE_FIELD, message, remedy)
}

// === match ===

fn matcher(written: &Match, points: &[Point], report: &mut Report<'_>) -> Matcher {
    check_lists(written, report);
    for (field, present, variable) in [
        (
            "senderDomains",
            written.sender_domains.is_some(),
            Variable::MailFrom,
        ),
        (
            "recipientDomains",
            written.recipient_domains.is_some(),
            Variable::Rcpt,
        ),
        ("sizeUnder", written.size_under.is_some(), Variable::Size),
        ("sizeOver", written.size_over.is_some(), Variable::Size),
        ("listener", written.listener.is_some(), Variable::Listener),
        ("tls", written.tls.is_some(), Variable::TlsVersion),
    ] {
        if present {
            check_known(field, field, variable, points, report);
        }
    }
    if let (Some(under), Some(over)) = (written.size_under, written.size_over)
        && under.0 <= over.0.saturating_add(1)
    {
        let message = format!("no size is over {over} and under {under}");
        report.error(
            "spec.match.sizeUnder",
            message,
            "raise it, or lower sizeOver",
        );
    }
    let domains = |listed: &Option<Vec<String>>| {
        listed
            .as_ref()
            .map(|listed| Domains::new(listed.iter().map(String::as_str)))
    };
    Matcher {
        listener: written.listener.clone(),
        client_networks: written.client_networks.clone(),
        sender_domains: domains(&written.sender_domains),
        recipient_domains: domains(&written.recipient_domains),
        size_under: written.size_under.map(|size| size.0),
        size_over: written.size_over.map(|size| size.0),
        tls: written.tls,
        authenticated: written.authenticated,
        condition: written
            .cel
            .as_deref()
            .and_then(|cel| condition(cel, points, report)),
    }
}

fn check_lists(written: &Match, report: &mut Report<'_>) {
    for (field, length) in [
        ("listener", written.listener.as_ref().map(Vec::len)),
        (
            "clientNetworks",
            written.client_networks.as_ref().map(Vec::len),
        ),
        (
            "senderDomains",
            written.sender_domains.as_ref().map(Vec::len),
        ),
        (
            "recipientDomains",
            written.recipient_domains.as_ref().map(Vec::len),
        ),
    ] {
        let field = format!("spec.match.{field}");
        match length {
            Some(0) => report.error(field, "an empty list matches nothing", "remove the field"),
            Some(n) if n > LIST_VALUES_MAX => {
                let message = format!("{n} values are more than the {LIST_VALUES_MAX} allowed");
                report.error(
                    field,
                    message,
                    "ask a service, as access-control, with its own list",
                );
            }
            _ => {}
        }
    }
    check_domains(
        "senderDomains",
        written.sender_domains.as_deref(),
        true,
        report,
    );
    check_domains(
        "recipientDomains",
        written.recipient_domains.as_deref(),
        false,
        report,
    );
}

fn check_domains(field: &str, listed: Option<&[String]>, null_path: bool, report: &mut Report<'_>) {
    for (index, domain) in listed.unwrap_or_default().iter().enumerate() {
        if is_domain(domain) || (null_path && domain == NULL_PATH) {
            continue;
        }
        let remedy = match domain.rsplit_once('@') {
            Some((_, domain)) => format!("write {domain}, or cel: 'rcpt == \"…\"' for one address"),
            None => "write example.com, or *.example.com for its subdomains".to_owned(),
        };
        let message = format!("`{domain}` is not a domain");
        report.error(format!("spec.match.{field}[{index}]"), message, remedy);
    }
}

/// A domain name (A-labels or U-labels), `*.` before one, or an address literal in brackets.
fn is_domain(text: &str) -> bool {
    if let Some(literal) = text.strip_prefix('[') {
        return literal.ends_with(']');
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    !name.is_empty()
        && name.len() <= super::NAME_OCTETS_MAX
        && name.split('.').all(|label| {
            let allowed =
                |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || !c.is_ascii();
            !label.is_empty() && label.chars().all(allowed)
        })
}

/// Reports a condition on something that is not known yet, or not any more, at one of the points.
fn check_known(
    field: &str,
    what: &str,
    variable: Variable,
    points: &[Point],
    report: &mut Report<'_>,
) {
    let from = variable.known_from();
    let early: Vec<&str> = points
        .iter()
        .filter(|p| **p < from)
        .map(|p| p.name())
        .collect();
    if !early.is_empty() {
        let message = format!("{what} is not known at {}", early.join(", "));
        let remedy =
            format!("it is known from {from} on; write a rule of its own for these points");
        report.error(format!("spec.match.{field}"), message, remedy);
    }
    let is_late = |point: &&Point| **point > variable.known_until();
    let late: Vec<&str> = points.iter().filter(is_late).map(|p| p.name()).collect();
    if !late.is_empty() {
        let message = format!("{what} is not known any more at {}", late.join(", "));
        let remedy = "the queue does not keep it; write a rule of its own for these points";
        report.error(format!("spec.match.{field}"), message, remedy);
    }
}

fn condition(source: &str, points: &[Point], report: &mut Report<'_>) -> Option<Arc<Condition>> {
    match Condition::shared(source) {
        Ok(condition) => {
            for need in condition.needs() {
                check_known("cel", need.name(), *need, points, report);
            }
            Some(condition)
        }
        Err(errors) => {
            for error in errors {
                report.error("spec.match.cel", error.message, error.remedy);
            }
            None
        }
    }
}

// === callout ===

fn compile_callout(
    callout: &Callout,
    name: String,
    service: Option<&Service>,
    points: &[Point],
    report: &mut Report<'_>,
) -> CalloutSpec {
    let class = service.map(|service| service.class);
    if let Some(class) = class {
        check_class(class, points, report);
        check_allow(&callout.allow, class, points, report);
    }
    let parameters = serde_json::Value::Object(callout.parameters.clone());
    let parameters_json = super::revision::canonical_json(&parameters);
    if parameters_json.len() > PARAMETERS_OCTETS_MAX {
        let octets = parameters_json.len();
        let message = format!("{octets} octets are more than the {PARAMETERS_OCTETS_MAX} allowed");
        report.error(
            "spec.callout.parameters",
            message,
            "put it into the service's configuration",
        );
    }
    CalloutSpec {
        service: name,
        wants: wants(&callout.wants, report),
        allow: callout.allow.iter().copied().collect::<PermissionSet>(),
        timeout: super::service::timeout("spec.callout.timeout", callout.timeout, report),
        on_failure: on_failure(callout.on_failure, class, points, report),
        parameters,
        parameters_json,
        bypassable: service.is_some_and(|service| service.bypassable),
    }
}

fn check_class(class: Class, points: &[Point], report: &mut Report<'_>) {
    for (index, point) in points
        .iter()
        .enumerate()
        .filter(|(_, point)| !point.admits(class))
    {
        let usable: Vec<&str> = Point::ALL
            .into_iter()
            .filter(|p| p.admits(class))
            .map(Point::name)
            .collect();
        let why = if point.observe_only() {
            "the message is settled"
        } else {
            "nothing to change"
        };
        report.error(
            format!("spec.at[{index}]"),
            format!("a service of class {class} cannot be called at {point}: {why}"),
            format!("class {class} can be called at {}", usable.join(", ")),
        );
    }
}

fn check_allow(allow: &[Permission], class: Class, points: &[Point], report: &mut Report<'_>) {
    for (index, permission) in allow.iter().enumerate() {
        let field = format!("spec.callout.allow[{index}]");
        if allow
            .iter()
            .take(index)
            .any(|earlier| earlier == permission)
        {
            report.error(field, format!("{permission} is listed twice"), "");
        } else if !permission.fits_class(class) {
            let usable: Vec<&str> = Permission::ALL
                .into_iter()
                .filter(|permission| permission.fits_class(class))
                .map(Permission::name)
                .collect();
            let remedy = match usable.as_slice() {
                [] => "an observer changes nothing: remove it".to_owned(),
                usable => format!("class {class} can use {}", usable.join(", ")),
            };
            let message = format!("a service of class {class} cannot use {permission}");
            report.error(field, message, remedy);
        } else if !points.iter().any(|point| permission.fits_point(*point)) {
            let usable: Vec<&str> = Point::ALL
                .into_iter()
                .filter(|point| permission.fits_point(*point))
                .map(Point::name)
                .collect();
            let message = format!("{permission} means nothing at the points of this rule");
            report.error(
                field,
                message,
                format!("it can be used at {}", usable.join(", ")),
            );
        }
    }
}

fn wants(wants: &RuleWants, report: &mut Report<'_>) -> ContentWant {
    match (wants.content, wants.prefix) {
        (Some(ContentChoice::Prefix), Some(size)) => {
            if size.0 == 0 || size.0 > PREFIX_OCTETS_MAX {
                let message = format!("{size} is not between 1 and {PREFIX_OCTETS_MAX} octets");
                let remedy = "write content: none for no octets, content: all for all";
                report.error("spec.callout.wants.prefix", message, remedy);
            }
            ContentWant::Prefix(size.0)
        }
        (Some(ContentChoice::Prefix), None) => {
            let remedy = "write wants: { content: prefix, prefix: 64Ki }";
            report.error(
                "spec.callout.wants",
                "prefix needs a number of octets",
                remedy,
            );
            ContentWant::AsService
        }
        (_, Some(_)) => {
            let remedy = "write content: prefix, or remove prefix";
            report.error(
                "spec.callout.wants.prefix",
                "is only used with content: prefix",
                remedy,
            );
            ContentWant::AsService
        }
        (Some(ContentChoice::None), None) => ContentWant::None,
        (Some(ContentChoice::Header), None) => ContentWant::Header,
        (Some(ContentChoice::All), None) => ContentWant::All,
        (None, None) => ContentWant::AsService,
    }
}

fn on_failure(
    written: Option<OnFailure>,
    class: Option<Class>,
    points: &[Point],
    report: &mut Report<'_>,
) -> OnFailure {
    let field = "spec.callout.onFailure";
    if class == Some(Class::Observe) {
        if let Some(policy) = written.filter(|policy| *policy != OnFailure::Accept) {
            let message = format!(
                "{} has no effect: nobody waits for an observer",
                policy.name()
            );
            report.warning(field, message, "remove it");
        }
        return OnFailure::Accept;
    }
    let policy = written.unwrap_or_default();
    for point in points.iter().filter(|point| !point.admits_failure(policy)) {
        let message = format!("{} is not possible at {point}", policy.name());
        report.error(
            field,
            message,
            "use tempfail: the message is tried again later",
        );
    }
    policy
}
