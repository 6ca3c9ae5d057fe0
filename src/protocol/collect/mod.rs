//! A telemetry intake: clients send frames, one consumer gets them all, and TCP slows clients that send faster than it reads.

mod failure;
mod record;
mod sink;
mod writer;

use std::borrow::Cow;
use std::collections::{HashSet, TryReserveError, VecDeque};
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

/// Bytes of lines that are put together for one write(2).
const BATCH_BYTES: usize = 64 * 1024;

/// Bytes of payloads that are looked at or written in one turn of the loop. What is left has the next one.
const WORK_BYTES_A_TURN: usize = 256 * 1024;

/// The timer that tries again after a failure. The pause doubles from the first to the last.
const RETRY: u32 = 0;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// The timer that goes on in the next turn.
const CONTINUE: u32 = 1;

/// Takes frames, and writes each as a line of JSON:
///
/// ```json
/// {"session":"gs-1@127.0.0.1:40312","sequence":1,"length":5,"encoding":"text","payload":"hello","received_at":"2026-11-20T14:44:07.694924Z"}
/// ```
///
/// A payload that is not UTF-8 is in base64 (RFC 4648, 4). Sessions are numbered from 1 in the order in which they came, and
/// frames from 1 within each. `received_at` is what the system's clock says, which may jump; the order of frames is that of the numbers.
///
/// # Memory
/// A frame is in the queue until its line has been written. While the queue is full, nothing is read: TCP slows the senders, and nothing
/// is lost. The queue is passed by what one read holds, 32 KiB, at most. So the payloads take up to `queue` times `max_frame` bytes.
/// Lines are made in parts, which take 512 KiB at most.
///
/// # Failures
/// Every accepted frame is written once, or the server ends with an error that says how many were not. A full disk (`ENOSPC`), a quota
/// (`EDQUOT`) and a limit on the size of the file (`EFBIG`) are waited out: the write is tried again, from the byte on at which it
/// failed, at least once a second, and no frame is accepted meanwhile. `EIO`, `EPIPE` and all others end the server. A consumer that
/// takes nothing, and a disk that is slow, hold up neither the other connections nor the exit: the drain's time limits that, and a second
/// signal ends the wait.
///
/// # Files
/// A file is appended to (`O_APPEND`). When it is renamed or removed, lines still go there, and not to a new file of the old name, until
/// the server is started anew. When it is truncated, the next line is at its new end: a rotation that copies and truncates works. At the
/// end of a drain the file is synced to the disk (fdatasync(2)); a second signal does not wait for that.
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
    /// Frames of which no line, or a part of one, has been made.
    queue: VecDeque<Record>,
    /// Where the lines end that have been made and not written, in bytes since the start.
    ends: VecDeque<u64>,
    queue_limit: usize,
    sink: Sink,
    /// Lines for the next write(2).
    batch: Vec<u8>,
    /// Bytes that the sink has been given since the start.
    given_bytes: u64,
    waiting: Waiting,
    sessions: u64,
    trouble: Option<Trouble>,
    warnings: Throttle,
    /// The reason why the server ends.
    failure: Option<String>,
}

/// The output has failed, and has written nothing since.
struct Trouble {
    error: io::Error,
    next_pause: Duration,
    /// There was a warning, which was not held back.
    is_known: bool,
    /// The timer is set. Until it comes nothing is tried.
    is_paused: bool,
}

/// The connections that are not read because the queue is full, in the order in which they came to it.
#[derive(Default)]
struct Waiting {
    order: VecDeque<SessionId>,
    members: HashSet<SessionId>,
}

impl Waiting {
    fn add(&mut self, id: SessionId) {
        if self.members.insert(id) {
            self.order.push_back(id);
        }
    }

    /// Forgets a connection that has gone. Its place is given back with those of others, so that this takes O(1), amortised.
    fn remove(&mut self, id: SessionId) {
        if self.members.remove(&id) && self.order.len() > 2 * self.members.len() {
            self.order.retain(|id| self.members.contains(id));
        }
    }

    fn take(&mut self) -> impl Iterator<Item = SessionId> + '_ {
        self.members.clear();
        self.order.drain(..)
    }
}

/// What is kept of a connection.
pub struct Session {
    name: Rc<str>,
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

    /// Writes as much as is taken, and as is right in one turn.
    fn write(&mut self, post: &mut Post) {
        let mut budget_bytes = WORK_BYTES_A_TURN;
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

    /// Makes lines of what waits, as many as go together.
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

    /// Takes the lines that have been written off the queue.
    fn forget_written(&mut self) {
        let written_bytes = self.sink.written_bytes();
        while self.ends.front().is_some_and(|&end| end <= written_bytes) {
            self.ends.pop_front();
        }
    }

    /// Returns the number of frames that were accepted, and are not known to be written.
    fn unwritten(&self) -> usize {
        self.queue.len() + self.ends.len()
    }

    fn can_accept(&self) -> bool {
        self.failure.is_none() && self.trouble.is_none() && self.unwritten() < self.queue_limit
    }

    /// Returns what is to be said when frames are lost.
    fn reason(&mut self, why: &dyn std::fmt::Display) -> String {
        self.forget_written();
        format!("cannot write what was collected: {why}: {} frames were not written", self.unwritten())
    }
}

/// Returns a frame with memory of its own.
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

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    #[test]
    fn connections_that_go_while_they_wait_leave_nothing_behind() {
        let mut ids = SlotMap::<SessionId, ()>::with_key();
        let mut waiting = Waiting::default();
        let stays = [ids.insert(()), ids.insert(())];
        waiting.add(stays[0]);
        for _ in 0..10_000 {
            let id = ids.insert(());
            waiting.add(id);
            waiting.remove(id);
            waiting.remove(id);
        }
        waiting.add(stays[1]);
        waiting.add(stays[0]);
        assert!(waiting.order.len() <= 4, "{}", waiting.order.len());
        assert_eq!(waiting.take().filter(|id| stays.contains(id)).collect::<Vec<_>>(), stays);
        assert!(waiting.order.is_empty() && waiting.members.is_empty());
    }
}
