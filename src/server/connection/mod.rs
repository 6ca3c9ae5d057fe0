//! One peer's state machine: what is known of its readiness, what is pending, and how it ends. It is generic over its stream,
//! so that a test can drive it with a scripted one, and knows neither epoll nor the other connections.

mod peer;
mod reply;

use std::io;

use crate::protocol::{Post, Protocol, SessionId};
use crate::stream::{Outbox, Pipe, Readiness, Stream};
use crate::sys::epoll::EpollFlags;
pub use peer::Peer;
use reply::Answer;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// What comes in is given to the protocol.
    Open,
    /// The peer has sent its last byte. When the outbox is empty, the connection is at its end.
    PeerFinished,
    /// The peer has sent its last byte, and the protocol has closed: it says nothing more. The end is as after `PeerFinished`.
    BothFinished,
    /// The protocol has asked for the end. What it has asked for before, to be sent here by way of everybody, still comes first.
    Quitting,
    /// We are to close. Nothing more is given to the protocol; when the outbox is empty, our FIN goes out.
    Closing,
    /// Our FIN is out. What still comes in is discarded until the peer's FIN: closing with unread bytes would send a reset, and
    /// a reset can destroy what we have sent on its way to the peer (RFC 1122, 4.2.2.13).
    Lingering,
}

/// What became of a call of [`Connection::advance`].
#[derive(Debug)]
pub enum Progress {
    /// There is nothing to do until the kernel tells of a change.
    Waiting,
    /// There is more to do, but others are to have their turn first.
    More,
    /// It is over. The stream is to be closed.
    Ended(Ending),
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ending {
    /// The peer has sent its FIN, and everything that it is owed has been handed to the kernel.
    ByPeer,
    /// We closed: everything pending was handed over, our FIN followed, and then the peer sent its own.
    InOrder,
    /// A call failed: the peer has reset the connection, or vanished.
    Failed(io::Error),
}

/// Whose turn it is, and where what the protocol asks for beside its answer is collected.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The name of the connection.
    pub id: SessionId,
    /// Its peer's address.
    pub peer: &'a Peer,
    /// What is asked for.
    pub post: &'a mut Post,
    /// What bytes can be passed on through without a copy, empty, if there is such a thing.
    pub pipe: Option<&'a mut Pipe>,
}

/// One peer.
#[derive(Debug)]
pub struct Connection<S, T> {
    stream: S,
    readiness: Readiness,
    phase: Phase,
    /// The kernel has been asked to tell of room, too. That is so from the first time on that there was none.
    is_watched_for_room: bool,
    outbox: Outbox,
    received_bytes: u64,
    sent_bytes: u64,
    session: T,
}

impl<S: Stream, T> Connection<S, T> {
    /// A connection that has just been accepted. It is assumed to be writable, and readable only when the kernel says so.
    pub fn new(stream: S, session: T) -> Self {
        Self {
            stream,
            readiness: Readiness::WRITABLE,
            phase: Phase::Open,
            is_watched_for_room: false,
            outbox: Outbox::default(),
            received_bytes: 0,
            sent_bytes: 0,
            session,
        }
    }

    /// A connection that has just been accepted, of which the protocol is told: what it says goes out at once, as far as there is room.
    pub fn open<P>(stream: S, protocol: &mut P, turn: &mut Turn<'_>) -> Self
    where
        P: Protocol<Session = T>,
    {
        let mut open = Connection::new(stream, ());
        let mut session = None;
        // An error makes an event, too, and is told then.
        let _ = open.answer(turn, |(), reply| session = Some(protocol.open(reply)));
        let Connection { stream, readiness, phase, is_watched_for_room, outbox, received_bytes, sent_bytes, session: () } =
            open;
        let session = session.expect("the protocol was asked");
        Self { stream, readiness, phase, is_watched_for_room, outbox, received_bytes, sent_bytes, session }
    }

    /// The stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// How many bytes wait in the outbox.
    #[inline]
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.outbox.len()
    }

    /// Returns the memory that the connection holds, in bytes: what is pending, and what the protocol keeps of a piece that is not whole yet.
    #[inline]
    pub fn memory_bytes<P>(&self, protocol: &P) -> usize
    where
        P: Protocol<Session = T>,
    {
        self.outbox.len() + if P::ONLY_ANSWERS { 0 } else { protocol.held_bytes(&self.session) }
    }

    /// How many bytes the peer has sent us, up to now.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// How many bytes the kernel has taken from us for the peer, up to now.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Returns how many bytes the kernel has taken from us for the peer. Our FIN counts as one.
    #[must_use]
    pub fn sent_with_fin(&self) -> u64 {
        self.sent_bytes + u64::from(self.phase == Phase::Lingering)
    }

