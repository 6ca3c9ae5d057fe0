//! An HTTP/1.1 server (RFC 9110, RFC 9112): `GET /` answers with a greeting, `POST /echo` with the body of the request.
//!
//!     cargo run --release --example http
//!     curl -i http://127.0.0.1:7777/
//!     curl -i -d hello http://127.0.0.1:7777/echo
//!     wrk -c 50 http://127.0.0.1:7777/
//!
//! Everything is bounded: a head has at most 8 KiB and 64 fields, a body 64 KiB, and a peer that does not read is not answered. It
//! understands keep-alive, pipelining, `Content-Length`, `Expect` and HEAD. Transfer codings are refused with 501.

use std::io::Write;
use std::time::{Duration, SystemTime};

use edgecho::protocol::{DecodeError, Decoder, Extent, Format, Pieces, Post, Protocol, Reply, Timer};
use edgecho::server::Server;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// The most fields of a head.
const MAX_FIELDS: usize = 64;

/// The longest body of a request, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Answers are sent in portions of this size, in bytes.
const PORTION: usize = 64 * 1024;

/// The timer that renews the `Date`.
const NEXT_SECOND: u32 = 1;

/// Heads of requests, which end with an empty line.
#[derive(Default)]
pub(crate) struct Heads {
    looked_at: usize,
}

impl Format for Heads {
    fn measure(&mut self, bytes: &[u8]) -> Result<Extent, DecodeError> {
        // Empty lines in front of a request are ignored (RFC 9112, 2.2).
        let start = bytes.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        let from = self.looked_at.max(start);
        let mut ends = bytes.iter().enumerate().skip(from).filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        // A line may end with LF alone (RFC 9112, 2.2).
        let end = ends.find(|&end| bytes[start..end].ends_with(b"\n\r\n") || bytes[start..end].ends_with(b"\n\n"));
        self.looked_at = if end.is_some() { 0 } else { bytes.len() };
        Ok(end.map_or(Extent::AtLeast(bytes.len() + 1), Extent::Whole))
    }
}

/// The answer that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Greeting,
    Echo,
    /// An error that is answered after the body.
    Refused(Status),
}

type Status = &'static str;

/// A request, without its body.
#[derive(Debug)]
struct Request {
    target: Target,
    /// The field that a 405 tells the allowed methods with.
    allow: &'static str,
    body_bytes: usize,
    /// Only the head of the answer is sent.
    is_head: bool,
    /// The connection is closed after the answer.
    is_last: bool,
    expects_continue: bool,
}

impl Request {
    /// Returns a request that cannot be understood.
    fn refused(status: Status) -> Self {
        Self {
            target: Target::Refused(status),
            allow: "",
            body_bytes: 0,
            is_head: false,
            is_last: true,
            expects_continue: false,
        }
    }

    /// Reads a whole head.
    ///
    /// # Errors
    /// The status of the answer. The connection must then be closed, because it is not clear where the next request begins.
    fn parse(head: &[u8]) -> Result<Self, Status> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(head) {
            // An empty line within the head, of bare LFs, would hide a second request.
            Ok(httparse::Status::Complete(bytes)) if bytes == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err("431 Request Header Fields Too Large"),
            Err(httparse::Error::Version) => return Err("505 HTTP Version Not Supported"),
            _ => return Err("400 Bad Request"),
        }
        let is_1_0 = request.version == Some(0);
        let (mut hosts, mut length, mut expects_continue, mut is_last) = (0, None, false, is_1_0);
        for field in request.headers.iter() {
            let (value, is) = (field.value.trim_ascii(), |name| field.name.eq_ignore_ascii_case(name));
            match () {
                () if is("host") => hosts += 1,
                () if is("content-length") => {
                    let text = str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                    let bytes: usize = text.and_then(|text| text.parse().ok()).ok_or("400 Bad Request")?;
                    if length.replace(bytes).is_some_and(|before| before != bytes) {
                        return Err("400 Bad Request");
                    }
                }
                () if is("transfer-encoding") => return Err("501 Not Implemented"),
                () if is("expect") && value.eq_ignore_ascii_case(b"100-continue") => expects_continue = !is_1_0,
                () if is("expect") => return Err("417 Expectation Failed"),
                () if is("connection") => {
                    let mut options = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                    is_last |= options.any(|option| option.eq_ignore_ascii_case(b"close"));
                }
                () => {}
            }
        }
        if hosts != 1 && !is_1_0 {
            return Err("400 Bad Request"); // RFC 9112, 3.2
        }
        let body_bytes = length.unwrap_or(0);
        if body_bytes > MAX_BODY {
            return Err("413 Content Too Large");
        }
        let method = request.method.unwrap_or_default();
        let (target, allow) = match (request.path.unwrap_or_default(), method) {
            ("/", "GET" | "HEAD") => (Target::Greeting, ""),
            ("/echo", "POST") => (Target::Echo, ""),
            ("/", _) => (Target::Refused("405 Method Not Allowed"), "Allow: GET, HEAD\r\n"),
            ("/echo", _) => (Target::Refused("405 Method Not Allowed"), "Allow: POST\r\n"),
            _ => (Target::Refused("404 Not Found"), ""),
        };
        Ok(Self { target, allow, body_bytes, is_head: method == "HEAD", is_last, expects_continue })
    }
}

