//! The outcome of a flood.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use super::counts::Counts;
use super::samples::Sample;
use super::troubles::{NO_FIN, Trouble};

/// The shortest time that shows whether a rate was kept.
const LONG_ENOUGH: Duration = Duration::from_millis(100);

/// The outcome of a flood.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// The address that was flooded.
    pub address: SocketAddr,
    /// The start of the run.
    pub started_at: SystemTime,
    /// The observer ended the run early.
    pub is_interrupted: bool,
    /// The start of the measured time.
    pub measured_at: SystemTime,
    /// The length of the measured time.
    pub elapsed: Duration,
    /// The counts.
    pub counts: Counts,
    /// The latencies in nanoseconds, from when a message was due.
    pub latency: Histogram<u64>,
    /// In an open loop: the latencies in nanoseconds, from when a message was sent.
    pub uncorrected: Option<Histogram<u64>>,
    /// The durations of connect(2) in nanoseconds.
    pub connect: Histogram<u64>,
    /// The troubles by name.
    pub troubles: Vec<(&'static str, Trouble)>,
    /// The measured time in parts.
    pub samples: Vec<Sample>,
    /// The number of connections that could not be opened at the beginning.
    pub missing: u64,
    /// In an open loop: the requested rate in messages per second.
    pub requested_rate: Option<f64>,
    /// The time in which messages were to be sent.
    pub sending: Duration,
    /// The CPU time of the client itself; `None` if nothing was measured.
    pub cpu: Option<ClientCpu>,
}

/// The CPU time of all threads of a flood, from the start to the end of the measured time, including the warm-up.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ClientCpu {
    /// CPU time in user space.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// The length of that time.
    pub span: Duration,
}

impl ClientCpu {
    /// Returns `time` as a percentage of one CPU. Several threads can use more than 100 %.
    #[must_use]
    pub fn percent(&self, time: Duration) -> f64 {
        if self.span.is_zero() { 0.0 } else { time.as_secs_f64() * 100.0 / self.span.as_secs_f64() }
    }
}

impl Outcome {
    /// Returns whether everything that was sent came back unchanged, and the far end answered every FIN of a half-closed connection.
    /// Connections that ended or failed, and messages that were never sent, are in [`counts`](Self::counts).
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.lost == 0 && self.counts.corrupt == 0 && self.troubles.iter().all(|&(name, _)| name != NO_FIN)
    }

    /// Returns the rate at which the messages of an open loop were sent, in messages per second.
    #[must_use]
    pub fn achieved_rate(&self) -> Option<f64> {
        self.requested_rate?;
        let seconds = self.sending.as_secs_f64();
        Some(if seconds > 0.0 { self.counts.sent_in_time as f64 / seconds } else { 0.0 })
    }

    /// Returns whether the messages of an open loop were sent at less than 99 % of the requested rate; `false` for less than 100 ms,
    /// which are too short to tell.
    #[must_use]
    pub fn is_too_slow(&self) -> bool {
        let Some(rate) = self.requested_rate else { return false };
        let due = rate * self.sending.as_secs_f64();
        // One message more or less depends on where the measured time begins and ends.
        self.sending >= LONG_ENOUGH && (self.counts.sent_in_time as f64) + 1.0 < due * 0.99
    }

    /// Returns the number of unsent messages that make the run a failure. After an early end, messages that were due at that moment
    /// do not count, unless the flood was [too slow](Self::is_too_slow) anyway.
    #[must_use]
    pub fn failing_unsent(&self) -> u64 {
        if self.is_interrupted && !self.is_too_slow() { 0 } else { self.counts.unsent }
    }

    /// Returns the messages per second that came back in the measured time.
    #[must_use]
    pub fn messages_per_second(&self) -> f64 {
        self.per_second(self.counts.returned_in_time)
    }

    /// Returns the bytes per second that came back in the measured time.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        self.per_second(self.counts.measured_bytes)
    }

    /// Returns the connections per second of a churn that were opened, used and closed.
    #[must_use]
    pub fn connections_per_second(&self) -> f64 {
        self.per_second(self.counts.cycles)
    }

    fn per_second(&self, count: u64) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { count as f64 / self.elapsed.as_secs_f64() }
    }
}