    /// Returns whether pending bytes could be sent now: a send was interrupted, so that no event will tell of room.
    #[must_use]
    pub fn can_flush(&self) -> bool {
        !self.outbox.is_empty() && self.readiness.contains(Readiness::WRITABLE)
    }

    /// Whether something waits for room in the socket, so that the kernel should tell when there is some.
    #[inline]
    #[must_use]
    pub fn needs_room(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Returns whether the kernel has been asked to tell of room, too.
    #[inline]
    #[must_use]
    pub fn is_watched_for_room(&self) -> bool {
        self.is_watched_for_room
    }

    /// Notes that the kernel has been asked to tell of room, too.
    pub fn set_watched_for_room(&mut self) {
        self.is_watched_for_room = true;
    }

    /// Returns whether there may be input that only the server keeps from being read: nothing is pending, and the connection is open.
    #[must_use]
    pub fn has_unread_input(&self) -> bool {
        self.phase == Phase::Open && self.outbox.is_empty() && self.readiness.contains(Readiness::READABLE)
    }

    /// Returns how many bytes a close(2) now would destroy: those that are pending, those that the peer's kernel has not acknowledged, and
    /// unread input. With unread input close(2) sends a reset instead of a FIN (RFC 1122, 4.2.2.13), which discards what is on its way.
    #[must_use]
    pub fn unsettled_bytes(&self) -> u64 {
        let unread = self.stream.unread_bytes().unwrap_or_default();
        (self.outbox.len() + self.unacknowledged_bytes() + unread) as u64
    }

    /// Returns whether there is input that was not read, on a connection that is open.
    #[must_use]
    pub fn has_input_left(&self) -> bool {
        self.phase == Phase::Open
            && self.readiness.contains(Readiness::READABLE)
            && self.stream.unread_bytes().is_ok_and(|bytes| bytes > 0)
    }

    /// Returns whether bytes are pending, or the peer's kernel has not acknowledged all that it was sent.
    #[must_use]
    pub fn owes_bytes(&self) -> bool {
        !self.outbox.is_empty() || self.unacknowledged_bytes() > 0
    }

    /// Returns how many sent bytes the peer's kernel has not acknowledged, without our FIN.
    fn unacknowledged_bytes(&self) -> usize {
        let our_fin = usize::from(self.phase == Phase::Lingering);
        self.stream.unacknowledged_bytes().unwrap_or_default().saturating_sub(our_fin)
    }

    /// Returns whether the peer's kernel has acknowledged all that it was sent.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.stream.unacknowledged_bytes().is_ok_and(|bytes| bytes == 0)
    }

    /// Returns whether an event may have told of an error that no call has met yet.
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

    /// Remembers what the kernel has told. A hang-up or an error is no reason to give up what can still be read or written: it
    /// makes both worth a try, and the call says what is the case.
    #[inline]
    pub fn on_event(&mut self, flags: EpollFlags) {
        self.readiness.tell(flags);
    }

    /// Starts to close from our side: what is pending is still sent, then our FIN, and then the peer's is waited for. To be
    /// followed by [`advance`](Self::advance).
    pub fn close(&mut self) {
        if matches!(self.phase, Phase::Open | Phase::Quitting) {
            self.phase = Phase::Closing;
        }
    }

