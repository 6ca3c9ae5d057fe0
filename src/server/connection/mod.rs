//! One peer's state machine: its readiness, its pending bytes, and its way to the end. It is generic over its stream, so that a test can
//! drive it with a scripted one. It knows neither epoll nor the other connections.

mod advance;
mod host;
mod peer;
mod phase;
mod reply;

use std::io;

use crate::protocol::{Protocol, SessionId};
use crate::stream::{Outbox, Readiness, Stream};
use crate::sys::epoll::EpollFlags;
pub use host::Host;
pub use peer::Peer;
use phase::Phase;
pub use phase::{Ending, Progress};

use reply::Answer;
pub use reply::Turn;

bitflags::bitflags! {
    /// Facts about a connection that few connections need.
    #[derive(Debug, Clone, Copy)]
    struct Marks: u8 {
        /// Epoll watches for room, too: from the first time on that there was none.
        const WATCHED_FOR_ROOM = 1;
        /// The protocol has left input, which the [`Host`] keeps. Nothing is read until it has taken that.
        const HAS_LEFT_INPUT = 1 << 1;
    }
}

/// One peer.
#[derive(Debug)]
pub struct Connection<S, T> {
    stream: S,
    readiness: Readiness,
    phase: Phase,
    marks: Marks,
    outbox: Outbox,
    received_bytes: u64,
    sent_bytes: u64,
    session: T,
}

impl<S: Stream, T> Connection<S, T> {
    /// Returns an accepted connection. It is assumed to be writable, and readable only when the kernel reports so.
    pub fn new(stream: S, session: T) -> Self {
        Self {
            stream,
            readiness: Readiness::WRITABLE,
            phase: Phase::Open,
            marks: Marks::empty(),
            outbox: Outbox::default(),
            received_bytes: 0,
            sent_bytes: 0,
            session,
        }
    }

    /// Returns an accepted connection that the protocol has opened. What the protocol sends goes out at once, as far as there is room.
    pub fn open<P>(stream: S, host: &mut Host<P>, turn: &mut Turn<'_>) -> Self
    where
        P: Protocol<Session = T>,
    {
        let mut open = Connection::new(stream, ());
        let mut session = None;
        // An error also makes an event, and is handled then.
        let _ = open.answer(turn, |(), reply| session = Some(host.open(reply)));
        let Connection { stream, readiness, phase, marks, outbox, received_bytes, sent_bytes, session: () } = open;
        let session = session.expect("the protocol was called");
        Self { stream, readiness, phase, marks, outbox, received_bytes, sent_bytes, session }
    }

    /// Returns the stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Returns the number of pending bytes.
    #[inline]
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.outbox.len()
    }

    /// Returns the memory that the connection holds, in bytes: pending bytes, the unfinished piece that the protocol keeps, and input that
    /// it has left.
    #[inline]
    pub fn memory_bytes<P>(&self, id: SessionId, host: &Host<P>) -> usize
    where
        P: Protocol<Session = T>,
    {
        let left_bytes = if self.has_left_input() { host.left_bytes(id) } else { 0 };
        self.outbox.len() + if P::ONLY_ANSWERS { 0 } else { self.piece_bytes(host) + left_bytes }
    }

    /// Returns the bytes of the unfinished piece that the protocol keeps.
    #[inline]
    pub fn piece_bytes<P>(&self, host: &Host<P>) -> usize
    where
        P: Protocol<Session = T>,
    {
        if P::ONLY_ANSWERS { 0 } else { host.held_bytes(&self.session) }
    }

    /// Returns the number of bytes that the peer has sent.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Returns the number of bytes that the kernel has taken for the peer.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Returns the number of bytes that the kernel has taken for the peer. Our FIN counts as one.
    #[must_use]
    pub fn sent_with_fin(&self) -> u64 {
        self.sent_bytes + u64::from(self.phase == Phase::Lingering)
    }

    /// Returns whether a turn can make progress that no event will report: a send was interrupted, or both sides have finished and
    /// nothing is pending.
    #[must_use]
    pub fn needs_turn(&self) -> bool {
        if self.outbox.is_empty() { self.phase == Phase::BothFinished } else { self.readiness.contains(Readiness::WRITABLE) }
    }

