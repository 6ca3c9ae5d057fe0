//! What a flood came to.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use super::tally::{Counts, Trouble};
use super::worker::NO_FIN;

/// What a flood came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The address that was flooded.
    pub address: SocketAddr,
    /// When it began.
    pub started_at: SystemTime,
    /// Whether it was ended early.
    pub is_interrupted: bool,
    /// When it began to measure.
    pub measured_at: SystemTime,
    /// How long it measured.
    pub elapsed: Duration,
    /// What was counted.
    pub counts: Counts,
    /// From when a message was due, in nanoseconds.
    pub latency: Histogram<u64>,
    /// In an open loop: from when a message was sent, in nanoseconds.
    pub uncorrected: Option<Histogram<u64>>,
    /// How long connect(2) took, in nanoseconds.
    pub connect: Histogram<u64>,
    /// What went wrong, by name.
    pub troubles: Vec<(&'static str, Trouble)>,
    /// The measured time in parts.
    pub samples: Vec<Sample>,
    /// How many connections had to be there and could not be opened at the beginning.
    pub missing: u64,
}

impl Outcome {
    /// Whether everything came back that was sent, as it was sent, and, where that was asked for, the far end closed in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.lost == 0 && self.counts.corrupt == 0 && self.troubles.iter().all(|&(name, _)| name != NO_FIN)
    }

    /// Messages a second that came back in the measured time.
    #[must_use]
    pub fn messages_per_second(&self) -> f64 {
        self.per_second(self.counts.returned_in_time)
    }

    /// Bytes a second that came back in the measured time.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        self.per_second(self.counts.measured_bytes)
    }

    /// Of a churn: connections a second that were opened, used and closed.
    #[must_use]
    pub fn connections_per_second(&self) -> f64 {
        self.per_second(self.counts.cycles)
    }

    fn per_second(&self, count: u64) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { count as f64 / self.elapsed.as_secs_f64() }
    }
}

/// A part of the measured time.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When it began, counted from the beginning of the measured time.
    pub at: Duration,
    /// How long it was.
    pub length: Duration,
    /// Messages that came back.
    pub messages: u64,
    /// Bytes that came back.
    pub bytes: u64,
    /// The median latency, in nanoseconds.
    pub p50_ns: u64,
    /// The latency that 99 % stayed below, in nanoseconds.
    pub p99_ns: u64,
}

/// Neighbouring samples as one.
pub(super) fn together(samples: &[Sample]) -> Sample {
    let mut all = samples[0];
    for sample in &samples[1..] {
        all.length += sample.length;
        all.messages += sample.messages;
        all.bytes += sample.bytes;
        all.p50_ns = all.p50_ns.max(sample.p50_ns);
        all.p99_ns = all.p99_ns.max(sample.p99_ns);
    }
    all
}
