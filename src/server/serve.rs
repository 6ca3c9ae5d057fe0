//! A connection from open to close: the server gives it its turns, counts the memory that it holds, and closes it.

use std::io;
use std::net::SocketAddr;

use tracing::debug;

use super::accept::SHORTEST_PAUSE;
use super::connection::{Ending, Progress, Turn};
use super::connections::Queue;
use super::fault::Fault;
use super::kernel::Kernel;
use super::pressure::{Hold, MEMORY_RETRY, TRIM_AFTER};
use super::run::Server;
use super::statistics::Reason;
use super::tokens::{MEMORY, TRIM};
use super::turn::{EVENT_BUDGET_BYTES, READ_BUFFER_BYTES};
use crate::event::Token;
use crate::protocol::{Protocol, SessionId};
use crate::stream::Stream;
use crate::sys::epoll::EpollFlags;

/// The way in which a connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "proxy"), expect(dead_code, reason = "only the PROXY protocol lets a connection wait"))]
pub(super) enum Origin {
    /// As soon as it was accepted.
    Direct,
    /// It has waited for a header, and its own address holds.
    Waited,
    /// It has waited for a header that names its client. The address is the proxy's.
    Proxied(SocketAddr),
}

impl<P: Protocol, K: Kernel> Server<P, K> {
    /// Opens a connection that was accepted.
    ///
    /// # Errors
    /// Returns the stream if epoll cannot watch it.
    pub(super) fn open(
        &mut self,
        stream: K::Stream,
        peer: SocketAddr,
        origin: Origin,
    ) -> Result<(), (K::Stream, io::Error)> {
        let now_ms = self.time.read(&self.kernel);
        let (protocol, post, kernel) = (&mut self.protocol, &mut self.post, &mut self.kernel);
        let key = self.connections.open((stream, peer, origin != Origin::Direct), now_ms, protocol, post, kernel)?;
        self.statistics.accepted += 1;
        self.pressure.begin(key, now_ms);
        if self.time.begin(key, now_ms) {
            self.schedule_check(key);
        }
        // Not all that the protocol has sent may have found room.
        if !P::ONLY_ANSWERS {
            self.note_memory(key);
            self.watch_for_room(key);
        }
        match origin {
            Origin::Proxied(via) => debug!(%peer, %via, "opened"),
            Origin::Direct | Origin::Waited => debug!(%peer, "opened"),
        }
        self.do_requests();
        if self.drain.is_closing() {
            self.serve_last(key);
        }
        Ok(())
    }

    /// Notes an event of a connection, and begins its turn.
    #[inline]
    pub(super) fn on_connection_event(&mut self, key: SessionId, flags: EpollFlags) {
        // An event of this turn may be for a connection that this turn has closed; its key finds nothing.
        let Some(slot) = self.connections.get_mut(key) else { return };
        slot.connection.on_event(flags);
        slot.times.set_active(self.time.now_ms());
        let needs_only_read = slot.queue() == Queue::None && slot.connection.needs_only_read();
        if !P::ONLY_ANSWERS || self.pressure.is_limited() || !needs_only_read {
            return self.on_other_event(key, flags);
        }
        match slot.connection.read(self.buffers.room()) {
            Ok(0) => self.close(key, &Ending::ByPeer),
            Ok(count) => {
                if self.buffers.push(key, count) {
                    self.answer_inputs();
                }
            }
            Err(progress) => self.after_turn(key, progress),
        }
    }

    /// Answers all that was read in this turn of the loop, in the order in which it was read.
    #[inline]
    pub(super) fn answer_inputs(&mut self) {
        // Taken out, so that the compiler need not read it again after each call.
        let inputs = self.buffers.take();
        let mut start = 0;
        for input in &inputs {
            let (key, bytes) = (input.key, self.buffers.bytes(start, input));
            start = input.end as usize;
            let Some(slot) = self.connections.get_mut(key) else { continue };
            let mut turn = Turn { id: key, peer: &slot.peer, post: &mut self.post, pipe: None };
            match slot.connection.respond(&mut self.protocol, bytes, &mut turn) {
                Ok(()) if slot.connection.is_quiet() => {}
                result => {
                    let (count, is_last) = (bytes.len(), start == self.buffers.input_bytes());
                    self.after_answer(key, result, count, is_last);
                }
            }
        }
        self.buffers.clear(inputs);
    }

    /// Goes on with a connection that has more to do after an answer of `count` bytes, or has failed. Out of the loop above, which would
    /// compute the rest of the budget for each message.
    #[cold]
    #[inline(never)]
    fn after_answer(&mut self, key: SessionId, result: io::Result<()>, count: usize, is_last: bool) {
        match result {
            // The read buffer is free for the last connection; any other with more to do has to wait for that.
            Ok(()) if is_last => self.serve(key, EVENT_BUDGET_BYTES.saturating_sub(count)),
            Ok(()) => self.serve(key, 0),
            Err(error) => self.close(key, &Ending::Failed(error)),
        }
    }