    /// Returns whether bytes wait for room in the socket, so that epoll must report it.
    #[inline]
    #[must_use]
    pub fn needs_room(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Returns whether epoll watches for room, too.
    #[inline]
    #[must_use]
    pub fn is_watched_for_room(&self) -> bool {
        self.marks.contains(Marks::WATCHED_FOR_ROOM)
    }

    /// Notes that epoll watches for room, too.
    pub fn set_watched_for_room(&mut self) {
        self.marks.insert(Marks::WATCHED_FOR_ROOM);
    }

    /// Returns whether the protocol has left input.
    #[inline]
    #[must_use]
    pub fn has_left_input(&self) -> bool {
        self.marks.contains(Marks::HAS_LEFT_INPUT)
    }

    /// Returns whether there may be input that only the server or the protocol holds back: nothing is pending, and the connection is open.
    #[must_use]
    pub fn has_unread_input(&self) -> bool {
        let is_readable = self.phase == Phase::Open && self.readiness.contains(Readiness::READABLE);
        self.outbox.is_empty() && (is_readable || (self.has_left_input() && self.phase.is_answered()))
    }

    /// Returns the number of bytes that a close(2) now would destroy: pending bytes, bytes that the peer's kernel has not acknowledged, and
    /// unread input. With unread input, close(2) sends a reset instead of a FIN (RFC 1122, 4.2.2.13), which discards bytes on their way.
    /// Input that the protocol has left counts as one byte.
    #[must_use]
    pub fn unsettled_bytes(&self) -> u64 {
        let unread = self.stream.unread_bytes().unwrap_or_default();
        let left = usize::from(self.has_left_input() && self.phase.is_answered());
        (self.outbox.len() + self.unacknowledged_bytes() + unread + left) as u64
    }

    /// Returns whether an open connection has input that the protocol has not taken.
    #[must_use]
    pub fn has_input_left(&self) -> bool {
        let is_readable = self.phase == Phase::Open && self.readiness.contains(Readiness::READABLE);
        (self.has_left_input() && self.phase.is_answered())
            || (is_readable && self.stream.unread_bytes().is_ok_and(|bytes| bytes > 0))
    }

    /// Returns whether bytes are pending, or the peer's kernel has not acknowledged all that was sent.
    #[must_use]
    pub fn owes_bytes(&self) -> bool {
        !self.outbox.is_empty() || self.unacknowledged_bytes() > 0
    }

    /// Returns the number of sent bytes that the peer's kernel has not acknowledged, without our FIN.
    fn unacknowledged_bytes(&self) -> usize {
        let our_fin = usize::from(self.phase == Phase::Lingering);
        self.stream.unacknowledged_bytes().unwrap_or_default().saturating_sub(our_fin)
    }

    /// Returns whether the peer's kernel has acknowledged all that was sent.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.stream.unacknowledged_bytes().is_ok_and(|bytes| bytes == 0)
    }

    /// Returns whether an event may have reported an error that no call has returned yet.
    #[must_use]
    pub fn may_be_broken(&self) -> bool {
        self.readiness.contains(Readiness::READ_ON)
    }

    /// Takes the error that is pending on the stream, if there is one.
    ///
    /// # Errors
    /// When the stream cannot tell.
    pub fn take_error(&mut self) -> io::Result<Option<io::Error>> {
        self.stream.take_error()
    }

    /// Returns whether a turn begins with a read, the first half of a turn. [`respond`](Self::respond) is the second.
    #[inline]
    #[must_use]
    pub fn needs_only_read(&self) -> bool {
        const ASKED: Readiness = Readiness::READABLE.union(Readiness::PLENTY);
        self.phase == Phase::Open && self.outbox.is_empty() && self.readiness & ASKED == Readiness::READABLE
    }

    /// Returns whether nothing is pending, and nothing can be done before the next event.
    #[inline]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.phase == Phase::Open && self.outbox.is_empty() && !self.readiness.contains(Readiness::READABLE)
    }

    /// Remembers an event. A hang-up or an error is no reason to give up what can still be read or written: it makes both worth a try, and
    /// the call tells.
    #[inline]
    pub fn on_event(&mut self, flags: EpollFlags) {
        self.readiness.tell(flags);
    }

    /// Begins to close: the peer is sent all pending bytes, then our FIN, and then its FIN is awaited. Must be followed by
    /// [`advance`](Self::advance).
    pub fn close(&mut self) {
        let ends_by_itself = self.phase == Phase::PeerFinished && !self.has_left_input();
        if matches!(self.phase, Phase::Open | Phase::Quitting | Phase::PeerFinished) && !ends_by_itself {
            self.phase = Phase::Closing;
            self.marks.remove(Marks::HAS_LEFT_INPUT); // it is not offered again, and is freed at the end
        }
    }

    /// Lets the protocol act on a timer.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn on_timer<P>(&mut self, host: &mut Host<P>, timer: u32, turn: &mut Turn<'_>) -> io::Result<()>
    where
        P: Protocol<Session = T>,
    {
        let is_finished = self.phase != Phase::Open && !(self.has_left_input() && self.phase.is_answered());
        if is_finished {
            return Ok(());
        }
        self.answer(turn, |session, reply| host.on_timer(session, timer, reply))
    }

    /// Sends bytes that are no answer to input, unless more than `limit_bytes` would then be pending. Returns false in that case. A
    /// connection that closes is sent nothing, and misses nothing.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn deliver(&mut self, bytes: &[u8], limit_bytes: usize) -> io::Result<bool> {
        if matches!(self.phase, Phase::Closing | Phase::Lingering) {
            return Ok(true);
        }
        if self.pending_bytes().saturating_add(bytes.len()) > limit_bytes {
            return Ok(false);
        }
        let mut rest = bytes;
        if self.outbox.is_empty() && self.readiness.contains(Readiness::WRITABLE) {
            let count = self.readiness.offer(&mut self.stream, bytes)?;
            self.sent_bytes += count as u64;
            rest = &bytes[count..];
        }
        self.outbox.try_push(rest)?;
        Ok(true)
    }

    /// Returns the session of a closed connection.
    pub fn into_session(self) -> T {
        self.session
    }

    /// Calls the protocol with a reply to this connection.
    #[inline]
    fn answer(&mut self, turn: &mut Turn<'_>, call: impl FnOnce(&mut T, &mut Answer<'_, '_, S>)) -> io::Result<()> {
        let mut reply = Answer {
            stream: &mut self.stream,
            readiness: &mut self.readiness,
            outbox: &mut self.outbox,
            sent_bytes: &mut self.sent_bytes,
            phase: &mut self.phase,
            turn,
            left_bytes: 0,
            failure: None,
        };
        call(&mut self.session, &mut reply);
        reply.failure.map_or(Ok(()), Err)
    }
}
