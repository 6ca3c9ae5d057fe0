//! What holds back the reading of a connection that would otherwise go on: its rate, and the memory that all outboxes together may
//! take. Nothing is dropped: what is not read stays in the kernel, and TCP slows the sender.

use std::collections::VecDeque;

use slotmap::SecondaryMap;

use super::config::Limits;
use super::kernel::Kernel;
use super::rate::Bucket;
use super::{READ_BUFFER_BYTES, Server};
use crate::event::Token;
use crate::protocol::{Protocol, SessionId};

/// The gates of a server. Without a limit there are none, and a turn costs one look at that.
#[derive(Debug)]
pub(super) struct Gates {
    rate: Option<u64>,
    buckets: SecondaryMap<SessionId, Bucket>,
    memory_limit: Option<u64>,
    /// Those who wait for memory, in the order in which they came.
    waiting: VecDeque<Token>,
    are_there: bool,
}

impl Gates {
    pub(super) fn new(limits: &Limits) -> Self {
        let Limits { rate_limit: rate, memory_limit, .. } = *limits;
        let are_there = rate.is_some() || memory_limit.is_some();
        Self { are_there, rate, buckets: SecondaryMap::new(), memory_limit, waiting: VecDeque::new() }
    }

    #[inline]
    pub(super) fn are_there(&self) -> bool {
        self.are_there
    }

    /// A connection has come.
    pub(super) fn open(&mut self, key: SessionId, now_ms: u64) {
        if let Some(rate) = self.rate {
            self.buckets.insert(key, Bucket::full(rate, now_ms));
        }
    }
}

impl<P: Protocol, K: Kernel> Server<P, K> {
    /// What a connection may read in this turn of `budget_bytes`, and into how much of the buffer.
    #[cold]
    pub(super) fn allowance(&mut self, key: SessionId, mut budget_bytes: usize) -> (usize, usize) {
        let now_ms = self.clock.read();
        let Some(client) = self.clients.get(key) else { return (0, 1) };
        // Who is being closed is no longer answered: what it sends is discarded, and takes neither memory nor time.
        if client.closing.is_some() {
            return (budget_bytes, READ_BUFFER_BYTES);
        }
        if let Some((rate, bucket)) = self.gates.rate.zip(self.gates.buckets.get_mut(key)) {
            budget_bytes = budget_bytes.min(bucket.available(rate, client.connection.received_bytes(), now_ms));
        }
        if self.is_memory_full() {
            budget_bytes = 0;
        }
        (budget_bytes, budget_bytes.clamp(1, READ_BUFFER_BYTES))
    }

    /// A connection has more to read. It waits for memory, for its rate, or only for the others.
    #[cold]
    pub(super) fn hold_back(&mut self, key: SessionId) {
        let now_ms = self.clock.last_read();
        let is_memory_full = self.is_memory_full();
        let Some(client) = self.clients.get_mut(key).filter(|client| client.closing.is_none()) else {
            return self.queue_client(key);
        };
        if is_memory_full && !client.connection.needs_room() {
            client.is_queued = true;
            return self.gates.waiting.push_back(Token::of_key(key));
        }
        if let Some((rate, bucket)) = self.gates.rate.zip(self.gates.buckets.get_mut(key))
            && bucket.available(rate, client.connection.received_bytes(), now_ms) == 0
        {
            client.is_queued = true;
            return self.deadlines.set(self.clock.instant(bucket.refilled_at_ms(rate, now_ms)), Token::of_key(key));
        }
        self.queue_client(key);
    }

    fn is_memory_full(&self) -> bool {
        self.gates.memory_limit.is_some_and(|limit| self.statistics.pending_bytes >= limit)
    }

    /// Some bytes may have left an outbox: those who wait for memory go on, if there is some.
    pub(super) fn release_memory(&mut self) {
        if !self.gates.waiting.is_empty()
            && self.gates.memory_limit.is_some_and(|limit| self.statistics.pending_bytes < limit)
        {
            self.ready.append(&mut self.gates.waiting);
        }
    }
}
