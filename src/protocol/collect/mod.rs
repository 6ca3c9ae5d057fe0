//! A telemetry intake: clients send frames, one consumer gets them all, and TCP slows clients that send faster than it reads.

mod failure;
mod record;
mod sink;
mod waiting;
mod writer;

use std::borrow::Cow;
use std::collections::{TryReserveError, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::background::Background;
use super::decode::{DecodeError, Decoder, Frames};
use super::frame::Frame;
use super::interface::Protocol;
use super::post::{Post, SessionId, Timer};
use super::reply::Reply;
use crate::sys::epoll::EpollFlags;
use crate::throttle::Throttle;
use failure::{Remedy, remedy};
use record::Record;
use sink::{Sink, Step};
use waiting::Waiting;

/// Bytes of lines that are put together for one write(2).
const BATCH_BYTES: usize = 64 * 1024;

/// Bytes of payloads that are checked or written in one turn of the loop. The rest continues in the next turn.
const WORK_BYTES_PER_TURN: usize = 256 * 1024;

/// The timer of a retry. The pause doubles from the first to the last.
const RETRY: u32 = 0;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// The timer that continues in the next turn.
const CONTINUE: u32 = 1;

/// Writes each received frame as a line of JSON:
///
/// ```json
/// {"session":"gs-1@127.0.0.1:40312","sequence":1,"length":5,"encoding":"text","payload":"hello","received_at":"2026-11-20T14:44:07.694924Z"}
/// ```
///
/// A payload that is not UTF-8 is in base64 (RFC 4648, section 4). Sessions are numbered from 1 in the order of acceptance, and frames
/// from 1 within each session. `received_at` is the time of the system clock, which may jump: the sequence numbers tell the order.
///
/// # Memory
/// A frame is in the queue until its line is written. While the queue is full, the server reads nothing: TCP slows the senders, and
/// nothing is lost. The frames of one read, 32 KiB, may exceed the queue. So the payloads take up to `queue` times `max_frame` bytes.
/// Lines are made in parts, which take at most 512 KiB.
///
/// # Failures
/// Every accepted frame is written once, or the server ends with an error that tells how many were not. After a full disk (`ENOSPC`), a
/// quota (`EDQUOT`) or a limit on the file size (`EFBIG`), the write is retried at least once a second, from the byte at which it failed,
/// and no frame is accepted meanwhile. `EIO`, `EPIPE` and all other errors end the server. A stalled consumer or a slow disk delays
/// neither the other connections nor the exit: the drain timeout limits the wait, and a second signal ends it.
///
/// # Files
/// Lines are appended to a file (`O_APPEND`). If the file is renamed or removed, the lines follow it until the server is restarted. If it
/// is truncated, the next line is at its new end: a rotation that copies and truncates works. At the end of a drain the file is synced to
/// the disk (fdatasync(2)); a second signal does not wait for that.
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
    /// Frames whose line is not made, or only in part.
    queue: VecDeque<Record>,
    /// The ends of the lines that are made and not written, in bytes since the start.
    ends: VecDeque<u64>,
    queue_limit: usize,
    sink: Sink,
    /// Lines for the next write(2).
    batch: Vec<u8>,
    /// Bytes given to the sink since the start.
    given_bytes: u64,
    waiting: Waiting,
    sessions: u64,
    trouble: Option<Trouble>,
    warnings: Throttle,
    /// The reason why the server ends.
    failure: Option<String>,
}

/// A failure of the output, which has written nothing since.
struct Trouble {
    error: io::Error,
    next_pause: Duration,
    /// A warning was logged, and not suppressed.
    is_known: bool,
    /// The retry timer is set. Nothing is tried before it.
    is_paused: bool,
}

/// The state of one connection.
pub struct Session {
    name: Rc<str>,
    frames: Frames,
    sequence: u64,
}

impl Collect {
    /// The default of the queue, in frames.
    pub const QUEUE: usize = 256;

    /// Returns the protocol. It appends to `output`, a file, FIFO or device, or writes to stdout. It takes frames of up to `max_frame`
    /// bytes, and queues up to `queue` frames, at least one.
    ///
    /// # Errors
    /// The error of open(2) or fstat(2).
    pub fn new(output: Option<&Path>, queue: usize, max_frame: usize) -> io::Result<Self> {
        Ok(Self {
            frame: Frame::new(max_frame),
            max_frame,
            queue: VecDeque::new(),
            ends: VecDeque::new(),
            queue_limit: queue.max(1),
            sink: Sink::open(output)?,
            batch: Vec::new(),
            given_bytes: 0,
            waiting: Waiting::default(),
            sessions: 0,
            trouble: None,
            warnings: Throttle::default(),
            failure: None,
        })
    }

    /// Writes what the output takes, up to the limit of one turn.
    fn write(&mut self, post: &mut Post) {
        let mut budget_bytes = WORK_BYTES_PER_TURN;
        while self.failure.is_none() && !self.trouble.as_ref().is_some_and(|trouble| trouble.is_paused) {
            self.fill_batch(&mut budget_bytes);
            if self.sink.is_ready() {
                self.on_success();
            }
            if self.sink.is_ready() && !self.batch.is_empty() {
                self.given_bytes += self.batch.len() as u64;
                self.sink.begin(&mut self.batch);
            }
            if !self.sink.is_ready() {
                match self.sink.step() {
                    Ok(Step::Waiting) => break,
                    Ok(Step::Done | Step::More) => self.on_success(),
                    Err(error) => {
                        self.on_failure(error, post);
                        break;
                    }
                }
            } else if self.queue.is_empty() {
                break;
            }
            if budget_bytes == 0 {
                post.set_timer(Timer::once(CONTINUE, Duration::ZERO));
                break;
            }
        }
        self.forget_written();
        if self.can_accept() {
            self.waiting.take().for_each(|id| post.resume(id));
        }
    }

