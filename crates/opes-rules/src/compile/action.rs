//! Local actions and their replies.

use super::Report;
use crate::object::{Action, ReplySpec};
use crate::point::Point;
use crate::table::{LocalAction, LocalReply};

/// Longest reply text: with code and enhanced code it fits a reply line (RFC 5321 §4.5.3.1.5).
const REPLY_TEXT_OCTETS_MAX: usize = 450;
/// Longest line of a message (RFC 5322 §2.1.1).
const LINE_OCTETS_MAX: usize = 998;
/// Longest subject mark in characters.
const MARK_CHARS_MAX: usize = 100;
/// Longest reason of a quarantine in characters.
const REASON_CHARS_MAX: usize = 500;
const SMTP_PORT: u16 = 25;
/// Port registered for LMTP over TCP is none; 24 is what servers use.
const LMTP_PORT: u16 = 24;

/// Fields that only the processor or the final delivery agent may write.
const PROTECTED_FIELDS: [&str; 5] = [
    "Return-Path",
    "Received",
    "OPES-System",
    "OPES-Via",
    "Content-Transfer-Encoding",
];

/// Compiles an action for a rule that looks at these points.
pub(super) fn compile(
    action: &Action,
    points: &[Point],
    report: &mut Report<'_>,
) -> Option<LocalAction> {
    let field = |name: &str| format!("spec.action.{name}");
    let compiled = match action {
        Action::Reject(reply) => {
            LocalAction::Reject(checked_reply(&field("reject"), reply, points, 5, report)?)
        }
        Action::Tempfail(reply) => {
            LocalAction::Tempfail(checked_reply(&field("tempfail"), reply, points, 4, report)?)
        }
        Action::Accept {} => LocalAction::Accept,
        Action::Continue {} => LocalAction::Continue,
        Action::Discard { acknowledge_loss } => {
            if !acknowledge_loss {
                let message = "the message would be lost and nobody told";
                report.error(
                    field("discard"),
                    message,
                    "write discard: { acknowledgeLoss: true }",
                );
            }
            LocalAction::Discard
        }
        Action::Quarantine { reason } => {
            check_text(
                &field("quarantine.reason"),
                reason,
                REASON_CHARS_MAX,
                report,
            );
            LocalAction::Quarantine {
                reason: reason.clone(),
            }
        }
        Action::AddHeader { name, value } => {
            check_header(name, value, report);
            LocalAction::AddHeader {
                name: name.clone(),
                value: value.clone(),
            }
        }
        Action::MarkSubject { text } => {
            check_text(&field("markSubject.text"), text, MARK_CHARS_MAX, report);
            LocalAction::MarkSubject { text: text.clone() }
        }
        Action::Route { host, port, lmtp } => route(host, *port, *lmtp, report),
    };
    check_points(&compiled, points, report);
    Some(compiled)
}

/// Where an action means something.
fn fits(action: &LocalAction, point: Point) -> bool {
    if point.observe_only() {
        return false;
    }
    match action {
        LocalAction::Reject(_) => point < Point::Routing,
        LocalAction::Tempfail(_) | LocalAction::Accept | LocalAction::Continue => true,
        LocalAction::Discard
        | LocalAction::Quarantine { .. }
        | LocalAction::AddHeader { .. }
        | LocalAction::MarkSubject { .. } => matches!(point, Point::Content | Point::Routing),
        LocalAction::Route { .. } => {
            matches!(point, Point::RcptTo | Point::Content | Point::Routing)
        }
    }
}

fn check_points(action: &LocalAction, points: &[Point], report: &mut Report<'_>) {
    for (index, point) in points
        .iter()
        .enumerate()
        .filter(|(_, point)| !fits(action, **point))
    {
        let usable: Vec<&str> = Point::ALL
            .into_iter()
            .filter(|p| fits(action, *p))
            .map(Point::name)
            .collect();
        report.error(
            format!("spec.at[{index}]"),
            format!("`{}` cannot be done at {point}", action.name()),
            format!("it can be done at {}", usable.join(", ")),
        );
    }
}

