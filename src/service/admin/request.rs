//! Requests of HTTP/1.x (RFC 9110, RFC 9112): heads, however the network has cut them, and what they ask for.

use super::response::Status;

/// The longest head, in bytes, with the empty line at its end.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// The most fields of a head.
const MAX_FIELDS: usize = 64;

/// The longest request target, in bytes.
const MAX_TARGET_BYTES: usize = 2 * 1024;

/// A resource of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// `/`: the live page.
    Page,
    /// `/metrics`.
    Metrics(Format),
    /// `/livez`.
    Live,
    /// `/readyz`.
    Ready,
}

/// A format of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// The part of a request that decides the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted {
    /// GET or HEAD.
    Resource(Resource),
    /// OPTIONS.
    Methods,
    /// Nothing that the endpoint has.
    Error(Status),
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The resource, or the error.
    pub wanted: Wanted,
    /// Only the head of the answer is sent.
    pub is_head: bool,
    /// The client of HTTP/1.0 must be told that the connection stays open.
    pub is_kept_alive: bool,
    /// The connection closes after the answer.
    pub is_last: bool,
}

impl Request {
    /// Returns the request that stands for bytes that are none, and that begin with `head`. It is not clear where the next request begins:
    /// the connection closes.
    fn malformed(status: Status, head: &[u8]) -> Self {
        // No answer to HEAD has a body (RFC 9110, section 9.3.2).
        Self { wanted: Wanted::Error(status), is_head: head.starts_with(b"HEAD "), is_kept_alive: false, is_last: true }
    }

    /// Reads a whole head.
    ///
    /// # Errors
    /// The status of the answer after which the connection must close.
    fn parse(head: &[u8]) -> Result<Self, Status> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(head) {
            Ok(httparse::Status::Complete(bytes)) if bytes == head.len() => {}
            Ok(_) => return Err(Status::BadRequest),
            Err(error) => return Err(status_of(error)),
        }
        let is_1_0 = request.version == Some(0);
        let fields = Fields::read(request.headers, is_1_0)?;
        if fields.hosts != 1 && !(is_1_0 && fields.hosts == 0) {
            return Err(Status::BadRequest); // RFC 9112, section 3.2
        }
        if fields.has_other_expectation {
            return Err(Status::ExpectationFailed);
        }
        let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
        if target.len() > MAX_TARGET_BYTES {
            return Err(Status::UriTooLong);
        }
        let mut wanted = wanted(method, target, fields.format);
        if fields.has_body && matches!(wanted, Wanted::Resource(_) | Wanted::Methods) {
            wanted = Wanted::Error(Status::ContentTooLarge);
        }
        Ok(Self {
            wanted,
            is_head: method == "HEAD",
            is_kept_alive: is_1_0 && fields.keeps_alive,
            // No body is read: what follows the head of a request with a body is no request.
            is_last: fields.closes || fields.has_body || (is_1_0 && !fields.keeps_alive),
        })
    }
}

fn status_of(error: httparse::Error) -> Status {
    match error {
        httparse::Error::TooManyHeaders => Status::FieldsTooLarge,
        httparse::Error::Version => Status::VersionNotSupported,
        _ => Status::BadRequest,
    }
}

fn wanted(method: &str, target: &str, format: Format) -> Wanted {
    if method == "CONNECT" {
        return Wanted::Error(Status::MethodNotAllowed); // its target is no path
    }
    let resource = match path(target) {
        None if target == "*" && method == "OPTIONS" => return Wanted::Methods, // RFC 9112, section 3.2.4
        None => return Wanted::Error(Status::BadRequest),
        Some("/") => Resource::Page,
        Some("/metrics") => Resource::Metrics(format),
        Some("/livez") => Resource::Live,
        Some("/readyz") => Resource::Ready,
        Some(_) => return Wanted::Error(Status::NotFound),
    };
    match method {
        "GET" | "HEAD" => Wanted::Resource(resource),
        "OPTIONS" => Wanted::Methods,
        _ => Wanted::Error(Status::MethodNotAllowed),
    }
}

/// Returns the path of a target without its query: of `/path` or `http://authority/path` (RFC 9112, sections 3.2.1 and 3.2.2).
fn path(target: &str) -> Option<&str> {
    let whole = if target.starts_with('/') {
        target
    } else {
        let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"))?;
        let rest = &target[scheme.len()..];
        &rest[rest.find(['/', '?']).unwrap_or(rest.len())..]
    };
    let path = whole.split(['?', '#']).next().unwrap_or_default();
    Some(if path.is_empty() { "/" } else { path })
}

/// The fields that the endpoint looks at.
struct Fields {
    hosts: usize,
    has_body: bool,
    has_other_expectation: bool,
    closes: bool,
    keeps_alive: bool,
    format: Format,
}