/// A connection.
pub(crate) struct Session {
    heads: Pieces<Heads>,
    /// The request whose body is being received.
    request: Option<Request>,
    body: Vec<u8>,
    /// The last request has been answered.
    is_over: bool,
}

/// The server.
#[derive(Debug, Default)]
pub(crate) struct Http {
    date: String,
    /// Answers of the current call. The memory is kept for the next.
    answers: Vec<u8>,
}

impl Http {
    /// Takes the next part of `input`, a head or a part of a body, and appends what is to be answered. Returns the number of bytes taken.
    ///
    /// # Errors
    /// The status of the answer after which the connection is closed.
    fn take(&self, session: &mut Session, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Status> {
        let Some(request) = session.request.take() else {
            let mut request = None;
            let result = session.heads.decode(input, |head| {
                request = Some(Request::parse(head));
                false
            });
            let taken = result.map_err(|_| "431 Request Header Fields Too Large")?;
            match request.transpose()? {
                Some(request) if request.body_bytes > 0 => {
                    if request.expects_continue && taken == input.len() {
                        out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    session.request = Some(request);
                }
                Some(request) => self.answer(session, &request, b"", out),
                None => {}
            }
            return Ok(taken);
        };
        let part = &input[..input.len().min(request.body_bytes - session.body.len())];
        session.body.extend_from_slice(part);
        if session.body.len() == request.body_bytes {
            let body = std::mem::take(&mut session.body);
            self.answer(session, &request, &body, out);
        } else {
            session.request = Some(request);
        }
        Ok(part.len())
    }

    fn answer(&self, session: &mut Session, request: &Request, body: &[u8], out: &mut Vec<u8>) {
        let (status, body) = match request.target {
            Target::Greeting => ("200 OK", &b"Hello, world!\n"[..]),
            Target::Echo => ("200 OK", body),
            Target::Refused(status) => (status, &b""[..]),
        };
        write!(out, "HTTP/1.1 {status}\r\nDate: {}\r\nContent-Length: {}\r\n", self.date, body.len()).expect("memory");
        if status.starts_with("405") {
            out.extend_from_slice(request.allow.as_bytes());
        }
        if request.is_last {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !request.is_head {
            out.extend_from_slice(body);
        }
        session.is_over = request.is_last;
    }
}

impl Protocol for Http {
    type Session = Session;

    fn start(&mut self, post: &mut Post) {
        post.set_timer(Timer::every(NEXT_SECOND, Duration::from_secs(1)));
        self.on_server_timer(NEXT_SECOND, post);
    }

    fn on_server_timer(&mut self, _timer: u32, _post: &mut Post) {
        self.date = httpdate::fmt_http_date(SystemTime::now());
    }

    fn open(&mut self, _reply: &mut impl Reply) -> Session {
        Session { heads: Pieces::new(Heads::default(), MAX_HEAD), request: None, body: Vec::new(), is_over: false }
    }

    fn receive(&mut self, session: &mut Session, input: &[u8], reply: &mut impl Reply) {
        let (mut rest, mut out) = (input, std::mem::take(&mut self.answers));
        while !rest.is_empty() && out.len() < PORTION && !session.is_over {
            match self.take(session, rest, &mut out) {
                Ok(taken) => rest = &rest[taken..],
                Err(status) => self.answer(session, &Request::refused(status), b"", &mut out),
            }
        }
        reply.send(&out);
        out.clear();
        self.answers = out;
        if session.is_over {
            reply.close();
        } else {
            reply.leave(rest.len()); // until the peer has read this portion
        }
    }

    fn held_bytes(&self, session: &Session) -> usize {
        session.heads.rest().len() + session.body.len()
    }
}

#[allow(dead_code, reason = "the tests have another")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    Server::builder().listen("127.0.0.1:7777".parse()?).bind(Http::default())?.run()?;
    Ok(())
}