    /// Gives a connection its turn at an event where that does not begin with a read, or when the protocol does more than answer.
    #[inline(never)] // or its calls would take registers from the path of a message
    fn on_other_event(&mut self, key: SessionId, flags: EpollFlags) {
        let queue = self.connections.get(key).map(|slot| slot.queue());
        if queue == Some(Queue::None) {
            self.answer_inputs();
            self.serve(key, EVENT_BUDGET_BYTES);
        }
        if queue != Some(Queue::Ready) {
            self.close_if_broken(key, flags);
        } // and its turn comes
    }

    /// Closes a connection that epoll has reported as broken, if the server holds its input back: no call on it would notice, and its
    /// descriptor would stay open for as long as it is held back.
    fn close_if_broken(&mut self, key: SessionId, flags: EpollFlags) {
        if !flags.contains(EpollFlags::ERR) {
            return;
        }
        let Some(slot) = self.connections.get_mut(key) else { return };
        let is_held_back = slot.queue() == Queue::HeldBack || slot.connection.has_unread_input();
        if is_held_back && let Ok(Some(error)) = slot.connection.take_error() {
            self.close(key, &Ending::Failed(error));
        }
    }

    /// Gives a connection its turn.
    pub(super) fn serve(&mut self, key: SessionId, budget_bytes: usize) {
        let (budget_bytes, buffer_bytes) =
            if self.pressure.is_limited() { self.read_budget(key, budget_bytes) } else { (budget_bytes, READ_BUFFER_BYTES) };
        let Some(slot) = self.connections.get_mut(key) else { return };
        let (buffer, pipe) = self.buffers.whole(buffer_bytes);
        let mut turn = Turn { id: key, peer: &slot.peer, post: &mut self.post, pipe };
        let progress = slot.connection.advance(&mut self.protocol, buffer, budget_bytes, &mut turn);
        if slot.has_uncounted(key, &self.protocol) {
            self.count_memory(key);
        }
        self.after_turn(key, progress);
        self.do_requests();
    }

    /// Returns the number of bytes that a connection may read in this turn of `budget_bytes`, and the part of the read buffer for it, in bytes.
    #[cold]
    fn read_budget(&mut self, key: SessionId, budget_bytes: usize) -> (usize, usize) {
        let now_ms = self.time.read(&self.kernel);
        match self.connections.get(key) {
            None => (0, 1),
            // A connection that is being closed is no longer answered: its input is discarded, and takes neither memory nor time.
            Some(slot) if slot.closing().is_some() => (budget_bytes, READ_BUFFER_BYTES),
            Some(slot) => {
                let is_acknowledged = || slot.connection.is_acknowledged();
                self.pressure.read_budget(key, slot.demand(&self.protocol), budget_bytes, now_ms, is_acknowledged)
            }
        }
    }

    /// Does what follows from how a turn has ended.
    fn after_turn(&mut self, key: SessionId, progress: Progress) {
        match progress {
            Progress::Waiting => self.watch_for_room(key),
            Progress::More if self.pressure.is_limited() => self.hold_back(key),
            Progress::More => self.connections.queue(key),
            Progress::Ended(ending) => self.close(key, &ending),
        }
    }

    /// Watches a connection for room if bytes are pending. On failure the bytes stay pending, and the connection gets a turn after a pause.
    pub(super) fn watch_for_room(&mut self, key: SessionId) {
        if let Err(error) = self.connections.watch_for_room(key, &mut self.kernel) {
            let now = self.kernel.now();
            self.time.set_deadline_on_grid(now, SHORTEST_PAUSE, Token::of_key(key));
            self.connections.warn_unwatched(now, &error);
        }
    }

    /// Holds back a connection that has more to read: it waits for memory, for its rate, or only for the other connections.
    #[cold]
    fn hold_back(&mut self, key: SessionId) {
        let Some(slot) = self.connections.get_mut(key).filter(|slot| slot.closing().is_none()) else {
            return self.connections.queue(key);
        };
        match self.pressure.hold_back(key, slot.demand(&self.protocol), self.time.now_ms()) {
            Hold::None => self.connections.queue(key),
            Hold::Memory => {
                slot.hold_back();
                self.schedule_memory_retry();
            }
            Hold::Until(at_ms) => {
                slot.hold_back();
                self.time.set_deadline_ms(at_ms, Token::of_key(key));
            }
        }
    }

    /// Schedules a retry, if connections wait for memory.
    pub(super) fn schedule_memory_retry(&mut self) {
        if self.pressure.schedule_retry() {
            self.time.set_deadline(self.kernel.now() + MEMORY_RETRY, Token::fixed(MEMORY));
        }
    }