    /// Does what can be done without blocking: sends what is pending, and when nothing is, reads and hands on, up to
    /// `budget_bytes` and at most one `buffer` more.
    #[inline]
    pub fn advance<P>(&mut self, protocol: &mut P, buffer: &mut [u8], budget_bytes: usize, turn: &mut Turn<'_>) -> Progress
    where
        P: Protocol<Session = T>,
    {
        let mut spent_bytes = 0;
        let mut has_plenty = P::RETURNS_INPUT;
        loop {
            if !self.outbox.is_empty() {
                match self.flush() {
                    Ok(()) if self.outbox.is_empty() => {}
                    Ok(()) if self.readiness.contains(Readiness::WRITABLE) => return Progress::More,
                    Ok(()) => return Progress::Waiting,
                    Err(error) => return Progress::Ended(Ending::Failed(error)),
                }
            }
            if !P::ONLY_ANSWERS && self.phase == Phase::Quitting {
                return Progress::Waiting; // until the server has done what was asked for
            }
            if !P::ONLY_ANSWERS && matches!(self.phase, Phase::PeerFinished | Phase::BothFinished) && !turn.post.is_empty() {
                return Progress::More; // some of what was asked for may be for itself, and comes before the end
            }
            if self.phase != Phase::Open
                && let Some(ending) = self.proceed_to_the_end()
            {
                return Progress::Ended(ending);
            }
            if !self.readiness.contains(Readiness::READABLE) {
                if P::RETURNS_INPUT && spent_bytes < buffer.len() / 2 {
                    self.readiness.remove(Readiness::PLENTY);
                }
                return Progress::Waiting;
            }
            if spent_bytes >= budget_bytes {
                return Progress::More;
            }
            if !P::ONLY_ANSWERS && self.phase == Phase::Open && !protocol.can_receive(&mut self.session, turn.id) {
                return Progress::Waiting; // until it says that it can
            }
            if P::RETURNS_INPUT && has_plenty && self.can_relay() {
                match self.relay(buffer, turn) {
                    Ok(count) => {
                        spent_bytes += count;
                        has_plenty = count == buffer.len(); // what else there is to know, a read finds out
                        continue;
                    }
                    Err(error) => return Progress::Ended(Ending::Failed(error)),
                }
            }
            let is_open = self.phase == Phase::Open;
            match self.read(buffer) {
                Ok(0) => {
                    if !P::ONLY_ANSWERS && self.phase == Phase::Open {
                        self.readiness.remove(Readiness::READABLE);
                        self.phase = Phase::PeerFinished;
                        if let Err(error) = self.answer(turn, |session, reply| protocol.finish(session, reply)) {
                            return Progress::Ended(Ending::Failed(error));
                        }
                        continue;
                    }
                    let ending = if self.phase == Phase::Lingering { Ending::InOrder } else { Ending::ByPeer };
                    return Progress::Ended(ending);
                }
                Ok(count) => {
                    spent_bytes += count;
                    if is_open && let Err(error) = self.respond(protocol, &buffer[..count], turn) {
                        return Progress::Ended(Ending::Failed(error));
                    }
                }
                Err(Progress::Waiting) => {}
                Err(progress) => return progress,
            }
        }
    }

    /// Whether a read is all that there is to do now: the first half of a turn, of which [`respond`](Self::respond) is the second.
    #[inline]
    #[must_use]
    pub fn needs_only_read(&self) -> bool {
        const ASKED: Readiness = Readiness::READABLE.union(Readiness::PLENTY);
        self.phase == Phase::Open && self.outbox.is_empty() && self.readiness & ASKED == Readiness::READABLE
    }

    /// Whether there is nothing to do until the kernel tells of a change, and nothing is pending.
    #[inline]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.phase == Phase::Open && self.outbox.is_empty() && !self.readiness.contains(Readiness::READABLE)
    }

    /// With an empty outbox, goes one step further towards the end of a connection that is no longer open.
    #[cold]
    fn proceed_to_the_end(&mut self) -> Option<Ending> {
        match self.phase {
            Phase::Open | Phase::Quitting | Phase::Lingering => None,
            Phase::PeerFinished | Phase::BothFinished => Some(Ending::ByPeer),
            Phase::Closing => {
                self.phase = Phase::Lingering;
                self.stream.shutdown_write().err().map(Ending::Failed)
            }
        }
    }

