//! What holds back the reading of a connection that would otherwise go on: its rate, and the memory that all outboxes together may
//! take. Nothing is dropped: what is not read stays in the kernel, and TCP slows the sender.

use std::collections::VecDeque;

use slotmap::SecondaryMap;

use super::config::Limits;
use super::connection::Progress;
use super::rate::Bucket;
use super::serving::BYTES_A_TURN;
use super::{ClientKey, READ_BUFFER_BYTES, Server};
use crate::event::Token;
use crate::protocol::Protocol;

/// The gates of a server. Without a limit there are none, and a turn costs one look at that.
#[derive(Debug)]
pub(super) struct Gates {
    rate: Option<u64>,
    buckets: SecondaryMap<ClientKey, Bucket>,
    memory_limit: Option<u64>,
    /// Those who wait for memory, in the order in which they came.
    waiting: VecDeque<Token>,
}

impl Gates {
    pub(super) fn new(limits: &Limits) -> Self {
        let Limits { rate_limit: rate, memory_limit, .. } = *limits;
        Self { rate, buckets: SecondaryMap::new(), memory_limit, waiting: VecDeque::new() }
    }

    #[inline]
    pub(super) fn are_there(&self) -> bool {
        self.rate.is_some() || self.memory_limit.is_some()
    }

    /// A connection has come.
    pub(super) fn open(&mut self, key: ClientKey, now_ms: u64) {
        if let Some(rate) = self.rate {
            self.buckets.insert(key, Bucket::full(rate, now_ms));
        }
    }
}

impl<P: Protocol> Server<P> {
    /// Gives a connection its turn, as far as the gates let it.
    pub(super) fn serve_gated(&mut self, key: ClientKey) {
        let now_ms = self.clock.read();
        let is_memory_full = self.gates.memory_limit.is_some_and(|limit| self.statistics.pending_bytes >= limit);
        let Some(client) = self.clients.get_mut(key) else { return };
        // Who is being closed is no longer answered: what it sends is discarded, and takes neither memory nor time.
        let is_open = client.closing.is_none();
        let mut bucket = self.gates.buckets.get_mut(key).zip(self.gates.rate).filter(|_| is_open);
        let mut budget_bytes = BYTES_A_TURN;
        if is_open && is_memory_full {
            budget_bytes = 0;
        } else if let Some((bucket, rate)) = &mut bucket {
            budget_bytes = budget_bytes.min(bucket.available(*rate, now_ms));
        }
        let received_before = client.connection.received_bytes();
        let buffer = &mut self.read_buffer.0[..budget_bytes.clamp(1, READ_BUFFER_BYTES)];
        let progress = client.connection.advance(&self.protocol, buffer, budget_bytes);
        let received = client.connection.received_bytes() - received_before;
        let has_changed = client.connection.pending_bytes() != client.counted_bytes as usize;

        let mut refilled_at_ms = None;
        if let Some((bucket, rate)) = bucket {
            bucket.take(received);
            if bucket.available(rate, now_ms) == 0 {
                refilled_at_ms = Some(bucket.refilled_at_ms(rate, now_ms));
            }
        }
        let has_more = matches!(progress, Progress::More);
        if has_more && is_open && is_memory_full {
            client.is_queued = true;
            self.gates.waiting.push_back(Token::of_key(key));
        } else if has_more && let Some(at_ms) = refilled_at_ms {
            client.is_queued = true;
            self.deadlines.set(self.clock.instant(at_ms), Token::of_key(key));
        } else {
            if has_changed {
                self.count_pending(key);
            }
            self.after_turn(key, progress);
            return;
        }
        if has_changed {
            self.count_pending(key);
        }
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
