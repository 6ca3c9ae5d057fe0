//! The connections of a server: the slot table, and the ready queue.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use slotmap::SlotMap;
use tracing::{debug, warn};

use super::connection::{Connection, Host, Peer, Turn};
use super::kernel::Kernel;
use super::pressure::Demand;
use super::statistics::{Reason, Statistics};
use super::time::{Facts, LongTurn, Times};
use crate::event::Token;
use crate::protocol::{Post, Protocol, SessionId};
use crate::stream::Stream;
use crate::sys::epoll::EpollFlags;
use crate::throttle::Throttle;

/// The events that every connection is watched for from the start. `RDHUP` makes the FIN an edge of its own, `PRI` the urgent byte.
pub(super) const INTEREST: EpollFlags = EpollFlags::IN.union(EpollFlags::RDHUP).union(EpollFlags::PRI);

/// Connections that the table has room for from the start, if as many can be open. Room costs address space only, until it is used; growing
/// later would copy the table within a turn, and leave the old one behind as a hole in the heap.
const CONNECTIONS_WITHOUT_GROWTH: usize = 1 << 16;

/// A connection, and what the server keeps about it.
pub(super) struct Slot<S, T> {
    pub(super) connection: Connection<S, T>,
    pub(super) times: Times,
    pub(super) peer: Peer,
    /// The part of [`Statistics::pending_bytes`] that is this connection's.
    counted_bytes: u32,
    /// The reason why the server closes the connection, if it does.
    closing: Option<Reason>,
    queue: Queue,
}

/// The queue that holds a connection, if any. An event does not serve a connection that is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    None,
    /// The ready queue.
    Ready,
    /// The queue for memory, or the deadline at which its rate lets it go on.
    HeldBack,
}

impl<S: Stream, T> Slot<S, T> {
    /// Returns the queue that holds the connection.
    #[inline]
    pub(super) fn queue(&self) -> Queue {
        self.queue
    }

    /// Returns why the server closes the connection, if it does.
    pub(super) fn closing(&self) -> Option<Reason> {
        self.closing
    }

    /// Returns whether the memory that the connection holds is not what was counted.
    #[inline]
    pub(super) fn has_uncounted<P: Protocol<Session = T>>(&self, key: SessionId, host: &Host<P>) -> bool {
        self.connection.memory_bytes(key, host) != self.counted_bytes as usize
    }

    /// Counts the memory that the connection holds.
    pub(super) fn count<P>(&mut self, key: SessionId, host: &Host<P>, statistics: &mut Statistics)
    where
        P: Protocol<Session = T>,
    {
        let counted = u32::try_from(self.connection.memory_bytes(key, host)).unwrap_or(u32::MAX);
        statistics.count_pending(self.counted_bytes as usize, counted as usize);
        self.counted_bytes = counted;
    }

    /// Counts the end of the connection.
    pub(super) fn count_closed(&self, reason: Reason, statistics: &mut Statistics) {
        statistics.count_closed(reason);
        statistics.count_pending(self.counted_bytes as usize, 0);
        statistics.count_bytes(self.connection.received_bytes(), self.connection.sent_bytes());
    }

    /// Begins to close the connection in order, for a reason.
    pub(super) fn begin_close(&mut self, reason: Reason) {
        // Input that came in time and is discarded from now on is lost: the drain has not kept its promise.
        let loses_input = reason == Reason::Drained && self.closing.is_none() && self.connection.has_input_left();
        self.connection.close();
        self.closing.get_or_insert(if loses_input { Reason::Aborted } else { reason });
        // A connection that waits for its rate or for memory waits no longer: its input is only read to be discarded.
        if self.queue == Queue::HeldBack {
            self.queue = Queue::None;
        }
    }

    /// Takes the connection out of its queue.
    pub(super) fn unqueue(&mut self) {
        self.queue = Queue::None;
    }