    /// Makes lines of queued frames, up to a full batch.
    fn fill_batch(&mut self, budget_bytes: &mut usize) {
        while let Some(record) = self.queue.front_mut()
            && record.write(&mut self.batch, BATCH_BYTES, budget_bytes)
        {
            self.queue.pop_front();
            self.ends.push_back(self.given_bytes + self.batch.len() as u64);
        }
    }

    fn on_success(&mut self) {
        if self.trouble.take().is_some_and(|trouble| trouble.is_known) {
            info!("what was collected can be written again");
        }
    }

    fn on_failure(&mut self, error: io::Error, post: &mut Post) {
        if remedy(&error) == Remedy::GiveUp {
            let reason = self.reason(&error);
            post.fail(reason.clone());
            self.failure = Some(reason);
            return;
        }
        let before = self.trouble.take();
        let mut is_known = before.as_ref().is_some_and(|trouble| trouble.is_known);
        if let Some(suppressed) = self.warnings.admit(Instant::now()) {
            is_known = true;
            warn!(
                frames = self.unwritten(),
                suppressed, "cannot write what was collected, reading no more until it can be: {error}"
            );
        }
        let pause = before.map_or(FIRST_PAUSE, |trouble| trouble.next_pause);
        self.trouble = Some(Trouble { error, next_pause: (pause * 2).min(LAST_PAUSE), is_known, is_paused: true });
        post.set_timer(Timer::once(RETRY, pause));
    }

    fn on_retry(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.is_paused = false;
            self.sink.retry();
        }
    }

    /// Forgets lines that are written.
    fn forget_written(&mut self) {
        let written_bytes = self.sink.written_bytes();
        while self.ends.front().is_some_and(|&end| end <= written_bytes) {
            self.ends.pop_front();
        }
    }

    /// Returns the number of accepted frames that are not known to be written.
    fn unwritten(&self) -> usize {
        self.queue.len() + self.ends.len()
    }

    fn can_accept(&self) -> bool {
        self.failure.is_none() && self.trouble.is_none() && self.unwritten() < self.queue_limit
    }

    /// Returns the error for lost frames.
    fn reason(&mut self, why: &dyn std::fmt::Display) -> String {
        self.forget_written();
        format!("cannot write what was collected: {why}: {} frames were not written", self.unwritten())
    }
}

/// Returns a frame that owns its memory.
fn into_owned(frame: Cow<'_, [u8]>) -> Result<Vec<u8>, TryReserveError> {
    match frame {
        Cow::Owned(frame) => Ok(frame),
        Cow::Borrowed(frame) => {
            let mut copy = Vec::new();
            copy.try_reserve_exact(frame.len())?;
            copy.extend_from_slice(frame);
            Ok(copy)
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
        let received_at = record::now();
        let Session { name, frames, sequence } = session;
        let mut accepted = Ok(());
        let result = frames.decode_pieces(input, |frame| {
            let length = frame.len() as u64;
            match into_owned(frame).and_then(|frame| self.queue.try_reserve(1).map(|()| frame)) {
                Ok(frame) => {
                    *sequence += 1;
                    self.queue.push_back(Record::new(name.clone(), *sequence, frame, received_at));
                }
                Err(_) => accepted = Err(DecodeError::OutOfMemory { length }),
            }
            accepted.is_ok()
        });
        if let Err(error) = result.map(drop).and(accepted) {
            self.frame.close(error, reply);
        }
        self.write(reply.post());
    }

    fn finish(&mut self, session: &mut Session, reply: &mut impl Reply) {
        self.frame.finish(&mut session.frames, reply);
    }

    fn close(&mut self, _session: Session, id: SessionId, _post: &mut Post) {
        self.waiting.remove(id);
    }

    fn held_bytes(&self, session: &Session) -> usize {
        session.frames.rest().len()
    }

    fn notice(&self, text: &str) -> Vec<u8> {
        self.frame.notice(text)
    }

    fn on_server_timer(&mut self, timer: u32, post: &mut Post) {
        if timer == RETRY {
            self.on_retry();
        }
        self.write(post);
    }

    fn background(&mut self) -> Option<&mut dyn Background> {
        Some(self)
    }
}

impl Background for Collect {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.sink.descriptor())
    }

    fn on_event(&mut self, _flags: EpollFlags, post: &mut Post) {
        self.sink.on_event();
        self.write(post);
    }

    fn can_receive(&mut self, id: SessionId) -> bool {
        let can_accept = self.can_accept();
        if !can_accept {
            self.waiting.add(id);
        }
        can_accept
    }

    fn finish_work(&mut self) -> bool {
        self.forget_written();
        self.failure.is_some() || (self.unwritten() == 0 && self.sink.is_ready() && self.sink.sync())
    }

    fn end(&mut self) -> Result<(), String> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let why =
            self.trouble.as_ref().map_or(
                "the output takes nothing (is it read? a longer drain timeout gives it time)".to_owned(),
                |trouble| trouble.error.to_string(),
            );
        let reason = self.reason(&why);
        if self.unwritten() > 0 {
            return Err(reason);
        }
        self.sink.sync_failure().map_or(Ok(()), |failure| {
            Err(format!("all frames were written, but it is not certain that they are on the disk: cannot sync: {failure}"))
        })
    }
}
