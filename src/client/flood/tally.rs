//! What is counted, by one thread and then by all.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::client::latency::latencies;
use crate::sys::thread::CpuTime;

/// How many examples of each trouble are kept.
const EXAMPLES: usize = 3;

/// Counts of a run. Those of messages are of the measured part, without the warm-up; those of bytes and connections are of all of it.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Messages that were sent.
    pub sent: u64,
    /// ... of which so many were before the measured time was over.
    pub sent_in_time: u64,
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
    /// Pauses that flood itself made on a connection: to gather evidence of corruption, and before it replaced a connection that had ended.
    pub pauses: u64,
    /// The length of all these pauses together, in nanoseconds.
    pub paused_ns: u64,
    /// In an open loop: messages that waited for such a pause. Their latency is without it.
    pub paused_messages: u64,
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.sent += other.sent;
        self.sent_in_time += other.sent_in_time;
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
        self.pauses += other.pauses;
        self.paused_ns += other.paused_ns;
        self.paused_messages += other.paused_messages;
    }
}

/// Trouble of one kind. Times are seconds from the beginning of the measured time on; what came before it is negative.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// How often.
    pub count: u64,
    /// When it came first.
    pub at_s: f64,
    /// When it came last.
    pub last_at_s: f64,
    /// The first few.
    pub examples: Vec<Example>,
}

/// One case of a trouble.
#[derive(Debug, Clone)]
pub struct Example {
    /// When it was, as in [`Trouble`].
    pub at_s: f64,
    /// What it was, in words.
    pub text: String,
}

/// Trouble of one kind while it is counted. Times are nanoseconds since the start of the run.
#[derive(Debug, Clone)]
pub(super) struct Cases {
    pub(super) count: u64,
    first_ns: u64,
    last_ns: u64,
    pub(super) examples: Vec<(u64, String)>,
}

impl Cases {
    const NONE: Self = Self { count: 0, first_ns: u64::MAX, last_ns: 0, examples: Vec::new() };

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.iter().take(room).cloned());
    }

    /// Counts the times from `start_ns` on.
    pub(super) fn since(mut self, start_ns: u64) -> Trouble {
        let at_s = |at_ns: u64| (at_ns as f64 - start_ns as f64) / 1e9;
        self.examples.sort_by_key(|&(at_ns, _)| at_ns); // those of several threads
        Trouble {
            count: self.count,
            at_s: at_s(self.first_ns),
            last_at_s: at_s(self.last_ns),
            examples: self.examples.into_iter().map(|(at_ns, text)| Example { at_s: at_s(at_ns), text }).collect(),
        }
    }
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
    pub(super) troubles: BTreeMap<&'static str, Cases>,
    /// CPU time of the threads from the start to the end of the measured time, and the length of that time, summed up over the threads.
    pub(super) cpu: CpuTime,
    pub(super) cpu_span: Duration,
    /// Up to when this was counted.
    pub(super) until_ns: u64,
    /// When the first message was due that counts and came back.
    pub(super) first_due_ns: u64,
    /// When the last message came back that counts.
    pub(super) last_return_ns: u64,
    /// When the last message was sent that counts.
    pub(super) last_sent_ns: u64,
}

impl Tally {
    pub(super) fn new(is_open_loop: bool) -> Self {
        Self {
            counts: Counts::default(),
            latency: latencies(),
            uncorrected: is_open_loop.then(latencies),
            connect: latencies(),
            troubles: BTreeMap::new(),
            cpu: CpuTime::default(),
            cpu_span: Duration::ZERO,
            until_ns: 0,
            first_due_ns: u64::MAX,
            last_return_ns: 0,
            last_sent_ns: 0,
        }
    }

    /// Counts a trouble, and describes it if it is one of the first of its kind.
    pub(super) fn trouble(&mut self, name: &'static str, count: u64, now_ns: u64, describe: impl FnOnce() -> String) {
        let cases = self.troubles.entry(name).or_insert(Cases::NONE);
        cases.count += count;
        cases.first_ns = cases.first_ns.min(now_ns);
        cases.last_ns = cases.last_ns.max(now_ns);
        if cases.examples.len() < EXAMPLES {
            cases.examples.push((now_ns, describe()));
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
            self.troubles.entry(name).or_insert(Cases::NONE).add(other);
        }
        self.cpu.user += other.cpu.user;
        self.cpu.system += other.cpu.system;
        self.cpu_span += other.cpu_span;
        self.until_ns = self.until_ns.max(other.until_ns);
        self.first_due_ns = self.first_due_ns.min(other.first_due_ns);
        self.last_return_ns = self.last_return_ns.max(other.last_return_ns);
        self.last_sent_ns = self.last_sent_ns.max(other.last_sent_ns);
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
        (self.cpu, self.cpu_span) = (CpuTime::default(), Duration::ZERO);
        (self.until_ns, self.first_due_ns, self.last_return_ns, self.last_sent_ns) = (0, u64::MAX, 0, 0);
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
            one.trouble("lost", 2, 100 - number, || format!("number {number}"));
        }
        all.take(&mut one);
        all.take(&mut one);
        assert_eq!((all.counts.sent, all.latency.len(), all.uncorrected.expect("an open loop").len()), (3, 3, 3));
        assert_eq!((all.troubles["lost"].count, all.troubles["lost"].examples.len()), (10, EXAMPLES));
        let trouble = all.troubles["lost"].clone().since(98);
        assert_eq!((trouble.at_s, trouble.last_at_s), (-2e-9, 2e-9), "{trouble:?}");
        assert!(trouble.examples.is_sorted_by_key(|example| example.at_s), "{trouble:?}");
    }
}
