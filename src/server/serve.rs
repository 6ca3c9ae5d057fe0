//! Giving a connection its turn, and closing it.

use tracing::warn;

use super::accept::SHORTEST_PAUSE;
use super::connection::{Ending, Progress, Turn};
use super::connections::{INTEREST, Place};
use super::fault::Fault;
use super::kernel::Kernel;
use super::run::Server;
use super::statistics::Reason;
use super::turn::{EVENT_BUDGET_BYTES, Input, MIN_ROOM_BYTES, READ_BUFFER_BYTES};
use crate::event::Token;
use crate::protocol::{Protocol, SessionId};
use crate::sys::epoll::EpollFlags;

impl<P: Protocol, K: Kernel> Server<P, K> {
    /// Tells a connection what has happened to it, and gives it its turn. Where that begins with a read, as it nearly always does, only
    /// the read is done now, and what came is answered when all of this turn have been read: the kernel's code for the one and for
    /// the other takes turns in the CPU's cache once for all of them, and not once for each.
    #[inline]
    pub(super) fn on_connection_event(&mut self, key: SessionId, flags: EpollFlags) {
        // An event of this turn may be for a connection that this turn has closed; its key finds nothing.
        let Some(client) = self.connections.get_mut(key) else { return };
        client.connection.on_event(flags);
        client.active_ms = self.clock.last_read_ms();
        let needs_only_read = client.place == Place::Nowhere && client.connection.needs_only_read();
        if !P::ONLY_ANSWERS || self.pressure.are_there() || !needs_only_read {
            return self.on_other_event(key, flags);
        }
        match client.connection.read(&mut self.read_buffer.0[self.input_bytes..]) {
            Ok(0) => self.close(key, &Ending::ByPeer),
            Ok(count) => {
                self.input_bytes += count;
                self.inputs.push(Input { key, end: self.input_bytes as u32 });
                if self.input_bytes > READ_BUFFER_BYTES - MIN_ROOM_BYTES {
                    self.answer_inputs();
                }
            }
            Err(progress) => self.after_turn(key, progress),
        }
    }

    /// Answers all that was read in this turn of the loop, in the order in which it was.
    #[inline]
    pub(super) fn answer_inputs(&mut self) {
        let mut start = 0;
        for index in 0..self.inputs.len() {
            let Input { key, end } = self.inputs[index];
            let input = start..end as usize;
            start = input.end;
            let Some(client) = self.connections.get_mut(key) else { continue };
            let mut turn = Turn { id: key, peer: &client.peer, post: &mut self.post, pipe: None };
            let count = input.len();
            match client.connection.respond(&mut self.protocol, &self.read_buffer.0[input], &mut turn) {
                Ok(()) if client.connection.is_quiet() => {}
                // The read buffer is free for the last of them; whoever else has more to do has to wait for that.
                Ok(()) if index + 1 == self.inputs.len() => self.serve(key, EVENT_BUDGET_BYTES.saturating_sub(count)),
                Ok(()) => self.serve(key, 0),
                Err(error) => self.close(key, &Ending::Failed(error)),
            }
        }
        self.inputs.clear();
        self.input_bytes = 0;
    }

    /// Gives a connection its turn at an event where that does not begin with a read, or when the protocol does more than answer.
    #[inline(never)] // or its calls would take registers from the path of a message
    fn on_other_event(&mut self, key: SessionId, flags: EpollFlags) {
        let place = self.connections.get(key).map(|client| client.place);
        if place == Some(Place::Nowhere) {
            self.answer_inputs();
            self.serve(key, EVENT_BUDGET_BYTES);
        }
        if place != Some(Place::Ready) {
            self.close_if_broken(key, flags);
        } // and its turn comes
    }

    /// Closes a connection that epoll has reported as broken, if the server holds its input back: no call on it would notice, and its
    /// descriptor would stay open for as long as it is held back.
    fn close_if_broken(&mut self, key: SessionId, flags: EpollFlags) {
        if !flags.contains(EpollFlags::ERR) {
            return;
        }
        let Some(client) = self.connections.get_mut(key) else { return };
        let is_held_back = client.place == Place::HeldBack || client.connection.has_unread_input();
        if is_held_back && let Ok(Some(error)) = client.connection.take_error() {
            self.close(key, &Ending::Failed(error));
        }
    }

    /// Gives a connection its turn.
    pub(super) fn serve(&mut self, key: SessionId, budget_bytes: usize) {
        let (budget_bytes, buffer_bytes) =
            if self.pressure.are_there() { self.read_budget(key, budget_bytes) } else { (budget_bytes, READ_BUFFER_BYTES) };
        let Some(client) = self.connections.get_mut(key) else { return };
        let buffer = &mut self.read_buffer.0[..buffer_bytes];
        let mut turn = Turn { id: key, peer: &client.peer, post: &mut self.post, pipe: self.pipe.as_mut() };
        let progress = client.connection.advance(&mut self.protocol, buffer, budget_bytes, &mut turn);
        let connection = &client.connection;
        if connection.memory_bytes(key, &self.protocol) != client.counted_bytes as usize {
            self.count_pending(key);
        } else if connection.needs_room() && !connection.is_watched_for_room() {
            self.watch_for_room(key);
        }
        self.after_turn(key, progress);
        self.do_requests();
    }

    /// Does what follows from how a turn ended.
    fn after_turn(&mut self, key: SessionId, progress: Progress) {
        match progress {
            Progress::Waiting => {}
            Progress::More if self.pressure.are_there() => self.hold_back(key),
            Progress::More => self.queue_connection(key),
            Progress::Ended(ending) => self.close(key, &ending),
        }
    }

