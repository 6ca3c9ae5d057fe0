//! Answers of HTTP/1.1 (RFC 9110, RFC 9112).

use std::io::Write;
use std::time::{Duration, SystemTime};

/// The methods that every resource has, for the field `Allow`.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// A status of RFC 9110, section 15, or RFC 6585.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum Status {
    /// 200.
    Ok,
    /// 204.
    NoContent,
    /// 400.
    BadRequest,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 408.
    RequestTimeout,
    /// 413.
    ContentTooLarge,
    /// 414.
    UriTooLong,
    /// 417.
    ExpectationFailed,
    /// 431.
    FieldsTooLarge,
    /// 501.
    NotImplemented,
    /// 503.
    Unavailable,
    /// 505.
    VersionNotSupported,
}

impl Status {
    /// All statuses that the endpoint answers with.
    pub const ALL: &'static [Self] = &[
        Self::Ok,
        Self::NoContent,
        Self::BadRequest,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::ContentTooLarge,
        Self::UriTooLong,
        Self::ExpectationFailed,
        Self::FieldsTooLarge,
        Self::NotImplemented,
        Self::Unavailable,
        Self::VersionNotSupported,
    ];

    /// Returns its code and its reason phrase.
    #[must_use]
    pub const fn line(self) -> (u16, &'static str) {
        match self {
            Self::Ok => (200, "OK"),
            Self::NoContent => (204, "No Content"),
            Self::BadRequest => (400, "Bad Request"),
            Self::NotFound => (404, "Not Found"),
            Self::MethodNotAllowed => (405, "Method Not Allowed"),
            Self::RequestTimeout => (408, "Request Timeout"),
            Self::ContentTooLarge => (413, "Content Too Large"),
            Self::UriTooLong => (414, "URI Too Long"),
            Self::ExpectationFailed => (417, "Expectation Failed"),
            Self::FieldsTooLarge => (431, "Request Header Fields Too Large"),
            Self::NotImplemented => (501, "Not Implemented"),
            Self::Unavailable => (503, "Service Unavailable"),
            Self::VersionNotSupported => (505, "HTTP Version Not Supported"),
        }
    }
}

/// The state of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It stays open, as HTTP/1.1 has it.
    Open,
    /// It stays open because the client has asked for that, as HTTP/1.0 needs it.
    KeptAlive,
    /// It closes.
    Closed,
}

/// An answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Response<'a> {
    pub(super) status: Status,
    pub(super) content_type: &'a str,
    /// Further fields, each with its line end.
    pub(super) fields: &'a str,
    pub(super) body: &'a [u8],
}

/// The type of bodies for people.
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

impl<'a> Response<'a> {
    /// Returns an answer in plain text.
    pub(super) fn plain(status: Status, body: &'a [u8]) -> Self {
        Self { status, content_type: PLAIN, fields: "", body }
    }

    /// Appends the answer to `out`: for a HEAD request without its body.
    pub(super) fn write(&self, is_head: bool, after: After, out: &mut Vec<u8>) {
        let (code, reason) = self.status.line();
        let (date, content_type, fields, length) = (Date::now(), self.content_type, self.fields, self.body.len());
        let write = |out: &mut Vec<u8>| -> std::io::Result<()> {
            write!(out, "HTTP/1.1 {code} {reason}\r\nDate: {date}\r\n")?;
            if matches!(self.status, Status::NoContent | Status::MethodNotAllowed) {
                write!(out, "Allow: {METHODS}\r\n")?;
            }
            if self.status != Status::NoContent {
                write!(out, "Content-Type: {content_type}\r\nContent-Length: {length}\r\n")?;
            }
            write!(out, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{fields}")?;
            out.write_all(match after {
                After::Open => b"",
                After::KeptAlive => b"Connection: keep-alive\r\n",
                After::Closed => b"Connection: close\r\n",
            })?;
            out.write_all(b"\r\n")
        };
        write(out).expect("a vector takes everything");
        if !is_head && self.status != Status::NoContent {
            out.extend_from_slice(self.body);
        }
    }
}

/// A date as HTTP writes it, such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
struct Date(u64);

impl Date {
    fn now() -> Self {
        Self(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs())
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        // Years that begin in March have their leap day last (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
        let shifted = days + 719_468;
        let (era, day) = (shifted / 146_097, shifted % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, carry) = if month < 10 { (month + 2, 0) } else { (month - 10, 1) };
        write!(
            f,
            "{}, {day:02} {} {:04} {:02}:{:02}:{:02} GMT",
            DAYS[(days % 7) as usize],
            MONTHS[month as usize],
            era * 400 + year + carry,
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_http_has_them() {
        for seconds in (0..4_102_444_800).step_by(86_399 * 7) {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Date(seconds).to_string(), httpdate::fmt_http_date(at), "{seconds}");
        }
        assert_eq!(Date(784_111_777).to_string(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn a_head_request_gets_the_same_fields_and_no_body() {
        let (mut whole, mut head) = (Vec::new(), Vec::new());
        let response = Response::plain(Status::Ok, b"ok\n");
        response.write(false, After::Open, &mut whole);
        response.write(true, After::Open, &mut head);
        assert!(whole.ends_with(b"\r\n\r\nok\n"));
        assert_eq!(whole.len(), head.len() + 3);
    }

    #[test]
    fn every_status_has_its_own_code_and_its_place() {
        assert!(Status::ALL.windows(2).all(|pair| pair[0].line().0 < pair[1].line().0));
        assert!(Status::ALL.iter().enumerate().all(|(index, &status)| status as usize == index));
    }
}
