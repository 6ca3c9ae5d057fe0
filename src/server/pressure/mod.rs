//! Back pressure: the rate limit and the memory limit. A connection that reaches one of them is not read for a while. Nothing is dropped:
//! what is not read stays in the kernel, and TCP slows the sender.

mod memory;
mod peak;
mod rate;

use std::collections::VecDeque;

use super::config::Limits;
use super::turn::READ_BUFFER_BYTES;
use crate::event::Token;
use crate::protocol::SessionId;
use memory::MemoryLimit;
use peak::Peak;
use rate::RateLimit;

pub(super) use memory::{Demand, MEMORY_RETRY};
pub(super) use peak::TRIM_AFTER;

/// The limits that hold connections back. Without a limit, a turn costs one look at that.
#[derive(Debug)]
pub(super) struct Pressure {
    is_limited: bool,
    rate: Option<RateLimit>,
    memory: Option<MemoryLimit>,
    peak: Peak,
}

/// The decision about a connection that has more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// No limit is reached: it goes on in its next turn.
    None,
    /// It waits until memory is free, or for a retry.
    Memory,
    /// It waits for its rate until this time, in milliseconds.
    Until(u64),
}

impl Pressure {
    /// Returns the limits that `limits` asks for.
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            is_limited: limits.rate_limit.is_some() || limits.memory_limit.is_some(),
            rate: limits.rate_limit.map(RateLimit::new),
            memory: limits.memory_limit.map(MemoryLimit::new),
            peak: Peak::default(),
        }
    }

    /// Returns whether there is a limit at all.
    #[inline]
    pub(super) fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// Notes that a connection is opened.
    pub(super) fn begin(&mut self, key: SessionId, now_ms: u64) {
        if let Some(rate) = &mut self.rate {
            rate.begin(key, now_ms);
        }
    }

    /// Notes that a connection is closed.
    pub(super) fn forget(&mut self, key: SessionId) {
        if let Some(memory) = &mut self.memory {
            memory.forget(key);
        }
    }

    /// Returns the number of bytes that a connection may read in a turn of `budget_bytes`, and the part of the read buffer for it, in bytes.
    pub(super) fn read_budget(
        &mut self,
        key: SessionId,
        demand: Demand,
        mut budget_bytes: usize,
        now_ms: u64,
        is_acknowledged: impl FnOnce() -> bool,
    ) -> (usize, usize) {
        if let Some(rate) = &mut self.rate {
            budget_bytes = budget_bytes.min(rate.available(key, demand.received_bytes, now_ms));
        }
        if let Some(memory) = self.memory.as_mut().filter(|memory| memory.is_full()) {
            budget_bytes = budget_bytes.min(memory.read_budget(key, demand, now_ms, is_acknowledged));
        }
        (budget_bytes, budget_bytes.clamp(1, READ_BUFFER_BYTES))
    }

    /// Decides how a connection that has more to read is resumed. One that waits for memory is queued here.
    pub(super) fn hold_back(&mut self, key: SessionId, demand: Demand, now_ms: u64) -> Hold {
        if let Some(memory) = self.memory.as_mut().filter(|memory| memory.is_full() && !demand.needs_room) {
            memory.queue(key);
            return Hold::Memory;
        }
        if let Some(rate) = &mut self.rate
            && rate.available(key, demand.received_bytes, now_ms) == 0
        {
            return Hold::Until(rate.refilled_at_ms(key, now_ms));
        }
        Hold::None
    }

    /// Notes that all connections together hold `pending_bytes` now. Returns the connections that waited for memory, if there is some again.
    pub(super) fn note_pending(&mut self, pending_bytes: u64) -> Option<VecDeque<Token>> {
        self.peak.note(pending_bytes);
        self.memory.as_mut()?.note_pending(pending_bytes)
    }

    /// Schedules a trim, if a peak is over. Returns whether the caller has to set its deadline.
    pub(super) fn schedule_trim(&mut self) -> bool {
        self.peak.schedule_trim()
    }

    /// Gives the memory of a peak back to the system, unless it is in use again.
    pub(super) fn trim(&mut self) {
        self.peak.trim();
    }

    /// Schedules a retry, if connections wait for memory. Returns whether the caller has to set its deadline.
    pub(super) fn schedule_retry(&mut self) -> bool {
        self.memory.as_mut().is_some_and(MemoryLimit::schedule_retry)
    }

    /// Begins a retry. Returns the connection that may make its piece whole, if there is one, and since when, in milliseconds.
    pub(super) fn begin_retry(&mut self) -> Option<(SessionId, u64)> {
        self.memory.as_mut()?.begin_retry()
    }

    /// Lets another connection make its piece whole.
    pub(super) fn release_holder(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.release_holder();
        }
    }

    /// Takes the next connection that waits for memory.
    pub(super) fn pop_waiting(&mut self) -> Option<Token> {
        self.memory.as_mut()?.pop_waiting()
    }
}