    /// Resumes a connection from the ready queue, and returns what is left of the budget. A connection that no longer waits has had its turn.
    pub(super) fn resume_if_queued(&mut self, key: SessionId, budget_bytes: usize) -> usize {
        match self.connections.get(key) {
            Some(client) if client.place != Place::Nowhere => self.resume(key, budget_bytes),
            _ => budget_bytes,
        }
    }

    fn resume(&mut self, key: SessionId, budget_bytes: usize) -> usize {
        let Some(client) = self.connections.get_mut(key) else { return budget_bytes };
        client.place = Place::Nowhere;
        client.active_ms = self.clock.last_read_ms();
        if client.connection.needs_room() && !client.connection.is_watched_for_room() {
            client.connection.on_event(EpollFlags::OUT); // epoll cannot tell: a send finds out
        }
        let before = client.connection.received_bytes();
        self.serve(key, budget_bytes);
        // Whoever has ended may have used all of it.
        let client = self.connections.get(key);
        let spent = client.map_or(u64::MAX, |client| client.connection.received_bytes() - before);
        // An event may have told of an error while it stood in the queue, and now it is held back.
        if client.is_some_and(|client| client.connection.may_be_broken()) {
            self.close_if_broken(key, EpollFlags::ERR);
        }
        budget_bytes.saturating_sub(usize::try_from(spent).unwrap_or(usize::MAX))
    }

    /// Gives a connection a turn of which the kernel has not told.
    pub(super) fn resume_now(&mut self, key: SessionId) {
        self.resume(key, EVENT_BUDGET_BYTES);
    }

    /// Puts a connection behind the others.
    pub(super) fn queue_connection(&mut self, key: SessionId) {
        if let Some(client) = self.connections.get_mut(key)
            && client.place == Place::Nowhere
        {
            client.place = Place::Ready;
            self.ready.push_back(Token::of_key(key));
        }
    }

    /// Notes that a connection holds more memory than before, or less. When its outbox fills, the peer's progress is watched from then on.
    #[cold]
    pub(super) fn count_pending(&mut self, key: SessionId) {
        let now_ms = self.clock.read(&self.kernel);
        let Some(client) = self.connections.get_mut(key) else { return };
        let (before, after) = (client.counted_bytes as usize, client.connection.memory_bytes(key, &self.protocol));
        client.counted_bytes = u32::try_from(after).unwrap_or(u32::MAX);
        self.statistics.count_pending(before, client.counted_bytes as usize);
        let needs_room = client.connection.needs_room();
        if self.timeouts.write.is_some() && client.closing.is_none() && needs_room != self.peer_progress.is_counted(key) {
            if needs_room {
                self.peer_progress.begin(key, client.connection.sent_bytes(), now_ms);
                self.schedule_check(key);
            } else {
                self.peer_progress.forget(key);
            }
        }
        if needs_room {
            self.watch_for_room(key);
        }
        self.on_memory_changed();
    }

    /// Asks to be told when there is room to write. Most connections never run out of it, and save themselves a wake-up: a
    /// connection that is watched for it from the start is told so as soon as it is open.
    fn watch_for_room(&mut self, key: SessionId) {
        let Some(client) = self.connections.get_mut(key) else { return };
        if client.connection.is_watched_for_room() {
            return;
        }
        let stream = client.connection.stream();
        match self.kernel.rewatch(stream, Token::of_key(key), INTEREST | EpollFlags::OUT) {
            Ok(()) => client.connection.set_watched_for_room(),
            // The bytes stay pending. It is tried again when the connection is given its next turn.
            Err(error) => {
                let now = self.kernel.now();
                // On a grid of time, so that a connection has one retry, however often it fails.
                let pause_ms = SHORTEST_PAUSE.as_millis() as u64;
                let at_ms = (self.clock.ms(now) / pause_ms + 2) * pause_ms;
                self.deadlines.set(self.clock.instant(at_ms), Token::of_key(key));
                if let Some(suppressed) = self.watch_trouble.admit(now) {
                    warn!(suppressed, "cannot watch a connection for room, and try again (epoll_ctl): {error}");
                }
            }
        }
    }

    /// Closes a connection that has come to its end.
    pub(super) fn close(&mut self, key: SessionId, ending: &Ending) {
        let Some(client) = self.connections.get(key) else { return };
        let reason = match (ending, client.closing) {
            (Ending::Failed(error), None) => {
                client.log_closed(self.clock.read(&self.kernel), format_args!("{error}: {}", Fault::of(error)));
                Reason::Reset
            }
            (_, Some(reason)) => reason,
            (Ending::ByPeer | Ending::InOrder, None) => Reason::Peer,
        };
        self.remove(key, reason);
    }

    /// Closes a connection as it is, and counts why.
    pub(super) fn remove(&mut self, key: SessionId, mut reason: Reason) {
        let Some(client) = self.connections.remove(key) else { return };
        if self.resets_on_close && reason != Reason::Reset && client.connection.unsettled_bytes() > 0 {
            reason = Reason::Aborted;
        }
        if reason != Reason::Reset {
            client.log_closed(self.clock.read(&self.kernel), reason);
        }
        self.statistics.count_closed(reason);
        self.statistics.count_pending(client.counted_bytes as usize, 0);
        self.statistics.received_bytes += client.connection.received_bytes();
        self.statistics.sent_bytes += client.connection.sent_bytes();
        if let Some(per_ip) = &mut self.per_source {
            per_ip.release(client.peer.into());
        }
        self.pressure.forget(key);
        // close(2): before the listeners ask for its descriptor.
        let session = client.connection.into_session();
        if !P::ONLY_ANSWERS {
            self.timers.forget(key);
            self.protocol.close(session, key, &mut self.post);
        }
        self.heartbeats.forget(key);
        self.peer_progress.forget(key);
        self.on_memory_changed();
        self.resume_listeners();
    }
}
