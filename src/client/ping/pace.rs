//! The pace of a ping: the sequence numbers of its payloads, and when each is due.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The pace of a ping.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    count: Option<u64>,
    next_sequence: u64,
    next_at: Instant,
    /// The payloads that are due and wait for a connection.
    waiting: VecDeque<u64>,
}

impl Pace {
    /// Returns a pace of `count` payloads, or without end, the first of them due at `start`.
    pub(super) fn new(interval: Duration, count: Option<u64>, start: Instant) -> Self {
        Self { interval, count, next_sequence: 1, next_at: start, waiting: VecDeque::new() }
    }

    /// Returns whether a payload will become due.
    pub(super) fn has_more(&self) -> bool {
        self.count.is_none_or(|count| self.next_sequence <= count)
    }

    /// Returns whether a payload waits for a connection.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns when the next payload is due. With no interval it waits for the echo of the last one; `is_idle` tells that no echo is
    /// awaited.
    pub(super) fn next_at(&self, is_idle: bool) -> Option<Instant> {
        (self.has_more() && (is_idle || !self.interval.is_zero())).then_some(self.next_at)
    }

    /// Queues the next payload if it is due. Returns whether it was.
    pub(super) fn issue(&mut self, now: Instant, is_idle: bool) -> bool {
        let is_due = self.next_at(is_idle).is_some_and(|at| at <= now);
        if is_due {
            self.waiting.push_back(self.next_sequence);
            self.next_sequence += 1;
            // After a stop of the process, missed payloads are not made up for.
            self.next_at = (self.next_at + self.interval).max(now);
        }
        is_due
    }

    /// Notes an echo, which with no interval makes the next payload due.
    pub(super) fn on_echo(&mut self, at: Instant) {
        if self.interval.is_zero() {
            self.next_at = at;
        }
    }

    /// Returns the sequence number of the next payload to send.
    pub(super) fn first_waiting(&self) -> u64 {
        self.waiting.front().copied().unwrap_or(self.next_sequence)
    }

    /// Takes the next payload to send.
    pub(super) fn take_waiting(&mut self) -> Option<u64> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_due_at_the_interval_and_missed_ones_are_not_made_up_for() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(Duration::from_millis(10), Some(3), start);
        assert!(pace.issue(start, true) && !pace.issue(at(9), true));
        assert!(pace.issue(at(55), false), "due at 10, and again at 55");
        assert_eq!(pace.next_at(false), Some(at(55)));
        assert!(pace.issue(at(55), false) && !pace.has_more() && !pace.issue(at(99), true), "three were wanted");
        assert_eq!([pace.take_waiting(), pace.take_waiting(), Some(pace.first_waiting())], [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn without_an_interval_the_echo_makes_the_next_payload_due() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::ZERO, None, start);
        assert!(pace.issue(start, true) && !pace.issue(start, false));
        let echo_at = start + Duration::from_millis(3);
        pace.on_echo(echo_at);
        assert!(!pace.issue(start, true) && pace.issue(echo_at, true));
    }
}