fn checked_reply(
    field: &str,
    reply: &ReplySpec,
    points: &[Point],
    class: u8,
    report: &mut Report<'_>,
) -> Option<LocalReply> {
    let before = report.found.len();
    let code = reply.code.unwrap_or_else(|| default_code(class, points));
    if code / 100 != u16::from(class) || code % 100 > 59 {
        let message = format!("{code} is not a reply code from {class}00 to {class}59");
        report.error(format!("{field}.code"), message, other_class(class));
    }
    let written = reply.enhanced.as_deref();
    let enhanced = match written.map(parse_enhanced) {
        None => (class, 7, 1),
        Some(Some(enhanced)) if enhanced.0 == class => enhanced,
        Some(_) => {
            let message = format!("`{}` is not an enhanced code", written.unwrap_or_default());
            report.error(
                format!("{field}.enhanced"),
                message,
                format!("write {class}.7.1"),
            );
            (class, 7, 1)
        }
    };
    let default = if class == 5 {
        "refused by policy"
    } else {
        "refused for now, try again later"
    };
    let text = reply.text.as_deref().unwrap_or(default);
    let printable = !text.is_empty() && text.bytes().all(|b| matches!(b, b' '..=b'~'));
    if !printable || text.len() > REPLY_TEXT_OCTETS_MAX {
        let message = format!(
            "is not one line of 1 to {REPLY_TEXT_OCTETS_MAX} printable US-ASCII characters"
        );
        report.error(
            format!("{field}.text"),
            message,
            "the code is added by itself",
        );
    }
    (report.found.len() == before).then(|| LocalReply {
        code,
        enhanced,
        text: text.to_owned(),
    })
}

/// RFC 5321 §4.3.2: a greeting can only be 554 or 421.
fn default_code(class: u8, points: &[Point]) -> u16 {
    let greeting = points.contains(&Point::Connect);
    match (class, greeting) {
        (5, true) => 554,
        (5, false) => 550,
        (_, true) => 421,
        (_, false) => 451,
    }
}

const fn other_class(class: u8) -> &'static str {
    if class == 5 {
        "for a 4xx code use tempfail"
    } else {
        "for a 5xx code use reject"
    }
}

fn parse_enhanced(text: &str) -> Option<(u8, u16, u16)> {
    let mut parts = text.split('.');
    let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |part: &str| {
        let digits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<u16>().ok()).flatten()
    };
    let rest = parts.next();
    match (class, rest) {
        ("4", None) => Some((4, number(subject)?, number(detail)?)),
        ("5", None) => Some((5, number(subject)?, number(detail)?)),
        _ => None,
    }
}

fn check_text(field: &str, text: &str, chars_max: usize, report: &mut Report<'_>) {
    let chars = text.chars().count();
    if text.trim().is_empty() || chars > chars_max || text.contains(char::is_control) {
        let message = format!("is not one line of 1 to {chars_max} characters");
        report.error(field, message, "");
    }
}

fn check_header(name: &str, value: &str, report: &mut Report<'_>) {
    if !is_field_name(name) {
        let message = format!("`{name}` is not a header field name");
        report.error(
            "spec.action.addHeader.name",
            message,
            "write it without the colon",
        );
    }
    if PROTECTED_FIELDS
        .iter()
        .any(|protected| protected.eq_ignore_ascii_case(name))
    {
        let message = format!("`{name}` is not for rules to write");
        report.error(
            "spec.action.addHeader.name",
            message,
            "use a field of your own, as X-Policy",
        );
    }
    let printable = !value.is_empty() && value.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'));
    if !printable || name.len() + 2 + value.len() > LINE_OCTETS_MAX {
        let message = "is not one line of printable US-ASCII that fits a line of 998 octets";
        report.error(
            "spec.action.addHeader.value",
            message,
            "encode other characters (RFC 2047)",
        );
    }
}

/// RFC 5322 §2.2: printable US-ASCII without colon and space.
pub(crate) fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 76 && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

fn route(host: &str, port: Option<u16>, lmtp: bool, report: &mut Report<'_>) -> LocalAction {
    if !super::service::is_host_name(host) && host.parse::<std::net::IpAddr>().is_err() {
        let message = format!("`{host}` is not a host name or an address");
        report.error(
            "spec.action.route.host",
            message,
            "write the port in `port`",
        );
    }
    let port = port.unwrap_or(if lmtp { LMTP_PORT } else { SMTP_PORT });
    if port == 0 {
        report.error("spec.action.route.port", "0 is not a port", "");
    }
    LocalAction::Route {
        host: host.to_owned(),
        port,
        lmtp,
    }
}
