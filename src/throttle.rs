//! A rate limit for log lines that a peer can provoke.

use std::time::{Duration, Instant};

use tracing::warn;

/// Minimum time between two log lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// A limit of one log line per 10 seconds, with a count of the suppressed lines.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// Returns the number of lines suppressed since the last one if a line may be printed at `now`, or `None` if it is suppressed.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Logs the count of the lines that no later line has reported.
impl Drop for Throttle {
    fn drop(&mut self) {
        if self.suppressed > 0 {
            warn!(suppressed = self.suppressed, "repeated warnings were not logged");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_and_the_next_one_counts_the_suppressed_lines() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.admit(start), Some(0));
        assert_eq!(throttle.admit(start), None);
        assert_eq!(throttle.admit(start + INTERVAL / 2), None);
        assert_eq!(throttle.admit(start + INTERVAL), Some(2));
        assert_eq!(throttle.admit(start + INTERVAL * 3), Some(0));
    }
}
