//! What a flood came to.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use super::tally::{Counts, Trouble};
use super::worker::NO_FIN;

/// A rate that was kept for less than this says nothing.
const LONG_ENOUGH: Duration = Duration::from_millis(100);

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
    /// In an open loop: the rate that was asked for, in messages a second.
    pub requested_rate: Option<f64>,
    /// The time in which messages were to be sent.
    pub sending: Duration,
    /// The CPU time of the client itself; none when nothing was measured.
    pub cpu: Option<ClientCpu>,
}

/// The CPU time that the threads of a flood used together, from the start to the end of the measured time, the warm-up included.
#[derive(Debug, Clone, Copy)]
pub struct ClientCpu {
    /// In user space.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
    /// Length of that time.
    pub span: Duration,
}

impl ClientCpu {
    /// Returns a part of this CPU time as a percentage of one CPU; several threads may come to more than 100 %.
    #[must_use]
    pub fn percent(&self, time: Duration) -> f64 {
        if self.span.is_zero() { 0.0 } else { time.as_secs_f64() * 100.0 / self.span.as_secs_f64() }
    }
}

impl Outcome {
    /// Returns whether everything came back that was sent, as it was sent, and, where that was asked for, the far end closed in order. Connections
    /// that ended or failed, and messages that were never sent, are in [`counts`](Self::counts).
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.lost == 0 && self.counts.corrupt == 0 && self.troubles.iter().all(|&(name, _)| name != NO_FIN)
    }

    /// Returns the rate at which the messages of an open loop were sent, in messages a second.
    #[must_use]
    pub fn achieved_rate(&self) -> Option<f64> {
        self.requested_rate?;
        let seconds = self.sending.as_secs_f64();
        Some(if seconds > 0.0 { self.counts.sent_in_time as f64 / seconds } else { 0.0 })
    }

    /// Returns whether the messages of an open loop were sent at less than 99 % of the rate that was asked for. A run that is too short to tell was
    /// not.
    #[must_use]
    pub fn is_too_slow(&self) -> bool {
        let Some(rate) = self.requested_rate else { return false };
        let due = rate * self.sending.as_secs_f64();
        // One message more or less is a matter of where the measured time begins and ends.
        self.sending >= LONG_ENOUGH && (self.counts.sent_in_time as f64) + 1.0 < due * 0.99
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
    /// The median latency, in nanoseconds; none when nothing came back.
    pub p50_ns: Option<u64>,
    /// The latency that 99 % stayed below, in nanoseconds; none when nothing came back.
    pub p99_ns: Option<u64>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(millis: u64, latency_ns: Option<u64>) -> Sample {
        let length = Duration::from_millis(millis);
        Sample { at: Duration::ZERO, length, messages: 1, bytes: 64, p50_ns: latency_ns, p99_ns: latency_ns }
    }

    #[test]
    fn an_outage_beside_a_latency_is_no_zero() {
        assert_eq!(together(&[sample(10, None), sample(10, Some(5))]).p50_ns, Some(5));
        assert_eq!(together(&[sample(10, None), sample(10, None)]).p99_ns, None);
    }
}
