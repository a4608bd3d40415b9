//! The trace field that every SMTP server prepends (RFC 5321 §4.4, with the keywords of RFC 3848).

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::SystemTime;

/// What a `Received` field says.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    pub(crate) helo: &'a str,
    pub(crate) client: IpAddr,
    pub(crate) hostname: &'a str,
    /// `ESMTPSA`, `LMTP` …
    pub(crate) with: &'static str,
    pub(crate) id: &'a str,
    /// Named only if it is the only one: a list would show blind copies to everybody.
    pub(crate) recipient: Option<&'a str>,
    pub(crate) at: SystemTime,
}

impl Received<'_> {
    /// The whole field, folded, with its CRLF.
    pub(crate) fn field(&self) -> String {
        let mut field = String::with_capacity(256);
        let literal = match self.client {
            IpAddr::V4(ip) => format!("[{ip}]"),
            IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        };
        let _ = write!(
            field,
            "Received: from {} ({literal})\r\n\tby {} with {} id {}",
            safe(self.helo),
            self.hostname,
            self.with,
            self.id
        );
        if let Some(recipient) = self.recipient {
            let _ = write!(field, "\r\n\tfor <{recipient}>");
        }
        let _ = write!(field, ";\r\n\t{}\r\n", date_time(self.at));
        field
    }
}

/// The client chose its HELO argument: nothing in it may open a comment, a clause or a line.
fn safe(helo: &str) -> String {
    let kept = helo
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-._[]:".contains(*c));
    let kept: String = kept.take(255).collect();
    if kept.is_empty() {
        "unknown".into()
    } else {
        kept
    }
}

/// The keyword of RFC 3848 (and RFC 6531 §4.3 for UTF8).
#[expect(
    clippy::fn_params_excessive_bools,
    reason = "the registry of keywords is a table of these"
)]
pub(crate) fn with_keyword(
    lmtp: bool,
    extended: bool,
    tls: bool,
    auth: bool,
    utf8: bool,
) -> &'static str {
    match (lmtp, utf8, tls, auth) {
        (true, false, false, false) => "LMTP",
        (true, false, true, false) => "LMTPS",
        (true, false, false, true) => "LMTPA",
        (true, false, true, true) => "LMTPSA",
        (true, true, false, false) => "UTF8LMTP",
        (true, true, true, false) => "UTF8LMTPS",
        (true, true, false, true) => "UTF8LMTPA",
        (true, true, true, true) => "UTF8LMTPSA",
        (false, true, false, false) => "UTF8SMTP",
        (false, true, true, false) => "UTF8SMTPS",
        (false, true, false, true) => "UTF8SMTPA",
        (false, true, true, true) => "UTF8SMTPSA",
        (false, false, true, false) => "ESMTPS",
        (false, false, false, true) => "ESMTPA",
        (false, false, true, true) => "ESMTPSA",
        (false, false, false, false) if extended => "ESMTP",
        (false, false, false, false) => "SMTP",
    }
}

/// RFC 5322 §3.3 date-time in UTC.
pub(crate) fn date_time(at: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{}, {day} {} {year} {:02}:{:02}:{:02} +0000",
        DAYS[(days % 7) as usize],
        MONTHS[month],
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

/// Days since 1970-01-01 to (year, month index, day), proleptic Gregorian.
fn civil(days: u64) -> (u64, usize, u64) {
    let mut rest = days;
    let mut year = 1970;
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let era = rest / 146_097;
    year += era * 400;
    rest %= 146_097;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if rest < length {
            break;
        }
        rest -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while rest >= lengths[month] {
        rest -= lengths[month];
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates_known_from_elsewhere() {
        assert_eq!(date_time(at(0)), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(
            date_time(at(951_782_400)),
            "Tue, 29 Feb 2000 00:00:00 +0000"
        );
        assert_eq!(
            date_time(at(1_795_000_000)),
            "Wed, 18 Nov 2026 11:06:40 +0000"
        );
        assert_eq!(
            date_time(at(4_107_542_399)),
            "Sun, 28 Feb 2100 23:59:59 +0000"
        );
    }

    #[test]
    fn a_hostile_helo_cannot_add_a_line_or_a_clause() {
        let received = Received {
            helo: "x)\r\nBcc: a@example.com (by evil",
            client: "192.0.2.1".parse().unwrap(),
            hostname: "mail.example.com",
            with: "ESMTP",
            id: "1",
            recipient: None,
            at: at(0),
        };
        let field = received.field();
        assert_eq!(
            field,
            "Received: from xBcc:aexample.combyevil ([192.0.2.1])\r\n\tby mail.example.com with ESMTP id 1;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
    }
}
