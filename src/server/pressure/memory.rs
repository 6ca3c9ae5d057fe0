//! The memory limit: the bytes that the outboxes, lines and frames of all connections together may hold.
//!
//! When the limit is reached, a connection that needs no memory still goes on: one whose peer's kernel has acknowledged all that it was
//! sent. Its send buffer is empty, so a small read finds room there, and nothing stays in its outbox. So peers that do not read, however
//! many there are, cannot stop one that does.
//!
//! Lines and frames that are not whole yet take memory, too. At the limit one connection at a time, the holder, may make its piece whole, so
//! that memory comes free again; the others wait. If the piece is not whole after the stall time, the connection is closed. Pieces of up to
//! 16 KiB need not wait.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::Token;
use crate::protocol::SessionId;
use crate::server::turn::READ_BUFFER_BYTES;

/// Bytes read at once from a connection that needs no memory, while the limit is reached: an empty send buffer has room for them,
/// unless `SO_SNDBUF` was set below 8 KiB (socket(7): the kernel doubles the value, and its minimum is 2,048 bytes).
const SMALL_READ_BYTES: usize = 4 * 1024;

/// Bytes of an unfinished piece that a connection may always hold: enough for the lines and frames of most protocols.
const SMALL_PIECE_BYTES: usize = 16 * 1024;

/// Time between two retries of connections that wait for memory: an acknowledgement makes no event.
pub(in crate::server) const MEMORY_RETRY: Duration = Duration::from_millis(10);

/// The facts about a connection that its read budget depends on.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct Demand {
    /// Bytes read so far.
    pub(in crate::server) received_bytes: u64,
    /// Bytes of a piece (a line, a frame) that is not whole yet.
    pub(in crate::server) piece_bytes: usize,
    /// Bytes are pending, so that the connection is not read.
    pub(in crate::server) needs_room: bool,
}

/// The memory limit of a server.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    limit_bytes: u64,
    pending_bytes: u64,
    /// The connections that wait for memory, in the order in which they came.
    waiting: VecDeque<Token>,
    /// The connection that may make its piece whole although the limit is reached, and since when, in milliseconds.
    holder: Option<(SessionId, u64)>,
    is_retry_scheduled: bool,
}

impl MemoryLimit {
    /// Returns a limit of `limit_bytes` for all connections together.
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, pending_bytes: 0, waiting: VecDeque::new(), holder: None, is_retry_scheduled: false }
    }

    /// Returns whether the limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.pending_bytes >= self.limit_bytes
    }

    /// Returns the number of bytes that a connection may read although the limit is reached. The first connection with a large piece becomes
    /// the holder.
    pub(super) fn read_budget(
        &mut self,
        key: SessionId,
        demand: Demand,
        now_ms: u64,
        is_acknowledged: impl FnOnce() -> bool,
    ) -> usize {
        // A connection that owes its peer bytes is not read, and cannot make a piece whole.
        if demand.needs_room {
            return 0;
        }
        if demand.piece_bytes < SMALL_PIECE_BYTES && is_acknowledged() {
            return SMALL_READ_BYTES;
        }
        let is_holder = demand.piece_bytes > 0 && self.holder.get_or_insert((key, now_ms)).0 == key;
        if is_holder { READ_BUFFER_BYTES } else { 0 }
    }

    /// Queues a connection until memory is free, or until a retry.
    pub(super) fn queue(&mut self, key: SessionId) {
        self.waiting.push_back(Token::of_key(key));
    }

    /// Notes that all connections together hold `pending_bytes` now. Takes the connections that wait, if there is memory again.
    pub(super) fn note_pending(&mut self, pending_bytes: u64) -> Option<VecDeque<Token>> {
        self.pending_bytes = pending_bytes;
        (!self.waiting.is_empty() && !self.is_full()).then(|| std::mem::take(&mut self.waiting))
    }

    /// Schedules a retry, if connections wait and no retry is scheduled. Returns whether it was scheduled now.
    pub(super) fn schedule_retry(&mut self) -> bool {
        !self.waiting.is_empty() && !std::mem::replace(&mut self.is_retry_scheduled, true)
    }

    /// Begins a retry, and returns the holder.
    pub(super) fn begin_retry(&mut self) -> Option<(SessionId, u64)> {
        self.is_retry_scheduled = false;
        self.holder
    }

    /// Takes the next connection that waits.
    pub(super) fn pop_waiting(&mut self) -> Option<Token> {
        self.waiting.pop_front()
    }

    /// Lets another connection become the holder.
    pub(super) fn release_holder(&mut self) {
        self.holder = None;
    }

    /// Forgets a connection that is closed. A token of it in the queue finds nothing.
    pub(super) fn forget(&mut self, key: SessionId) {
        if self.holder.is_some_and(|(holder, _)| holder == key) {
            self.holder = None;
        }
    }
}
