//! A telemetry intake: frames go in, one consumer gets them all, and who sends faster than it takes them is slowed down.

mod sink;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tracing::{error, warn};

use super::{Frame, Frames, Post, Protocol, Reply, SessionId, Timer};
use crate::protocol::Decoder;
use crate::sys::epoll::EpollFlags;
use sink::{Sink, Taken};

/// How many bytes of lines are put together for one write(2).
const BATCH_BYTES: usize = 64 * 1024;

/// The timer that tries again after the target had no room, and how long it takes.
const RETRY: u32 = 0;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Takes frames, and writes each as a line of JSON:
///
/// ```json
/// {"session":"gs-1@127.0.0.1:40312","sequence":1,"length":5,"encoding":"text","payload":"hello","received_at":"2026-11-20T14:44:07.694924Z"}
/// ```
///
/// A payload that is not UTF-8 is in base64 (RFC 4648, 4). Sessions are numbered from 1 in the order in which they came, and
/// frames from 1 within each. While more frames wait than the queue has room for, nothing is read: TCP slows the senders, and nothing is
/// lost. The queue is passed by what one read holds, 32 KiB, at most.
///
/// ```
/// use std::path::Path;
///
/// use edgecho::protocol::Collect;
/// use edgecho::server::Server;
///
/// let collect = Collect::new(Some(Path::new("/dev/null")), Collect::QUEUE, 64 * 1024)?;
/// let server = Server::builder().listen("127.0.0.1:0".parse()?).bind(collect)?;
/// # let _ = server;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Collect {
    frame: Frame,
    max_frame: usize,
    queue: VecDeque<Record>,
    queue_limit: usize,
    sink: Sink,
    /// Lines for the next write(2).
    batch: Vec<u8>,
    /// Who was not read because the queue was full, in the order in which they came to it.
    waiting: VecDeque<SessionId>,
    is_waiting: HashSet<SessionId>,
    sessions: u64,
    failure: Option<String>,
}

/// A frame in the queue.
struct Record {
    session: std::rc::Rc<str>,
    sequence: u64,
    payload: Box<[u8]>,
    received_at: SystemTime,
}

#[derive(Serialize)]
struct Line<'a> {
    session: &'a str,
    sequence: u64,
    length: usize,
    encoding: &'static str,
    payload: &'a str,
    received_at: String,
}

/// What is kept of a connection.
pub struct Session {
    name: std::rc::Rc<str>,
    frames: Frames,
    sequence: u64,
}

impl Collect {
    /// How many frames may wait by default.
    pub const QUEUE: usize = 256;

    /// Writes to `output`, a file that is appended to, a FIFO or a device, or to stdout; takes frames of up to `max_frame` bytes, and
    /// queues up to `queue` of them, at least one.
    ///
    /// # Errors
    /// When the output cannot be opened.
    pub fn new(output: Option<&Path>, queue: usize, max_frame: usize) -> io::Result<Self> {
        Ok(Self {
            frame: Frame::new(max_frame),
            max_frame,
            queue: VecDeque::new(),
            queue_limit: queue.max(1),
            sink: Sink::open(output)?,
            batch: Vec::new(),
            waiting: VecDeque::new(),
            is_waiting: HashSet::new(),
            sessions: 0,
            failure: None,
        })
    }

    /// Hands on as much as is taken.
    fn write(&mut self, post: &mut Post) {
        while self.failure.is_none() {
            self.fill_batch();
            if self.batch.is_empty() {
                break;
            }
            match self.sink.write(&mut self.batch) {
                Ok(Taken::All | Taken::Some) => {}
                Ok(Taken::Nothing) => break,
                Err(failure) if failure.raw_os_error() == Some(libc::ENOSPC) => {
                    warn!("the output takes nothing for now, and nobody is read until it does: {failure}");
                    post.set_timer(Timer::once(RETRY, RETRY_AFTER));
                    break;
                }
                Err(failure) => {
                    let reason = format!("cannot write what was collected: {failure}");
                    error!(frames = self.queue.len(), "{reason}");
                    post.fail(reason.clone());
                    self.failure = Some(reason);
                }
            }
        }
        if self.queue.len() < self.queue_limit {
            self.is_waiting.clear();
            self.waiting.drain(..).for_each(|id| post.resume(id));
        }
    }

    /// Makes lines of what waits, as many as go together.
    fn fill_batch(&mut self) {
        while self.batch.len() < BATCH_BYTES
            && let Some(record) = self.queue.pop_front()
        {
            let encoded;
            let (encoding, payload) = match std::str::from_utf8(&record.payload) {
                Ok(text) => ("text", text),
                Err(_) => {
                    encoded = STANDARD.encode(&record.payload);
                    ("base64", encoded.as_str())
                }
            };
            let line = Line {
                session: &record.session,
                sequence: record.sequence,
                length: record.payload.len(),
                encoding,
                payload,
                received_at: humantime::format_rfc3339_micros(record.received_at).to_string(),
            };
            serde_json::to_writer(&mut self.batch, &line).expect("text and numbers into memory");
            self.batch.push(b'\n');
        }
    }
}

impl Protocol for Collect {
    type Session = Session;

    fn open(&mut self, reply: &mut impl Reply) -> Session {
        self.sessions += 1;
        let name = format!("gs-{}@{}", self.sessions, reply.peer()).into();
        Session { name, frames: Frames::new(self.max_frame), sequence: 0 }
    }

    fn receive(&mut self, session: &mut Session, input: &[u8], reply: &mut impl Reply) {
        let received_at = SystemTime::now();
        let Session { name, frames, sequence } = session;
        let result = frames.decode(input, |frame| {
            *sequence += 1;
            let payload = Frames::payload(frame).into();
            self.queue.push_back(Record { session: name.clone(), sequence: *sequence, payload, received_at });
            true
        });
        if let Err(too_long) = result {
            self.frame.complain(too_long.length, reply);
        }
        self.write(reply.post());
    }

    fn finish(&mut self, session: &mut Session, reply: &mut impl Reply) {
        self.frame.finish(&mut session.frames, reply);
    }

    fn can_receive(&mut self, _session: &mut Session, id: SessionId) -> bool {
        if self.queue.len() < self.queue_limit {
            return true;
        }
        if self.is_waiting.insert(id) {
            self.waiting.push_back(id);
        }
        false
    }

    fn notice(&self, text: &str) -> Vec<u8> {
        self.frame.notice(text)
    }

    fn source(&self) -> Option<BorrowedFd<'_>> {
        Some(self.sink.source())
    }

    fn on_source(&mut self, _flags: EpollFlags, post: &mut Post) {
        self.sink.on_event();
        self.write(post);
    }

    fn on_server_timer(&mut self, _timer: u32, post: &mut Post) {
        self.write(post);
    }

    fn is_idle(&self) -> bool {
        self.failure.is_some() || (self.queue.is_empty() && self.batch.is_empty() && self.sink.is_idle())
    }

    fn end(&mut self) -> Result<(), String> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if !self.is_idle() {
            return Err(format!("{} frames and {} bytes of lines were not written", self.queue.len(), self.batch.len()));
        }
        self.sink.sync().map_err(|failure| format!("cannot sync what was collected: {failure}"))
    }
}