    /// Reads, once, and gives how many bytes came; 0 is the end of the stream. A short count shows that the socket was empty (epoll(7)),
    /// which saves the read that would only hear so. What arrives later makes a new edge, and so does a FIN, for `EPOLLRDHUP` is
    /// registered. A FIN that had arrived before the read has nothing behind it: then the short count is the end of the stream, too.
    ///
    /// # Errors
    /// How the turn ends, if nothing came.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Progress> {
        match self.stream.recv(buffer) {
            Ok(0) => Ok(0),
            Ok(count) => {
                self.received_bytes += count as u64;
                if count == buffer.len() {
                    self.readiness |= Readiness::PLENTY;
                } else if !self.readiness.contains(Readiness::READ_ON) {
                    self.readiness.remove(Readiness::READABLE);
                    if self.phase == Phase::Open && self.readiness.contains(Readiness::FIN) {
                        self.phase = Phase::PeerFinished;
                    }
                }
                Ok(count)
            }
            Err(error) => Err(match error.kind() {
                io::ErrorKind::WouldBlock => {
                    self.readiness.remove(Readiness::READABLE | Readiness::READ_ON);
                    Progress::Waiting
                }
                io::ErrorKind::Interrupted => Progress::More,
                _ => Progress::Ended(Ending::Failed(error)),
            }),
        }
    }

    /// Has the protocol answer what was [read](Self::read) while the connection was open.
    ///
    /// # Errors
    /// When the connection is found to be broken.
    #[inline]
    pub fn respond<P>(&mut self, protocol: &mut P, input: &[u8], turn: &mut Turn<'_>) -> io::Result<()>
    where
        P: Protocol<Session = T>,
    {
        self.answer(turn, |session, reply| protocol.receive(session, input, reply))?;
        if !P::ONLY_ANSWERS && self.phase == Phase::PeerFinished {
            return self.answer(turn, |session, reply| protocol.finish(session, reply));
        }
        Ok(())
    }

    /// Whether what comes next may be returned without being looked at. An urgent byte ends that: splice(2) does not go past it.
    #[inline]
    fn can_relay(&self) -> bool {
        const NEEDED: Readiness = Readiness::PLENTY.union(Readiness::WRITABLE);
        self.readiness & (NEEDED | Readiness::READ_ON) == NEEDED && self.phase == Phase::Open
    }

    /// Has the kernel return what comes in, up to a `buffer` full, and gives how much that was. From how little comes nothing is concluded:
    /// that is left to a read. What the socket has no room for goes into the outbox.
    ///
    /// # Errors
    /// When the connection is found to be broken, which a socket tells only once, or what is in the pipe cannot be had back.
    #[cold]
    fn relay(&mut self, buffer: &mut [u8], turn: &mut Turn<'_>) -> io::Result<usize> {
        let Some(pipe) = turn.pipe.as_deref_mut().filter(|pipe| pipe.is_empty()) else { return Ok(0) };
        let count = match self.stream.splice_into(pipe, buffer.len()) {
            Err(error) if is_of_the_call(&error) => 0,
            result => result?,
        };
        if count == 0 {
            return Ok(0);
        }
        self.received_bytes += count as u64;
        let poured = self.readiness.note_sent(self.stream.splice_from(pipe, count), count);
        let mut rest = 0;
        while !pipe.is_empty() {
            // It belongs to this connection, whatever has become of it.
            match pipe.take(&mut buffer[rest..]) {
                Ok(count) => rest += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error), // and the pipe, which is not empty, is used no more
            }
        }
        self.sent_bytes += match poured {
            Err(error) if is_of_the_call(&error) => 0,
            result => result? as u64,
        };
        self.outbox.try_push(&buffer[..rest])?;
        Ok(count)
    }

    /// Has the protocol say something to the peer.
    #[inline]
    fn answer(&mut self, turn: &mut Turn<'_>, say: impl FnOnce(&mut T, &mut Answer<'_, '_, S>)) -> io::Result<()> {
        let mut reply = Answer {
            stream: &mut self.stream,
            readiness: &mut self.readiness,
            outbox: &mut self.outbox,
            sent_bytes: &mut self.sent_bytes,
            phase: &mut self.phase,
            turn,
            failure: None,
        };
        say(&mut self.session, &mut reply);
        reply.failure.map_or(Ok(()), Err)
    }

    /// Tells the protocol that a timer has come.
    ///
    /// # Errors
    /// When the connection is found to be broken.
    pub fn on_timer<P>(&mut self, protocol: &mut P, timer: u32, turn: &mut Turn<'_>) -> io::Result<()>
    where
        P: Protocol<Session = T>,
    {
        if self.phase != Phase::Open {
            return Ok(());
        }
        self.answer(turn, |session, reply| protocol.on_timer(session, timer, reply))
    }

    /// Sends something that is no answer to what the peer has said, if not more than `limit_bytes` would then be pending. Gives false if
    /// that would be too much. A connection that we are closing is sent nothing, and misses nothing.
    ///
    /// # Errors
    /// When the connection is found to be broken.
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

    /// Gives the session back: the connection is closed.
    pub fn into_session(self) -> T {
        self.session
    }

    /// Offers the kernel what is pending.
    #[inline(never)] // it frees memory, and the path that has none would pay for that with registers
    fn flush(&mut self) -> io::Result<()> {
        if self.readiness.contains(Readiness::WRITABLE) {
            let count = self.readiness.offer(&mut self.stream, self.outbox.pending())?;
            self.sent_bytes += count as u64;
            self.outbox.consume(count);
        }
        Ok(())
    }
}

/// Whether an error of splice(2) says something about the call, and nothing about the connection: a read or a write may still succeed.
fn is_of_the_call(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, InvalidInput, OutOfMemory, Unsupported, WouldBlock};
    matches!(error.kind(), Interrupted | InvalidInput | OutOfMemory | Unsupported | WouldBlock)
}
