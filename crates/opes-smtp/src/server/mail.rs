//! MAIL (RFC 5321 §4.1.1.2) with SIZE, BODY, SMTPUTF8, AUTH, RET, ENVID and OPESBYPASS.

use bytes::Bytes;

use super::transaction::MailOptions;
use super::{Action, Asked, AuthMode, Body, Check, Session, Transaction};
use crate::command::size;
use crate::grammar::{Parameters, ReversePath};
use crate::limits::BYPASS_KEYWORD;
use crate::reply::Reply;

impl Session {
    pub(super) fn check_mail(
        &mut self,
        line: Bytes,
        path: ReversePath,
        params: Parameters,
    ) -> Option<Action> {
        if let Err(reply) = self.admit_mail(&path, &params) {
            self.protocol_error(&reply);
            return None;
        }
        self.asked = Asked::Mail {
            path: path.clone(),
            params: params.clone(),
        };
        Some(Action::Check(Check::Mail { line, path, params }))
    }

    pub(super) fn proceed_mail(&mut self, path: ReversePath, params: Parameters) {
        // Admitted before it was asked about, by the same function.
        let options = self.admit_mail(&path, &params).unwrap_or_default();
        self.transaction = Some(Transaction::new(path, params, &options));
        self.push(&Reply::SENDER_OK);
    }

    /// Local limits and offered extensions.
    pub(super) fn admit_mail(
        &self,
        path: &ReversePath,
        params: &Parameters,
    ) -> Result<MailOptions, Reply> {
        let mut options = MailOptions::default();
        for (keyword, value) in params.iter() {
            self.admit_parameter(&keyword.to_ascii_uppercase(), value, &mut options)?;
        }
        let ascii = path.as_str().is_ascii() && is_ascii(params);
        if ascii || options.smtputf8 {
            Ok(options)
        } else {
            Err(Reply::NON_ASCII_ADDRESS)
        }
    }

    fn admit_parameter(
        &self,
        keyword: &str,
        value: Option<&str>,
        options: &mut MailOptions,
    ) -> Result<(), Reply> {
        let config = &self.config;
        match (keyword, value) {
            ("SIZE", value) => options.size_declared = Some(self.admit_size(value)?),
            ("BODY", value) => options.body = body(value)?,
            ("SMTPUTF8", None) if config.smtputf8 => options.smtputf8 = true,
            ("AUTH", Some(_)) if config.auth != AuthMode::Off => {}
            ("RET", Some(ret)) if config.dsn && (is(ret, "FULL") || is(ret, "HDRS")) => {}
            ("ENVID", Some(_)) if config.dsn => {}
            ("PRDR", None) if self.offers_prdr() => options.prdr = true,
            // The value is a matter between client and shell.
            (BYPASS_KEYWORD, Some(_)) if config.opes_bypass => {}
            (BYPASS_KEYWORD, None) if config.opes_bypass => return Err(Reply::PARAMETER_SYNTAX),
            ("SMTPUTF8", _) if config.smtputf8 => return Err(Reply::PARAMETER_SYNTAX),
            ("PRDR", _) if self.offers_prdr() => return Err(Reply::PARAMETER_SYNTAX),
            ("RET" | "ENVID", _) if config.dsn => return Err(Reply::PARAMETER_SYNTAX),
            _ => return Err(Reply::UNKNOWN_PARAMETER),
        }
        Ok(())
    }

    /// RFC 1870 §6.1.
    fn admit_size(&self, value: Option<&str>) -> Result<u64, Reply> {
        // 20 digits can exceed 64 bits: too large for anybody.
        let digits =
            value.filter(|value| !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()));
        let octets =
            size(digits.ok_or(Reply::PARAMETER_SYNTAX)?).ok_or(Reply::MESSAGE_TOO_LARGE)?;
        if octets > self.config.size_max {
            Err(Reply::MESSAGE_TOO_LARGE)
        } else {
            Ok(octets)
        }
    }
}

/// RFC 6152 §2; BINARYMIME (RFC 3030 §3) is not offered.
fn body(value: Option<&str>) -> Result<Body, Reply> {
    match value {
        Some(value) if is(value, "7BIT") => Ok(Body::SevenBit),
        Some(value) if is(value, "8BITMIME") => Ok(Body::EightBitMime),
        _ => Err(Reply::PARAMETER_SYNTAX),
    }
}

fn is(value: &str, keyword: &str) -> bool {
    value.eq_ignore_ascii_case(keyword)
}

/// RFC 6531 §3.3: values beyond US-ASCII need SMTPUTF8 too.
pub(super) fn is_ascii(params: &Parameters) -> bool {
    params
        .as_slice()
        .iter()
        .all(|parameter| parameter.is_ascii())
}
