//! The progress of a flood, as its observer sees it.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::counts::Counts;
use super::tally::Tally;

/// The observer of a flood.
pub trait Observer {
    /// Called about 10 times per second. Returns whether to continue.
    fn progress(&mut self, progress: &Progress<'_>) -> bool;

    /// Called about once per second with the latencies since the last call.
    fn interval(&mut self, interval: &Interval<'_>);
}

/// The progress of a flood.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The part that is done, from 0 to 1; `None` until the connections are open.
    pub fraction: Option<f64>,
    /// The number of connections that were opened.
    pub opened: u64,
    /// The rate of the last 200 ms or more, in messages per second; in bytes for [`Load::Bulk`](super::Load::Bulk), in connections
    /// for [`Load::Churn`](super::Load::Churn).
    pub rate: f64,
    /// The latencies of about the last second, in nanoseconds.
    pub latency: &'a Histogram<u64>,
    /// The measured time up to the last count.
    pub elapsed: Duration,
    pub(super) tallies: [&'a Tally; 2],
}

impl Progress<'_> {
    /// Returns the counts so far. Bytes, other than the measured ones, are counted when a connection closes.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.tallies.iter().for_each(|tally| counts += tally.counts());
        counts
    }

    /// Returns all latencies so far, in nanoseconds.
    #[must_use]
    pub fn latency_so_far(&self) -> Histogram<u64> {
        let [first, second] = self.tallies;
        let mut latency = first.latency().clone();
        latency += second.latency();
        latency
    }
}

/// The latencies of one part of the measured time. The parts follow each other without a gap.
#[derive(Debug)]
#[non_exhaustive]
pub struct Interval<'a> {
    /// The start of the part, from the start of the run.
    pub at: Duration,
    /// The length of the part.
    pub length: Duration,
    /// The latencies in nanoseconds; in an open loop from when a message was due.
    pub latency: &'a Histogram<u64>,
    /// In an open loop: the latencies from when a message was sent.
    pub uncorrected: Option<&'a Histogram<u64>>,
}
