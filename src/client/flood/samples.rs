//! The measured time in parts, for a curve over time.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::tally::Tally;
use crate::client::latency::ns;

/// The maximum number of samples. When there are more, neighbours are merged.
const MAX_SAMPLES: usize = 600;

/// The bounds of the length of a sample, before samples are merged.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);

/// One part of the measured time.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Sample {
    /// The start of the part, from the start of the measured time.
    pub at: Duration,
    /// The length of the part.
    pub length: Duration,
    /// The number of messages that came back.
    pub messages: u64,
    /// The number of bytes that came back.
    pub bytes: u64,
    /// The median latency in nanoseconds; `None` if nothing came back.
    pub p50_ns: Option<u64>,
    /// The 99th percentile of the latency in nanoseconds; `None` if nothing came back.
    pub p99_ns: Option<u64>,
}

/// The samples so far. Times are in nanoseconds since the start of the run.
#[derive(Debug)]
pub(super) struct Samples {
    samples: Vec<Sample>,
    length: Duration,
    /// The start of the measured time, and of the next sample.
    start_ns: u64,
    from_ns: u64,
}

impl Samples {
    /// Returns an empty list; of a run of `duration`, there will be about 100.
    pub(super) fn new(duration: Option<Duration>) -> Self {
        let length = duration.map_or(SHORTEST, |duration| duration / 100).clamp(SHORTEST, LONGEST);
        Self { samples: Vec::new(), length, start_ns: 0, from_ns: 0 }
    }

    /// Begins the measured time.
    pub(super) fn start(&mut self, start_ns: u64) {
        (self.start_ns, self.from_ns) = (start_ns, start_ns);
    }

    /// Returns whether the counts of `tally` make a sample.
    pub(super) fn is_due(&self, tally: &Tally) -> bool {
        tally.until_ns() >= self.from_ns + ns(self.length)
    }

    /// Adds the counts of `tally` as a sample, unless they are few and short.
    pub(super) fn add(&mut self, tally: &Tally) {
        let until_ns = tally.until_ns().max(self.from_ns);
        let length = Duration::from_nanos(until_ns - self.from_ns);
        let counts = tally.counts();
        if counts.returned > 0 || counts.measured_bytes > 0 || length >= self.length {
            self.samples.push(Sample {
                at: Duration::from_nanos(self.from_ns.saturating_sub(self.start_ns)),
                length,
                messages: counts.returned,
                bytes: counts.measured_bytes,
                p50_ns: quantile(tally.latency(), 0.5),
                p99_ns: quantile(tally.latency(), 0.99),
            });
        }
        self.from_ns = until_ns;
        if self.samples.len() > MAX_SAMPLES {
            self.samples = self.samples.chunks(2).map(merge).collect();
            self.length *= 2;
        }
    }

    pub(super) fn into_vec(self) -> Vec<Sample> {
        self.samples
    }
}

/// Merges neighbouring samples.
fn merge(samples: &[Sample]) -> Sample {
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

/// Returns a quantile; `None` of an empty histogram.
fn quantile(times: &Histogram<u64>, quantile: f64) -> Option<u64> {
    (!times.is_empty()).then(|| times.value_at_quantile(quantile))
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
        assert_eq!(merge(&[sample(10, None), sample(10, Some(5))]).p50_ns, Some(5));
        assert_eq!(merge(&[sample(10, None), sample(10, None)]).p99_ns, None);
    }
}
