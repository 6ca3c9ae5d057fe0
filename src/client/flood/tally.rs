//! What is counted, by one thread and then by all.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use hdrhistogram::Histogram;

use crate::client::latency::latencies;

/// How many examples of each trouble are kept.
const EXAMPLES: usize = 3;

/// Counts of a run. Those of messages are of the measured part, without the warm-up; those of bytes and connections are of all of it.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Messages that were sent.
    pub sent: u64,
    /// Messages that came back as they should.
    pub returned: u64,
    /// ... of which so many did before the measured time was over.
    pub returned_in_time: u64,
    /// ... and so many did after their timeout.
    pub late: u64,
    /// Messages that did not come back.
    pub lost: u64,
    /// Messages that came back changed.
    pub corrupt: u64,
    /// Messages that were due and never sent, for those before them had not come back.
    pub unsent: u64,
    /// Bytes of messages that the kernel took, the warm-up included.
    pub sent_bytes: u64,
    /// Bytes of messages that came back as they should, the warm-up included.
    pub received_bytes: u64,
    /// Those of them that came back in the measured time.
    pub measured_bytes: u64,
    /// Bytes of handshakes that were sent and came back.
    pub handshake_bytes: u64,
    /// Connections that could be used.
    pub opened: u64,
    /// Connections that could not.
    pub failed: u64,
    /// Connections that the far end closed, or reset, before it should.
    pub ended_by_peer: u64,
    /// Of `--churn`: connections that were opened, used and closed in the measured time.
    pub cycles: u64,
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.sent += other.sent;
        self.returned += other.returned;
        self.returned_in_time += other.returned_in_time;
        self.late += other.late;
        self.lost += other.lost;
        self.corrupt += other.corrupt;
        self.unsent += other.unsent;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.measured_bytes += other.measured_bytes;
        self.handshake_bytes += other.handshake_bytes;
        self.opened += other.opened;
        self.failed += other.failed;
        self.ended_by_peer += other.ended_by_peer;
        self.cycles += other.cycles;
    }
}

/// Trouble of one kind.
#[derive(Debug, Clone, Default)]
pub struct Trouble {
    /// How often.
    pub count: u64,
    /// The first few, in words.
    pub examples: Vec<String>,
}

/// What one thread has seen since it last told, or all have seen together.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    /// From when a message was due, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// From when a message was sent; kept only where that is something else.
    pub(super) uncorrected: Option<Histogram<u64>>,
    /// How long connect(2) took.
    pub(super) connect: Histogram<u64>,
    pub(super) troubles: BTreeMap<&'static str, Trouble>,
    /// Up to when this was counted.
    pub(super) until_ns: u64,
    /// When the first message was due that counts and came back.
    pub(super) first_due_ns: u64,
    /// When the last message came back that counts.
    pub(super) last_return_ns: u64,
}

impl Tally {
    pub(super) fn new(is_open_loop: bool) -> Self {
        Self {
            counts: Counts::default(),
            latency: latencies(),
            uncorrected: is_open_loop.then(latencies),
            connect: latencies(),
            troubles: BTreeMap::new(),
            until_ns: 0,
            first_due_ns: u64::MAX,
            last_return_ns: 0,
        }
    }

    /// Counts a trouble, and describes it if it is one of the first of its kind.
    pub(super) fn trouble(&mut self, name: &'static str, count: u64, describe: impl FnOnce() -> String) {
        let trouble = self.troubles.entry(name).or_default();
        trouble.count += count;
        if trouble.examples.len() < EXAMPLES {
            trouble.examples.push(describe());
        }
    }

    /// Adds what another has counted.
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
        for (name, other) in &other.troubles {
            let trouble = self.troubles.entry(name).or_default();
            trouble.count += other.count;
            let room = EXAMPLES.saturating_sub(trouble.examples.len());
            trouble.examples.extend(other.examples.iter().take(room).cloned());
        }
        self.until_ns = self.until_ns.max(other.until_ns);
        self.first_due_ns = self.first_due_ns.min(other.first_due_ns);
        self.last_return_ns = self.last_return_ns.max(other.last_return_ns);
    }

    /// Whether nothing has been counted yet, as far as it is worth handing over: a connection, a byte or a message makes a difference.
    pub(super) fn is_empty(&self) -> bool {
        let Counts { sent, opened, failed, measured_bytes, .. } = self.counts;
        let is_silent = sent == 0 && opened == 0 && failed == 0 && measured_bytes == 0;
        is_silent && self.latency.is_empty() && self.troubles.is_empty()
    }

    /// Starts again from nothing.
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
        (self.until_ns, self.first_due_ns, self.last_return_ns) = (0, u64::MAX, 0);
    }

    /// Adds what another has counted, and leaves that empty.
    pub(super) fn take(&mut self, other: &mut Self) {
        self.add(other);
        other.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_over_is_counted_once() {
        let mut all = Tally::new(true);
        let mut one = Tally::new(true);
        for value in [1_000, 2_000, u64::MAX] {
            one.latency.saturating_record(value);
            one.uncorrected.as_mut().expect("an open loop").saturating_record(value);
        }
        one.counts.sent = 3;
        for number in 0..5 {
            one.trouble("lost", 2, || format!("number {number}"));
        }
        all.take(&mut one);
        all.take(&mut one);
        assert_eq!((all.counts.sent, all.latency.len(), all.uncorrected.expect("an open loop").len()), (3, 3, 3));
        assert_eq!((all.troubles["lost"].count, all.troubles["lost"].examples.len()), (10, EXAMPLES));
    }
}
