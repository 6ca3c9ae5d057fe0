//! Heartbeats: the time at which each quiet connection was last sent one.

use std::time::Duration;

use slotmap::SecondaryMap;

use crate::protocol::SessionId;

/// The heartbeats of all connections. Empty if none are sent.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    every: Option<Duration>,
    last_ms: SecondaryMap<SessionId, u64>,
}

impl Heartbeats {
    /// Returns heartbeats that are sent to a connection after `every` without a byte either way.
    pub(super) fn new(every: Option<Duration>) -> Self {
        Self { every, last_ms: SecondaryMap::new() }
    }

    /// Returns whether heartbeats are sent at all.
    pub(super) fn is_enabled(&self) -> bool {
        self.every.is_some()
    }

    /// Notes that a connection was opened, or sent a heartbeat.
    pub(super) fn restart(&mut self, key: SessionId, now_ms: u64) {
        if self.is_enabled() {
            self.last_ms.insert(key, now_ms);
        }
    }

    /// Forgets a connection that is closed.
    pub(super) fn forget(&mut self, key: SessionId) {
        if self.is_enabled() {
            self.last_ms.remove(key);
        }
    }

    /// Counts the connections that were sent a heartbeat since `start_ms` as sent one at `end_ms`.
    pub(super) fn credit(&mut self, start_ms: u64, end_ms: u64) {
        for last_ms in self.last_ms.values_mut().filter(|last_ms| **last_ms >= start_ms) {
            *last_ms = end_ms;
        }
    }

    /// Returns the interval, and the time of the last heartbeat of a connection.
    pub(super) fn of(&self, key: SessionId) -> Option<(Duration, u64)> {
        Some((self.every?, *self.last_ms.get(key)?))
    }
}
