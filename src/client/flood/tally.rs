//! The tally of a flood: counts, latencies and troubles, by one thread and then by all of them together.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::counts::Counts;
use super::in_flight::Message;
use super::troubles::Troubles;
use crate::client::connect::ConnectError;
use crate::client::latency::{latencies, ns};
use crate::sys::thread::CpuTime;

/// The counts of one thread since its last report, or of all threads together. Times are in nanoseconds since the start of the run.
#[derive(Debug)]
pub(super) struct Tally {
    counts: Counts,
    /// From when a message was due.
    latency: Histogram<u64>,
    /// From when a message was sent; only in an open loop, where the two differ.
    uncorrected: Option<Histogram<u64>>,
    connect: Histogram<u64>,
    troubles: Troubles,
    /// The first error of a connection that could not be opened.
    connect_error: Option<ConnectError>,
    /// The CPU time from the start to the end of the measured time, and the length of that time, each summed over the threads.
    cpu: CpuTime,
    cpu_span: Duration,
    /// The time of the latest count.
    until_ns: u64,
    /// The earliest due time of a message that counts and came back.
    first_due_ns: u64,
    last_return_ns: u64,
    last_sent_ns: u64,
}

/// The parts of a tally at the end of a run.
pub(super) struct Totals {
    pub(super) counts: Counts,
    pub(super) latency: Histogram<u64>,
    pub(super) uncorrected: Option<Histogram<u64>>,
    pub(super) connect: Histogram<u64>,
    pub(super) troubles: Troubles,
    pub(super) connect_error: Option<ConnectError>,
    pub(super) cpu: CpuTime,
    pub(super) cpu_span: Duration,
    pub(super) first_due_ns: u64,
    pub(super) last_return_ns: u64,
    pub(super) last_sent_ns: u64,
}

