//! The summary of a ping.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::client::latency::{latencies, ns};

/// The summary of a ping.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Summary {
    /// The number of payloads that were sent, or were due without a connection.
    pub sent: u64,
    /// The number of payloads that came back unchanged.
    pub received: u64,
    /// The number of these that came back after their timeout.
    pub late: u64,
    /// The number of payloads that came back changed.
    pub corrupt: u64,
    /// The duration of the run.
    pub elapsed: Duration,
    /// The round trips in nanoseconds.
    pub round_trips: Histogram<u64>,
    /// The mean of the round trips.
    pub mean: Duration,
    /// The standard deviation of the round trips, which ping(8) calls mdev.
    pub mdev: Duration,
}

impl Summary {
    /// Returns the number of payloads that did not come back, or came back changed.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

/// The counts so far.
#[derive(Debug)]
pub(super) struct Tally {
    start: Instant,
    sent: u64,
    received: u64,
    late: u64,
    corrupt: u64,
    round_trips: Histogram<u64>,
    sum_ms: f64,
    sum_of_squares_ms: f64,
}

impl Tally {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            sent: 0,
            received: 0,
            late: 0,
            corrupt: 0,
            round_trips: latencies(),
            sum_ms: 0.0,
            sum_of_squares_ms: 0.0,
        }
    }

    /// Counts a payload that is sent, or due.
    pub(super) fn sent(&mut self) {
        self.sent += 1;
    }

    /// Counts a payload that came back unchanged.
    pub(super) fn received(&mut self, round_trip: Duration, is_late: bool) {
        let millis = round_trip.as_secs_f64() * 1e3;
        self.received += 1;
        self.late += u64::from(is_late);
        self.round_trips.saturating_record(ns(round_trip));
        self.sum_ms += millis;
        self.sum_of_squares_ms += millis * millis;
    }

    /// Counts a payload that came back changed.
    pub(super) fn corrupt(&mut self) {
        self.corrupt += 1;
    }

    /// Returns the summary so far.
    pub(super) fn summary(&self) -> Summary {
        let count = self.received as f64;
        let (mean_ms, mdev_ms) = if self.received == 0 {
            (0.0, 0.0)
        } else {
            let variance = self.sum_of_squares_ms / count - (self.sum_ms / count).powi(2);
            (self.sum_ms / count, variance.max(0.0).sqrt())
        };
        Summary {
            sent: self.sent,
            received: self.received,
            late: self.late,
            corrupt: self.corrupt,
            elapsed: self.start.elapsed(),
            round_trips: self.round_trips.clone(),
            mean: Duration::from_secs_f64(mean_ms / 1e3),
            mdev: Duration::from_secs_f64(mdev_ms / 1e3),
        }
    }
}
