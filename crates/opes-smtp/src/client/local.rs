//! What the client decides by itself, without asking the peer, and the replies it makes for that.

use super::extensions::Extensions;
use super::transaction::{Mail, MailRecipient};
use crate::reply::{Enhanced, Reply};

/// A reason not to offer this message to this peer at all.
pub(super) fn refuse_mail(mail: &Mail<'_>, extensions: &Extensions) -> Option<Reply> {
    if mail.smtputf8 && !extensions.smtputf8 {
        return Some(Reply::NEXT_HOP_WITHOUT_SMTPUTF8);
    }
    if mail.size.is_some_and(|size| extensions.refuse_size(size)) {
        return Some(too_large(mail, extensions));
    }
    if !mail.smtputf8 && !mail.reverse_path.is_ascii() {
        return Some(Reply::NON_ASCII_ADDRESS);
    }
    let safe = is_one_path(mail.reverse_path) && mail.params.iter().all(|param| is_one_word(param));
    (!safe).then_some(Reply::SENDER_SYNTAX)
}

fn too_large(mail: &Mail<'_>, extensions: &Extensions) -> Reply {
    Reply::MESSAGE_TOO_LARGE.with_text(format!(
        "Message of {} octets exceeds the {} octets that the next hop takes",
        mail.size.unwrap_or_default(),
        extensions.size_max.unwrap_or_default(),
    ))
}

/// A reason not to name this recipient to any peer.
pub(super) fn refuse_recipient(to: &MailRecipient<'_>, smtputf8: bool) -> Option<Reply> {
    if !smtputf8 && !to.address.is_ascii() {
        return Some(Reply::NON_ASCII_ADDRESS);
    }
    let safe = !to.address.is_empty()
        && is_one_path(to.address)
        && to.params.iter().all(|param| is_one_word(param));
    (!safe).then_some(Reply::RECIPIENT_SYNTAX)
}

/// Whether an address between angle brackets stays one path and one line, whatever checked it before us. Not a grammar:
/// only what could end the path or the line early.
fn is_one_path(address: &str) -> bool {
    let mut quoted = false;
    let mut escaped = false;
    for octet in address.bytes() {
        match octet {
            0..=31 | 127 => return false,
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b' ' | b'<' | b'>' if !quoted => return false,
            _ => {}
        }
    }
    !quoted && !escaped
}

fn is_one_word(param: &str) -> bool {
    !param.is_empty() && !param.bytes().any(|octet| octet <= b' ' || octet == 127)
}

/// Whether `param` is `KEYWORD` or `KEYWORD=value` for one of the keywords.
pub(super) fn is_parameter_of(param: &str, keywords: &[&str]) -> bool {
    let keyword = param.split('=').next().unwrap_or(param);
    keywords
        .iter()
        .any(|wanted| wanted.eq_ignore_ascii_case(keyword))
}

/// RFC 5321 §4.5.3.1.10: 552 to RCPT is what old servers say for "too many recipients" and means 452. An enhanced code
/// that names another subject than the protocol says that it is meant as it stands.
pub(super) fn too_many_recipients_is_transient(reply: Reply) -> Reply {
    let old_meaning = matches!(reply.enhanced(), None | Some(Enhanced(_, 5, _)));
    if reply.code() == Reply::MESSAGE_TOO_LARGE.code() && old_meaning {
        return Reply::TOO_MANY_RECIPIENTS.with_text(format!("Next hop said: {reply}"));
    }
    reply
}

/// The next hop cannot be used at all just now, and this is what it said. Always transient: a next hop that greets with
/// 554 is misconfigured or we are, and neither is a reason to return everybody's mail.
pub(super) fn session_refused(at: &str, reply: &Reply) -> Reply {
    Reply::NEXT_HOP_UNREACHABLE.with_text(format!("Next hop refused the session at {at}: {reply}"))
}

/// The reply makes no sense where it came.
pub(super) fn out_of_place(reply: &Reply) -> Reply {
    Reply::NEXT_HOP_PROTOCOL_ERROR.with_text(format!("Next hop sent an unexpected reply: {reply}"))
}

/// STARTTLS is required and cannot be had (RFC 3463 §3.8: x.7.4 security features not supported).
pub(super) fn tls_not_to_be_had(what: &str) -> Reply {
    Reply::NEXT_HOP_UNREACHABLE.with_text(format!(
        "TLS is required for this next hop, but {what}; set its TLS mode or repair its TLS"
    ))
}

/// Octets in clear text after the reply to STARTTLS would be taken for encrypted ones (CVE-2011-0411, client side).
pub(super) fn clear_text_behind_starttls() -> Reply {
    Reply::NEXT_HOP_PROTOCOL_ERROR
        .with_text("Next hop sent octets in clear text behind its reply to STARTTLS")
}