impl Tally {
    pub(super) fn new(is_open_loop: bool) -> Self {
        Self {
            counts: Counts::default(),
            latency: latencies(),
            uncorrected: is_open_loop.then(latencies),
            connect: latencies(),
            troubles: Troubles::default(),
            connect_error: None,
            cpu: CpuTime::default(),
            cpu_span: Duration::ZERO,
            until_ns: 0,
            first_due_ns: u64::MAX,
            last_return_ns: 0,
            last_sent_ns: 0,
        }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    pub(super) fn uncorrected(&self) -> Option<&Histogram<u64>> {
        self.uncorrected.as_ref()
    }

    /// Returns the time of the latest count.
    pub(super) fn until_ns(&self) -> u64 {
        self.until_ns
    }

    /// Counts a connection that can be used.
    pub(super) fn opened(&mut self, connect_time: Duration, handshake_bytes: u64, header_bytes: u64) {
        self.counts.opened += 1;
        self.counts.handshake_bytes += handshake_bytes;
        self.counts.proxy_header_bytes += header_bytes;
        self.connect.saturating_record(ns(connect_time));
    }

    /// Counts an attempt to connect that failed, of the connection with this number.
    pub(super) fn failed(&mut self, number: u64, error: ConnectError, now_ns: u64) {
        self.counts.failed += 1;
        self.trouble(error.name(), 1, now_ns, || format!("connection {number}: {error}"));
        self.connect_error.get_or_insert(error);
    }

    /// Counts the bytes of a connection that is closed.
    pub(super) fn closed(&mut self, sent_bytes: u64, received_bytes: u64) {
        self.counts.sent_bytes += sent_bytes;
        self.counts.received_bytes += received_bytes;
    }

    /// Counts a connection that the far end ended.
    pub(super) fn ended_by_peer(&mut self) {
        self.counts.ended_by_peer += 1;
    }

    /// Counts a connection that was opened, used and closed.
    pub(super) fn cycle(&mut self) {
        self.counts.cycles += 1;
    }

    /// Counts a message that is sent now.
    #[inline]
    pub(super) fn sent(&mut self, now_ns: u64) {
        self.counts.sent += 1;
        self.last_sent_ns = now_ns;
    }

    /// Counts messages of the warm-up as sent after all, because they are about to be counted as lost or corrupt.
    pub(super) fn sent_in_warmup(&mut self, count: u64) {
        self.counts.sent += count;
    }

    /// Counts bytes that came back in the measured time.
    #[inline]
    pub(super) fn measured(&mut self, bytes: u64) {
        self.counts.measured_bytes += bytes;
    }

    /// Counts a message that came back. It is in time before `end_ns`, and late after `timeout_ns`.
    #[inline]
    pub(super) fn returned(&mut self, message: &Message, now_ns: u64, end_ns: u64, timeout_ns: u64) {
        self.counts.returned += 1;
        self.counts.returned_in_time += u64::from(now_ns < end_ns);
        self.first_due_ns = self.first_due_ns.min(message.due_ns);
        self.last_return_ns = now_ns;
        let latency_ns = now_ns.saturating_sub(message.due_ns);
        self.latency.saturating_record(latency_ns);
        if let Some(uncorrected) = &mut self.uncorrected {
            uncorrected.saturating_record(now_ns.saturating_sub(message.sent_ns));
        }
        if latency_ns > timeout_ns {
            self.counts.late += 1;
            self.trouble("late", 1, now_ns, || {
                format!("a message came back {:.3} s after it was due", latency_ns as f64 / 1e9)
            });
        }
    }

    /// Counts messages that did not come back.
    pub(super) fn lost(&mut self, count: u64, now_ns: u64, describe: impl FnOnce() -> String) {
        self.counts.lost += count;
        self.trouble("lost", count, now_ns, describe);
    }

    /// Counts the end of a stream as a lost message, which has no trouble of its own.
    pub(super) fn lost_rest(&mut self) {
        self.counts.lost += 1;
    }

    /// Counts a message that came back changed.
    pub(super) fn corrupt(&mut self, cause: &'static str, now_ns: u64, description: String) {
        self.counts.corrupt += 1;
        self.trouble(cause, 1, now_ns, || description);
    }

    /// Counts messages that were due and are not sent.
    pub(super) fn unsent(&mut self, count: u64) {
        self.counts.unsent += count;
    }

    /// Counts a pause that flood itself made.
    pub(super) fn paused(&mut self, length_ns: u64) {
        self.counts.pauses += 1;
        self.counts.paused_ns += length_ns;
    }

    /// Counts a message that waited for a pause.
    pub(super) fn paused_message(&mut self) {
        self.counts.paused_messages += 1;
    }

    /// Adds the CPU time of a thread over a span of time.
    pub(super) fn used_cpu(&mut self, from: CpuTime, to: CpuTime, span: Duration) {
        self.cpu.user += to.user.saturating_sub(from.user);
        self.cpu.system += to.system.saturating_sub(from.system);
        self.cpu_span += span;
    }

    /// Counts a trouble, and describes it if it is among the first of its kind.
    pub(super) fn trouble(&mut self, name: &'static str, count: u64, now_ns: u64, describe: impl FnOnce() -> String) {
        self.troubles.note(name, count, now_ns, describe);
    }

    /// Notes that all messages sent so far were sent in time.
    pub(super) fn close_sending(&mut self) {
        self.counts.sent_in_time = self.counts.sent;
    }

    /// Notes the time up to which everything is counted.
    pub(super) fn counted_until(&mut self, now_ns: u64) {
        self.until_ns = now_ns;
    }

    /// Returns whether nothing worth a report was counted: no connection, no byte, no message.
    pub(super) fn is_empty(&self) -> bool {
        let Counts { sent, opened, failed, measured_bytes, .. } = self.counts;
        let is_silent = sent == 0 && opened == 0 && failed == 0 && measured_bytes == 0;
        is_silent && self.latency.is_empty() && self.troubles.is_empty()
    }

    /// Adds the counts of another tally, apart from its error of connecting.
    pub(super) fn add(&mut self, other: &Self) {
        self.counts += &other.counts;
        let add = |to: &mut Histogram<u64>, from: &Histogram<u64>| {
            if !from.is_empty() {
                *to += from;
            }
        };
        add(&mut self.latency, &other.latency);
        add(&mut self.connect, &other.connect);
        if let (Some(to), Some(from)) = (&mut self.uncorrected, &other.uncorrected) {
            add(to, from);
        }
        self.troubles.add(&other.troubles);
        self.cpu.user += other.cpu.user;
        self.cpu.system += other.cpu.system;
        self.cpu_span += other.cpu_span;
        self.until_ns = self.until_ns.max(other.until_ns);
        self.first_due_ns = self.first_due_ns.min(other.first_due_ns);
        self.last_return_ns = self.last_return_ns.max(other.last_return_ns);
        self.last_sent_ns = self.last_sent_ns.max(other.last_sent_ns);
    }

    /// Empties the tally.
    pub(super) fn reset(&mut self) {
        let reset = |histogram: &mut Histogram<u64>| {
            if !histogram.is_empty() {
                histogram.reset();
            }
        };
        self.counts = Counts::default();
        reset(&mut self.latency);
        reset(&mut self.connect);
        self.uncorrected.as_mut().map(reset);
        self.troubles.clear();
        self.connect_error = None;
        (self.cpu, self.cpu_span) = (CpuTime::default(), Duration::ZERO);
        (self.until_ns, self.first_due_ns, self.last_return_ns, self.last_sent_ns) = (0, u64::MAX, 0, 0);
    }

    /// Moves all counts of another tally into this one.
    pub(super) fn take(&mut self, other: &mut Self) {
        self.add(other);
        if self.connect_error.is_none() {
            self.connect_error = other.connect_error.take();
        }
        other.reset();
    }

    pub(super) fn into_totals(self) -> Totals {
        let Self { counts, latency, uncorrected, connect, troubles, connect_error, cpu, cpu_span, .. } = self;
        let Self { first_due_ns, last_return_ns, last_sent_ns, .. } = self;
        Totals {
            counts,
            latency,
            uncorrected,
            connect,
            troubles,
            connect_error,
            cpu,
            cpu_span,
            first_due_ns,
            last_return_ns,
            last_sent_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_over_is_counted_once() {
        let mut all = Tally::new(true);
        let mut one = Tally::new(true);
        for end in [1_000, 2_000, 3_000] {
            one.sent(end);
            one.returned(&Message { end, due_ns: 0, sent_ns: 0 }, end, u64::MAX, u64::MAX);
        }
        one.lost(2, 100, || "two".to_owned());
        one.failed(7, ConnectError::Refused, 100);
        all.take(&mut one);
        all.take(&mut one);
        assert!(one.is_empty());
        let totals = all.into_totals();
        assert_eq!((totals.counts.sent, totals.counts.lost, totals.counts.failed), (3, 2, 1));
        assert_eq!((totals.latency.len(), totals.uncorrected.expect("an open loop").len()), (3, 3));
        assert!(matches!(totals.connect_error, Some(ConnectError::Refused)));
    }
}