    /// Resumes a connection that may read `budget_bytes`, and returns the rest of the budget.
    pub(super) fn resume(&mut self, key: SessionId, budget_bytes: usize) -> usize {
        let Some(slot) = self.connections.get_mut(key) else { return budget_bytes };
        slot.unqueue();
        slot.times.set_active(self.time.now_ms());
        if slot.connection.needs_room() && !slot.connection.is_watched_for_room() {
            slot.connection.on_event(EpollFlags::OUT); // epoll cannot tell: a send finds out
        }
        let before = slot.connection.received_bytes();
        self.serve(key, budget_bytes);
        // A connection that has ended may have used all of it.
        let slot = self.connections.get(key);
        let spent = slot.map_or(u64::MAX, |slot| slot.connection.received_bytes() - before);
        // An event may have reported an error while the connection was queued, and now it is held back.
        if slot.is_some_and(|slot| slot.connection.may_be_broken()) {
            self.close_if_broken(key, EpollFlags::ERR);
        }
        budget_bytes.saturating_sub(usize::try_from(spent).unwrap_or(usize::MAX))
    }

    /// Notes that a connection holds more memory than before, or less. While bytes are pending, its peer's progress is watched.
    #[inline]
    pub(super) fn note_memory(&mut self, key: SessionId) {
        if self.connections.get(key).is_some_and(|slot| slot.has_uncounted(key, &self.protocol)) {
            self.count_memory(key);
        }
    }

    #[cold]
    fn count_memory(&mut self, key: SessionId) {
        self.time.read(&self.kernel);
        let Some(slot) = self.connections.get_mut(key) else { return };
        slot.count(key, &self.protocol, &mut self.statistics);
        if self.time.watch_progress(key, slot.facts(), slot.connection.sent_bytes()) {
            self.schedule_check(key);
        }
        self.update_pressure();
    }

    /// Notes that all connections together hold more memory than before, or less. Connections that wait for memory go on, if there is some.
    fn update_pressure(&mut self) {
        if let Some(waiting) = self.pressure.note_pending(self.statistics.pending_bytes) {
            self.connections.queue_all(waiting);
        }
        if self.pressure.schedule_trim() {
            self.time.set_deadline(self.kernel.now() + TRIM_AFTER, Token::fixed(TRIM));
        }
    }

    /// Schedules the check of a connection's timeouts.
    pub(super) fn schedule_check(&mut self, key: SessionId) {
        if let Some(slot) = self.connections.get_mut(key) {
            let facts = slot.facts();
            self.time.schedule_check(key, &mut slot.times, facts);
        }
    }

    /// Begins to close a connection in order, for a reason. The caller gives it a turn or queues it.
    pub(super) fn begin_close(&mut self, key: SessionId, reason: Reason) {
        if let Some(slot) = self.connections.get_mut(key) {
            slot.begin_close(reason);
            self.time.begin_close(key, slot.connection.sent_bytes());
        }
    }

    /// Closes a connection that has come to its end.
    pub(super) fn close(&mut self, key: SessionId, ending: &Ending) {
        let Some(slot) = self.connections.get(key) else { return };
        let reason = match (ending, slot.closing()) {
            (Ending::Failed(error), _) if is_own_lack_of_memory(error) => {
                // A FIN would claim that everything was echoed.
                let _ = slot.connection.stream().reset_on_close();
                Reason::Aborted
            }
            (Ending::Failed(error), None) => {
                slot.log_closed(self.time.read(&self.kernel), format_args!("{error}: {}", Fault::of(error)));
                Reason::Reset
            }
            (_, Some(reason)) => reason,
            (Ending::ByPeer | Ending::InOrder, None) => Reason::Peer,
        };
        self.remove(key, reason);
    }

    /// Closes a connection as it is. It is aborted if that destroys bytes, and otherwise closed for `reason`.
    pub(super) fn cut(&mut self, key: SessionId, reason: Reason) {
        let Some(slot) = self.connections.get(key) else { return };
        let loses_bytes = slot.connection.unsettled_bytes() > 0;
        self.remove(key, if loses_bytes { Reason::Aborted } else { reason });
    }

    /// Closes a connection as it is, and counts why.
    pub(super) fn remove(&mut self, key: SessionId, mut reason: Reason) {
        let Some(slot) = self.connections.remove(key) else { return };
        if self.options.resets_on_close && reason != Reason::Reset && slot.connection.unsettled_bytes() > 0 {
            reason = Reason::Aborted;
        }
        if reason != Reason::Reset {
            slot.log_closed(self.time.read(&self.kernel), reason);
        }
        slot.count_closed(reason, &mut self.statistics);
        self.acceptor.release(slot.peer.into());
        self.pressure.forget(key);
        self.time.forget(key);
        // close(2): before the listeners ask for its descriptor.
        let session = slot.connection.into_session();
        if !P::ONLY_ANSWERS {
            self.protocol.close(session, key, &mut self.post);
        }
        self.update_pressure();
        self.resume_listeners();
    }
}

/// Returns whether this process had no memory for the bytes of a connection, which are lost. `ENOMEM` of a call on the socket is another
/// matter: it carries an errno.
fn is_own_lack_of_memory(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory && error.raw_os_error().is_none()
}