    /// Notes that the connection waits for its rate or for memory.
    pub(super) fn hold_back(&mut self) {
        self.queue = Queue::HeldBack;
    }

    /// Returns whether the server itself keeps the connection from being read. Such a connection is not idle: its bytes wait for us.
    pub(super) fn waits_for_server(&self) -> bool {
        self.queue != Queue::None || self.connection.has_unread_input()
    }

    /// Returns the facts that the timeouts of the connection depend on.
    pub(super) fn facts(&self) -> Facts {
        Facts { needs_room: self.connection.needs_room(), is_closing: self.closing.is_some() }
    }

    /// Returns the facts that the read budget of the connection depends on.
    pub(super) fn demand<P: Protocol<Session = T>>(&self, host: &Host<P>) -> Demand {
        Demand {
            received_bytes: self.connection.received_bytes(),
            piece_bytes: self.connection.piece_bytes(host),
            needs_room: self.connection.needs_room(),
        }
    }

    /// Logs the end of the connection.
    pub(super) fn log_closed(&self, now_ms: u64, reason: impl Display) {
        debug!(
            peer = %self.peer,
            received_bytes = self.connection.received_bytes(),
            sent_bytes = self.connection.sent_bytes(),
            lasted_ms = now_ms - self.times.opened_ms(),
            "closed: {reason}"
        );
    }
}

/// The slot table, and the ready queue: connections that have more to do than a turn allowed, and listeners, in the order in which they are
/// resumed.
pub(super) struct Connections<S, T> {
    slots: SlotMap<SessionId, Slot<S, T>>,
    ready: VecDeque<Token>,
    warnings: Throttle,
}

impl<S: Stream, T> Connections<S, T> {
    /// Returns an empty table for at most `max` connections.
    pub(super) fn new(max: usize) -> Self {
        Self {
            slots: SlotMap::with_capacity_and_key(max.min(CONNECTIONS_WITHOUT_GROWTH)),
            ready: VecDeque::new(),
            warnings: Throttle::default(),
        }
    }

    /// Returns the number of open connections.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the keys of all connections.
    pub(super) fn keys(&self) -> Vec<SessionId> {
        self.slots.keys().collect()
    }

