//! The rate limit: a token bucket per connection.

use slotmap::SecondaryMap;

use crate::protocol::SessionId;

/// The rate limit of a server.
#[derive(Debug)]
pub(super) struct RateLimit {
    bytes_per_second: u64,
    buckets: SecondaryMap<SessionId, Bucket>,
}

impl RateLimit {
    /// Returns a limit of `bytes_per_second` for each connection.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, buckets: SecondaryMap::new() }
    }

    /// Gives a connection that is opened at `now_ms` a full bucket.
    pub(super) fn begin(&mut self, key: SessionId, now_ms: u64) {
        self.buckets.insert(key, Bucket::full(self.bytes_per_second, now_ms));
    }

    /// Returns the number of bytes that a connection may read at `now_ms`, having read `received_bytes` in all.
    pub(super) fn available(&mut self, key: SessionId, received_bytes: u64, now_ms: u64) -> usize {
        let bucket = self.buckets.get_mut(key);
        bucket.map_or(usize::MAX, |bucket| bucket.available(self.bytes_per_second, received_bytes, now_ms))
    }

    /// Returns the time at which a connection without tokens at `now_ms` is resumed.
    pub(super) fn refilled_at_ms(&self, key: SessionId, now_ms: u64) -> u64 {
        let bucket = self.buckets.get(key);
        bucket.map_or(now_ms, |bucket| bucket.refilled_at_ms(self.bytes_per_second, now_ms))
    }
}

/// The bytes that one connection may still read. A token is a byte; a tenth of a second's worth may be saved up.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled_at_ms: u64,
    /// Bytes that the connection had read at the last look.
    received_bytes: u64,
}

/// Parts of a second: the bucket holds the tokens of one of them, and a connection without tokens waits for half as many.
const BURSTS_PER_SECOND: f64 = 10.0;

impl Bucket {
    /// Returns a full bucket.
    fn full(rate: u64, now_ms: u64) -> Self {
        Self { tokens: rate as f64 / BURSTS_PER_SECOND, filled_at_ms: now_ms, received_bytes: 0 }
    }

    /// Returns the number of bytes that a connection may read at `now_ms`, having read `received_bytes` in all.
    fn available(&mut self, rate: u64, received_bytes: u64, now_ms: u64) -> usize {
        let passed_ms = now_ms.saturating_sub(self.filled_at_ms);
        self.filled_at_ms = now_ms.max(self.filled_at_ms);
        self.tokens -= (received_bytes - self.received_bytes) as f64;
        self.received_bytes = received_bytes;
        self.tokens = (self.tokens + rate as f64 * passed_ms as f64 / 1e3).min(rate as f64 / BURSTS_PER_SECOND);
        self.tokens as usize
    }

    /// Returns the time at which the bucket is half full, after a look at `now_ms` that found too little.
    fn refilled_at_ms(&self, rate: u64, now_ms: u64) -> u64 {
        let missing = rate as f64 / BURSTS_PER_SECOND / 2.0 - self.tokens;
        now_ms + (missing * 1e3 / rate as f64).ceil().max(1.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_over_a_time_is_the_rate() {
        let rate = 10_000;
        let mut bucket = Bucket::full(rate, 0);
        let (mut now, mut taken) = (0, 0);
        while now < 60_000 {
            let available = bucket.available(rate, taken, now);
            assert!(available <= 1_000, "a tenth of a second's worth at once, not {available}");
            taken += available as u64;
            assert_eq!(bucket.available(rate, taken, now), 0);
            now = bucket.refilled_at_ms(rate, now);
        }
        assert!((600_000..=601_500).contains(&taken), "{taken} bytes in a minute");
    }
}
