//! The token bucket of `--rate-limit`.

/// What one connection may still read. A token is a byte; a tenth of a second's worth may be saved up.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct Bucket {
    tokens: f64,
    filled_at_ms: u64,
    /// How much the connection had read when it was last looked at.
    received_bytes: u64,
}

/// The parts of a second that may be saved up, and that a connection without tokens waits for.
const BURSTS_A_SECOND: f64 = 10.0;

impl Bucket {
    /// A full bucket.
    pub(in crate::server) fn full(rate: u64, now_ms: u64) -> Self {
        Self { tokens: rate as f64 / BURSTS_A_SECOND, filled_at_ms: now_ms, received_bytes: 0 }
    }

    /// How many bytes more may be read at `now_ms` by a connection that has read so many in all.
    pub(in crate::server) fn available(&mut self, rate: u64, received_bytes: u64, now_ms: u64) -> usize {
        let passed_ms = now_ms.saturating_sub(self.filled_at_ms);
        self.filled_at_ms = now_ms.max(self.filled_at_ms);
        self.tokens -= (received_bytes - self.received_bytes) as f64;
        self.received_bytes = received_bytes;
        self.tokens = (self.tokens + rate as f64 * passed_ms as f64 / 1e3).min(rate as f64 / BURSTS_A_SECOND);
        self.tokens as usize
    }

    /// When to look again, after a look at `now_ms` that found too little: when half of what may be saved up is there.
    pub(in crate::server) fn refilled_at_ms(&self, rate: u64, now_ms: u64) -> u64 {
        let missing = rate as f64 / BURSTS_A_SECOND / 2.0 - self.tokens;
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
