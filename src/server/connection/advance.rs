//! The turns of a connection: read, let the protocol answer, send, and go towards the end.

use std::io;

use super::host::Host;
use super::phase::{Ending, Phase, Progress};
use super::reply::{Answer, Turn};
use super::{Connection, Marks};
use crate::protocol::{Protocol, memory};
use crate::stream::{Readiness, Stream};

impl<S: Stream, T> Connection<S, T> {
    /// Does what can be done without blocking: sends what is pending. When nothing is pending, reads and lets the protocol answer, up to
    /// `budget_bytes` and at most one `buffer` more.
    #[inline]
    pub fn advance<P>(&mut self, host: &mut Host<P>, buffer: &mut [u8], budget_bytes: usize, turn: &mut Turn<'_>) -> Progress
    where
        P: Protocol<Session = T>,
    {
        let mut spent_bytes = 0;
        let mut has_plenty = P::RETURNS_INPUT;
        loop {
            if !self.outbox.is_empty() {
                match self.flush() {
                    Ok(()) if self.outbox.is_empty() => {
                        if !P::ONLY_ANSWERS && self.phase.is_answered() {
                            if let Err(error) = self.answer(turn, |session, reply| host.drained(session, reply)) {
                                return Progress::Ended(Ending::Failed(error));
                            }
                            if !self.outbox.is_empty() {
                                continue;
                            }
                        }
                    }
                    Ok(()) if self.readiness.contains(Readiness::WRITABLE) => return Progress::More,
                    Ok(()) => return Progress::Waiting,
                    Err(error) => return Progress::Ended(Ending::Failed(error)),
                }
            }
            if !P::ONLY_ANSWERS && self.phase == Phase::Quitting {
                return Progress::Waiting; // until the server has carried out the requests
            }
            if !P::ONLY_ANSWERS && matches!(self.phase, Phase::PeerFinished | Phase::BothFinished) && !turn.post.is_empty() {
                return Progress::More; // some requests may be for this connection, and come before its end
            }
            if !P::ONLY_ANSWERS && self.marks.contains(Marks::HAS_LEFT_INPUT) && self.phase.is_answered() {
                match self.offer_again(host, turn).map(|has_taken| self.after_leaving(has_taken)) {
                    Ok(None) => continue,
                    Ok(Some(progress)) => return progress,
                    Err(error) => return Progress::Ended(Ending::Failed(error)),
                }
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
            if !P::ONLY_ANSWERS
                && self.phase == Phase::Open
                && host.background().is_some_and(|background| !background.can_receive(turn.id))
            {
                return Progress::Waiting; // until the protocol resumes it
            }
            if P::RETURNS_INPUT && has_plenty && self.can_relay() {
                match self.relay(buffer, turn) {
                    Ok(count) => {
                        spent_bytes += count;
                        has_plenty = count == buffer.len(); // a read finds out the rest
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
                        if let Err(error) = self.answer(turn, |session, reply| host.finish(session, reply)) {
                            return Progress::Ended(Ending::Failed(error));
                        }
                        continue;
                    }
                    let ending = if self.phase == Phase::Lingering { Ending::InOrder } else { Ending::ByPeer };
                    return Progress::Ended(ending);
                }
                Ok(count) => {
                    spent_bytes += count;
                    if is_open && let Err(error) = self.respond(host, &buffer[..count], turn) {
                        return Progress::Ended(Ending::Failed(error));
                    }
                    if !P::ONLY_ANSWERS
                        && self.marks.contains(Marks::HAS_LEFT_INPUT)
                        && let Some(progress) = self.after_leaving(host.left_bytes(turn.id) < count)
                    {
                        return progress;
                    }
                }
                Err(Progress::Waiting) => {}
                Err(progress) => return progress,
            }
        }
    }

    /// With an empty outbox, takes the next step to the end of a connection that is no longer open.
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

    /// Reads once, and returns the number of bytes; 0 is the end of the stream. A short count shows that the socket was empty (epoll(7)),
    /// which saves a read that would only return EAGAIN. Later input makes a new edge, and so does a FIN, because `EPOLLRDHUP` is
    /// registered. If a FIN had arrived before the read, nothing follows it: the short count is then the end of the stream, too.
    ///
    /// # Errors
    /// The result of the turn, if nothing was read.
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

    /// Lets the protocol answer input that was [read](Self::read) while the connection was open.
    ///
    /// # Errors
    /// When the connection is broken, or there is no memory for input that the protocol has left.
    #[expect(clippy::inline_always, reason = "33 instructions per message, of 200, with the answer built in place")]
    #[inline(always)]
    pub fn respond<P>(&mut self, host: &mut Host<P>, input: &[u8], turn: &mut Turn<'_>) -> io::Result<()>
    where
        P: Protocol<Session = T>,
    {
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
        host.receive(&mut self.session, input, &mut reply);
        let left_bytes = reply.left_bytes;
        if let Some(error) = reply.failure {
            return Err(error);
        }
        if P::ONLY_ANSWERS {
            return Ok(());
        }
        if left_bytes > 0 && self.phase.is_answered() {
            let left = &input[input.len().saturating_sub(left_bytes)..];
            if host.keep(turn.id, left).is_err() {
                memory::warn(Some((*turn.peer).into()), left.len() as u64);
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.marks.insert(Marks::HAS_LEFT_INPUT);
            return Ok(());
        }
        self.finish_if_all_is_taken(host, turn)
    }

    /// Offers the protocol again the input that it has left. Returns whether it has taken some.
    #[cold]
    fn offer_again<P>(&mut self, host: &mut Host<P>, turn: &mut Turn<'_>) -> io::Result<bool>
    where
        P: Protocol<Session = T>,
    {
        let input = host.take_left(turn.id);
        let mut left_bytes = 0;
        self.answer(turn, |session, reply| {
            host.receive(session, &input, reply);
            left_bytes = reply.left_bytes.min(input.len());
        })?;
        let has_taken = left_bytes < input.len();
        if left_bytes > 0 && self.phase.is_answered() {
            host.keep_again(turn.id, input, left_bytes);
        } else {
            self.marks.remove(Marks::HAS_LEFT_INPUT);
            self.finish_if_all_is_taken(host, turn)?;
        }
        Ok(has_taken)
    }

    /// Returns the result of a turn in which the protocol has left input, if that ends the turn.
    fn after_leaving(&self, has_taken: bool) -> Option<Progress> {
        if !self.marks.contains(Marks::HAS_LEFT_INPUT) || !self.outbox.is_empty() {
            return None;
        }
        // Nothing pending will make an event. The protocol is asked again, after the others, or it resumes the connection.
        Some(if has_taken { Progress::More } else { Progress::Waiting })
    }

    /// Tells the protocol that the peer has finished, once it has taken all input.
    fn finish_if_all_is_taken<P>(&mut self, host: &mut Host<P>, turn: &mut Turn<'_>) -> io::Result<()>
    where
        P: Protocol<Session = T>,
    {
        if self.phase != Phase::PeerFinished {
            return Ok(());
        }
        self.answer(turn, |session, reply| host.finish(session, reply))
    }

    /// Returns whether input may be returned without a copy. An urgent byte prevents that: splice(2) does not pass it.
    #[inline]
    fn can_relay(&self) -> bool {
        const NEEDED: Readiness = Readiness::PLENTY.union(Readiness::WRITABLE);
        self.readiness & (NEEDED | Readiness::READ_ON) == NEEDED && self.phase == Phase::Open
    }

    /// Lets the kernel return input, up to a `buffer` full, and returns the number of bytes. A short splice does not mean that the socket
    /// is empty: a read finds out. What the socket has no room for goes into the outbox.
    ///
    /// # Errors
    /// When the connection is broken, which a socket reports only once, or the bytes in the pipe cannot be read back.
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
            // Whatever becomes of these bytes, no other connection may get them.
            match pipe.take(&mut buffer[rest..]) {
                Ok(count) => rest += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error), // the pipe is not empty, and is not used again
            }
        }
        self.sent_bytes += match poured {
            Err(error) if is_of_the_call(&error) => 0,
            result => result? as u64,
        };
        self.outbox.try_push(&buffer[..rest])?;
        Ok(count)
    }

    /// Offers the kernel what is pending.
    #[inline(never)] // it frees memory, and would take registers from the path that has none
    fn flush(&mut self) -> io::Result<()> {
        if self.readiness.contains(Readiness::WRITABLE) {
            let count = self.readiness.offer(&mut self.stream, self.outbox.pending())?;
            self.sent_bytes += count as u64;
            self.outbox.consume(count);
        }
        Ok(())
    }
}

/// Returns whether an error of splice(2) concerns the call and not the connection: a read or a write may still succeed.
fn is_of_the_call(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, InvalidInput, OutOfMemory, Unsupported, WouldBlock};
    matches!(error.kind(), Interrupted | InvalidInput | OutOfMemory | Unsupported | WouldBlock)
}