    /// Returns all connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, &Slot<S, T>)> {
        self.slots.iter()
    }

    /// Returns whether there is a connection with this key.
    pub(super) fn contains(&self, key: SessionId) -> bool {
        self.slots.contains_key(key)
    }

    /// Returns a connection, if it is still open.
    #[inline]
    pub(super) fn get(&self, key: SessionId) -> Option<&Slot<S, T>> {
        self.slots.get(key)
    }

    /// Returns a connection, if it is still open.
    #[inline]
    pub(super) fn get_mut(&mut self, key: SessionId) -> Option<&mut Slot<S, T>> {
        self.slots.get_mut(key)
    }

    /// Opens a connection that was accepted: watches it, and tells the protocol. A connection that has waited is watched already, under another token.
    ///
    /// # Errors
    /// Returns the stream with the error of epoll_ctl(2) if it cannot be watched.
    pub(super) fn open<P, K>(
        &mut self,
        (stream, peer, has_waited): (S, SocketAddr, bool),
        now_ms: u64,
        host: &mut Host<P>,
        post: &mut Post,
        kernel: &mut K,
    ) -> Result<SessionId, (S, io::Error)>
    where
        P: Protocol<Session = T>,
        K: Kernel<Stream = S>,
    {
        let peer = Peer::from(peer);
        let mut watch = |stream: &S, token| match has_waited {
            false => kernel.watch(stream, token, INTEREST),
            // This also reports again what has come by now (epoll_ctl(2), EPOLL_CTL_MOD).
            true => kernel.rewatch(stream, token, INTEREST),
        };
        self.slots.try_insert_with_key(|id| match watch(&stream, Token::of_key(id)) {
            Err(error) => Err((stream, error)),
            Ok(()) => Ok(Slot {
                connection: Connection::open(stream, host, &mut Turn { id, peer: &peer, post, pipe: None }),
                times: Times::new(now_ms),
                peer,
                counted_bytes: 0,
                closing: None,
                queue: Queue::None,
            }),
        })
    }

    /// Takes a connection out of the table.
    pub(super) fn remove(&mut self, key: SessionId) -> Option<Slot<S, T>> {
        self.slots.remove(key)
    }

    /// Puts a connection into the ready queue, unless a queue holds it already.
    pub(super) fn queue(&mut self, key: SessionId) {
        if let Some(slot) = self.slots.get_mut(key)
            && slot.queue == Queue::None
        {
            slot.queue = Queue::Ready;
            self.ready.push_back(Token::of_key(key));
        }
    }

    /// Returns whether a queue holds a connection.
    pub(super) fn is_queued(&self, key: SessionId) -> bool {
        self.slots.get(key).is_some_and(|slot| slot.queue != Queue::None)
    }

    /// Puts a connection that is held back into the ready queue, where it stays held back until its turn. Returns false if it is closed, or no
    /// longer held back.
    pub(super) fn queue_held_back(&mut self, key: SessionId) -> bool {
        let is_held_back = self.slots.get(key).is_some_and(|slot| slot.queue == Queue::HeldBack);
        if is_held_back {
            self.ready.push_back(Token::of_key(key));
        }
        is_held_back
    }

    /// Appends connections that were held back to the ready queue.
    pub(super) fn queue_all(&mut self, mut tokens: VecDeque<Token>) {
        self.ready.append(&mut tokens);
    }

    /// Puts a listener into the ready queue.
    pub(super) fn queue_listener(&mut self, token: Token) {
        self.ready.push_back(token);
    }

    /// Takes the first token out of the ready queue.
    pub(super) fn pop_ready(&mut self) -> Option<Token> {
        self.ready.pop_front()
    }

    /// Returns the length of the ready queue.
    #[inline]
    pub(super) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Watches a connection with pending bytes for room to write, too. Most connections never need that, and save themselves a wake-up: one
    /// that is watched for it from the start gets that event as soon as it is open.
    ///
    /// # Errors
    /// Returns the error of epoll_ctl(2). The bytes stay pending.
    pub(super) fn watch_for_room<K: Kernel<Stream = S>>(&mut self, key: SessionId, kernel: &mut K) -> io::Result<()> {
        if let Some(slot) = self.slots.get_mut(key)
            && slot.connection.needs_room()
            && !slot.connection.is_watched_for_room()
        {
            kernel.rewatch(slot.connection.stream(), Token::of_key(key), INTEREST | EpollFlags::OUT)?;
            slot.connection.set_watched_for_room();
        }
        Ok(())
    }

    /// Logs that a connection cannot be watched for room, unless that was logged a short time ago.
    pub(super) fn warn_unwatched(&mut self, now: Instant, error: &io::Error) {
        if let Some(suppressed) = self.warnings.admit(now) {
            warn!(suppressed, "cannot watch a connection for room, and try again (epoll_ctl): {error}");
        }
    }

    /// Counts the connections that a long turn has served as active at its end.
    #[cold]
    pub(super) fn credit(&mut self, turn: LongTurn) {
        for slot in self.slots.values_mut().filter(|slot| slot.times.active_ms() >= turn.start_ms) {
            slot.times.set_active(turn.end_ms);
        }
    }

    /// Adds the open connections to the statistics of those that are closed.
    pub(super) fn add_to(&self, statistics: &mut Statistics) {
        statistics.open = self.slots.len() as u64;
        for slot in self.slots.values() {
            statistics.count_bytes(slot.connection.received_bytes(), slot.connection.sent_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn an_idle_connection_takes_88_bytes_with_its_version() {
        assert_eq!(size_of::<Slot<OwnedFd, ()>>(), 80);
    }
}
