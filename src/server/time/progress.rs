//! The progress of peers: the time at which each last took bytes, by what its kernel has acknowledged and ours has taken.
//!
//! The length of an outbox says little about a peer. Linux reports room only when a third of the send buffer is free, which can take
//! minutes with a peer that reads slowly, and an outbox of the same length may hold other bytes. So the kernel is asked, and only at a
//! check of the timeouts.

use std::hash::{BuildHasherDefault, DefaultHasher};

use slotmap::SparseSecondaryMap;

use crate::protocol::SessionId;
use crate::stream::Acknowledged;

/// The known progress of a peer. Times are milliseconds of the server's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// Time of the last known progress.
    pub(super) since_ms: u64,
    /// Time of the last look.
    pub(super) looked_at_ms: u64,
    /// Bytes that the peer's kernel had acknowledged at the last look; 0 before the first.
    pub(super) acknowledged_bytes: u64,
}

/// The progress of the peers that had bytes outstanding when they were last looked at.
#[derive(Debug, Default)]
pub(super) struct PeerProgress {
    /// The keys are the server's own, so that hashing needs no secret, and no call of getrandom(2) for one.
    seen: SparseSecondaryMap<SessionId, Seen, BuildHasherDefault<DefaultHasher>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Bytes that the peer's kernel had acknowledged at the last look; `None` before the first.
    acknowledged_bytes: Option<u64>,
    /// Bytes that our kernel had taken for the peer. With a full buffer it takes more only after an acknowledgement, which may be much
    /// older than our offer.
    sent_bytes: u64,
    since_ms: u64,
    looked_at_ms: u64,
    /// Bytes are pending for the peer, or the server closes the connection.
    is_owed: bool,
}

impl PeerProgress {
    /// Counts the time without progress from `now_ms` on, for a connection that has sent `sent_bytes`.
    pub(super) fn begin(&mut self, key: SessionId, sent_bytes: u64, now_ms: u64) {
        let seen = Seen { acknowledged_bytes: None, sent_bytes, since_ms: now_ms, looked_at_ms: now_ms, is_owed: true };
        self.seen.insert(key, seen);
    }

    /// Forgets a connection that owes its peer nothing, or is closed.
    pub(super) fn forget(&mut self, key: SessionId) {
        if !self.seen.is_empty() {
            self.seen.remove(key);
            if self.seen.is_empty() {
                self.seen = SparseSecondaryMap::default(); // and return the memory of a peak
            }
        }
    }

    /// Returns whether the time without progress is counted for a connection.
    pub(super) fn is_counted(&self, key: SessionId) -> bool {
        self.seen.get(key).is_some_and(|seen| seen.is_owed)
    }

    /// Returns what is known of a peer's progress.
    pub(super) fn of(&self, key: SessionId) -> Option<Progress> {
        self.seen.get(key).map(|seen| Progress {
            since_ms: seen.since_ms,
            looked_at_ms: seen.looked_at_ms,
            acknowledged_bytes: seen.acknowledged_bytes.unwrap_or_default(),
        })
    }

    /// Notes what the peer's kernel has acknowledged at `now_ms`, and how many bytes ours has taken. Returns the time of the last
    /// acknowledgement if there was one since the look before. That is never earlier than it was, and late by no more than the time
    /// between two looks.
    pub(super) fn look(&mut self, key: SessionId, acknowledged: Acknowledged, sent_bytes: u64, now_ms: u64) -> Option<u64> {
        // A segment of the peer need not have acknowledged anything new, but nothing new was acknowledged after the last one.
        let last_ms = now_ms.saturating_sub(acknowledged.last_ago.as_millis() as u64);
        let bytes = Some(acknowledged.bytes);
        let Some(seen) = self.seen.get_mut(key) else {
            let seen =
                Seen { acknowledged_bytes: bytes, sent_bytes, since_ms: last_ms, looked_at_ms: now_ms, is_owed: false };
            self.seen.insert(key, seen);
            return Some(last_ms);
        };
        seen.looked_at_ms = now_ms;
        let is_new = seen.acknowledged_bytes != bytes;
        if is_new {
            seen.acknowledged_bytes = bytes;
            seen.since_ms = seen.since_ms.max(last_ms);
        }
        if seen.sent_bytes != sent_bytes {
            seen.sent_bytes = sent_bytes;
            seen.since_ms = now_ms;
        }
        is_new.then_some(last_ms)
    }
}