impl Fields {
    /// # Errors
    /// The status for fields that contradict each other or have no meaning here.
    fn read(fields: &[httparse::Header<'_>], is_1_0: bool) -> Result<Self, Status> {
        let (mut length, mut has_coding, mut accept) = (None, false, Accept::default());
        let mut read = Self {
            hosts: 0,
            has_body: false,
            has_other_expectation: false,
            closes: false,
            keeps_alive: false,
            format: Format::Text,
        };
        for field in fields {
            let (value, is) = (field.value.trim_ascii(), |name| field.name.eq_ignore_ascii_case(name));
            match () {
                () if is("host") => {
                    read.hosts += 1;
                    if !value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte)) {
                        return Err(Status::BadRequest);
                    }
                }
                () if is("content-length") => {
                    let digits = str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                    let bytes: u64 = digits.and_then(|digits| digits.parse().ok()).ok_or(Status::BadRequest)?;
                    if length.replace(bytes).is_some_and(|before| before != bytes) {
                        return Err(Status::BadRequest);
                    }
                }
                () if is("transfer-encoding") => {
                    if is_1_0 {
                        return Err(Status::BadRequest); // RFC 9112, section 6.1
                    }
                    if !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Status::NotImplemented);
                    }
                    has_coding = true;
                }
                () if is("expect") => read.has_other_expectation |= !value.eq_ignore_ascii_case(b"100-continue"),
                () if is("connection") => {
                    for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                        read.closes |= option.eq_ignore_ascii_case(b"close");
                        read.keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                () if is("accept") => accept.read(&String::from_utf8_lossy(value)),
                () => {}
            }
        }
        if has_coding && length.is_some() {
            return Err(Status::BadRequest); // RFC 9112, section 6.1: an attempt at request smuggling
        }
        read.has_body = has_coding || length.is_some_and(|bytes| bytes > 0);
        read.format = accept.format();
        Ok(read)
    }
}

/// The weights of the two formats in the field `Accept` (RFC 9110, section 12.5.1), in thousandths.
#[derive(Default)]
struct Accept {
    open_metrics: Option<u16>,
    text: Option<u16>,
}

impl Accept {
    fn read(&mut self, value: &str) {
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (1000, None);
            for part in parts {
                match part.split_once('=') {
                    Some((name, value)) if name.trim().eq_ignore_ascii_case("q") => {
                        weight = (value.trim().parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u16;
                    }
                    Some((name, value)) if name.trim().eq_ignore_ascii_case("version") => {
                        version = Some(value.trim().trim_matches('"'))
                    }
                    _ => {}
                }
            }
            match (&*kind, version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => {
                    self.open_metrics = self.open_metrics.max(Some(weight))
                }
                ("text/plain", None | Some("0.0.4")) => self.text = self.text.max(Some(weight)),
                _ => {}
            }
        }
    }

    /// Returns OpenMetrics if the client names it and does not prefer text.
    fn format(&self) -> Format {
        let is_wanted = self.open_metrics.is_some_and(|weight| weight > 0 && Some(weight) >= self.text);
        if is_wanted { Format::OpenMetrics } else { Format::Text }
    }
}

/// Collects the bytes of a head until it is whole. Takes up to [`MAX_HEAD_BYTES`] of memory while a head is incomplete, and none otherwise.
///
/// ```
/// use edgecho::service::admin::{Heads, Resource, Wanted};
///
/// let mut heads = Heads::default();
/// assert_eq!(heads.take(b"GET /livez HT"), (13, None));
/// let (taken, request) = heads.take(b"TP/1.1\r\nHost: localhost\r\n\r\nGET /");
/// assert_eq!((taken, request.expect("a whole head").wanted), (27, Wanted::Resource(Resource::Live)));
/// ```
#[derive(Debug, Default)]
pub struct Heads {
    head: Vec<u8>,
    /// The start of the last line.
    line: usize,
}

impl Heads {
    /// Returns whether a head is incomplete.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        !self.head.is_empty()
    }

    /// Returns the number of bytes that are kept.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.head.len()
    }

    /// Takes bytes up to the end of the first head. Returns the number of bytes taken: all of `input`, if no head ends in it. Bytes that
    /// cannot become a head are answered as soon as that is known, and the connection closes after that answer.
    pub fn take(&mut self, input: &[u8]) -> (usize, Option<Request>) {
        let mut has_new_line = self.head.is_empty();
        for (index, &byte) in input.iter().enumerate() {
            if self.head.is_empty() && b"\r\n".contains(&byte) {
                continue; // empty lines in front of a request are ignored (RFC 9112, section 2.2)
            }
            self.head.push(byte);
            if byte == b'\n' {
                has_new_line = true;
                // A line may end with LF alone (RFC 9112, section 2.2).
                if matches!(&self.head[self.line..], b"\n" | b"\r\n") {
                    let request = Request::parse(&self.head).unwrap_or_else(|status| Request::malformed(status, &self.head));
                    *self = Self::default();
                    return (index + 1, Some(request));
                }
                self.line = self.head.len();
            }
            if self.head.len() == MAX_HEAD_BYTES {
                let status = if self.line == 0 { Status::UriTooLong } else { Status::FieldsTooLarge };
                return (index + 1, Some(self.refuse(status)));
            }
        }
        if has_new_line && let Some(status) = self.early_error() {
            return (input.len(), Some(self.refuse(status)));
        }
        (input.len(), None)
    }

    /// Drops an incomplete head. Returns the request that stands for it, and that is answered with this error.
    pub(super) fn refuse(&mut self, status: Status) -> Request {
        let head = std::mem::take(self).head;
        Request::malformed(status, &head)
    }

    /// Returns the error of an incomplete head that cannot become a good one.
    fn early_error(&self) -> Option<Status> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        match httparse::Request::new(&mut fields).parse(&self.head) {
            Ok(httparse::Status::Partial) => None,
            Ok(httparse::Status::Complete(_)) => Some(Status::BadRequest),
            Err(error) => Some(status_of(error)),
        }
    }
}

#[cfg(test)]
mod tests;
