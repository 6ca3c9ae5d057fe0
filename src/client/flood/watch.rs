//! Watching the threads of a flood: when they may begin, what they have counted, how far they have come.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use super::outcome::together;
use super::tally::Tally;
use super::worker::{Shared, ns};
use super::{ClientCpu, Error, Interval, Load, Observer, Outcome, Progress, Sample};
use crate::client::connect_error::ConnectError;

/// How often it is looked how far the threads have come. It takes time from them if they share a CPU.
const LOOK: Duration = Duration::from_millis(100);

/// How long all threads have to hear when to begin.
const HEAD_START: Duration = Duration::from_millis(10);

/// How many samples are kept; when there are more, neighbours are put together.
const SAMPLES: usize = 600;

/// What is seen of the threads while they work.
pub(super) struct Watch<'a> {
    shared: &'a Shared<'a>,
    observer: &'a mut dyn Observer,
    /// What a thread hands over is exchanged for this, which is empty.
    empty: Tally,
    /// What is not yet part of a sample, and since when.
    sample: Tally,
    sample_from_ns: u64,
    /// Samples that have not been shown as an interval, and since when.
    interval: Tally,
    interval_from_ns: u64,
    /// All samples.
    total: Tally,
    /// How much there was at the last look, and what that came to in a second.
    looked: (u64, u64),
    rate: f64,
    samples: Vec<Sample>,
    sample_length: Duration,
    /// When it was ended early, if it was.
    stopped_ns: Option<u64>,
    missing: u64,
}

impl<'a> Watch<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, total: Tally, observer: &'a mut dyn Observer) -> Self {
        let tally = || Tally::new(shared.options.load.is_open_loop());
        let sample_length = shared.options.duration.map_or(Duration::from_millis(100), |duration| duration / 100);
        Self {
            shared,
            observer,
            empty: tally(),
            total,
            sample: tally(),
            sample_from_ns: 0,
            interval: tally(),
            interval_from_ns: 0,
            looked: (0, 0),
            rate: 0.0,
            samples: Vec::new(),
            sample_length: sample_length.clamp(Duration::from_millis(100), Duration::from_secs(60)),
            stopped_ns: None,
            missing: 0,
        }
    }

    /// When the measured time begins; none before that is known.
    fn measuring_from_ns(&self) -> Option<u64> {
        let start_ns = self.shared.start_ns.load(Ordering::Acquire);
        (start_ns != 0).then(|| start_ns + ns(self.shared.options.warmup))
    }

    pub(super) fn watch(&mut self) {
        let threads = self.shared.options.threads;
        while self.shared.ended.load(Ordering::Acquire) < threads {
            thread::park_timeout(LOOK);
            let now_ns = self.shared.now_ns();
            if self.shared.start_ns.load(Ordering::Relaxed) == 0 && self.shared.ready.load(Ordering::Acquire) == threads {
                self.collect();
                self.missing = self.sample.counts.failed;
                self.shared.start_ns.store(now_ns + ns(HEAD_START), Ordering::Release);
                let from_ns = now_ns + ns(HEAD_START) + ns(self.shared.options.warmup);
                (self.sample_from_ns, self.interval_from_ns) = (from_ns, from_ns);
            }
            // Before the start, only who could not even begin ends.
            if self.shared.start_ns.load(Ordering::Relaxed) == 0 && self.shared.ended.load(Ordering::Acquire) > 0 {
                self.shared.stop.store(true, Ordering::Relaxed);
            }
            self.collect();
            self.look(now_ns);
        }
        self.collect();
        self.end_sample();
        self.end_interval();
    }

    /// Takes over what the threads have counted.
    fn collect(&mut self) {
        for thread in 0..self.shared.options.threads {
            std::mem::swap(&mut *self.shared.published(thread), &mut self.empty);
            self.sample.take(&mut self.empty);
        }
    }

    fn look(&mut self, now_ns: u64) {
        let options = self.shared.options;
        if self.measuring_from_ns().is_some_and(|from_ns| from_ns <= now_ns) {
            if self.sample.until_ns >= self.sample_from_ns + ns(self.sample_length) {
                self.end_sample();
            }
            if self.interval.until_ns >= self.interval_from_ns + 1_000_000_000 {
                self.end_interval();
            }
        }
        let counts = |tally: &Tally| match options.load {
            Load::Bulk => tally.counts.measured_bytes,
            Load::Churn => tally.counts.cycles,
            _ => tally.counts.returned,
        };
        if now_ns >= self.looked.0 + 200_000_000 {
            let count = counts(&self.total) + counts(&self.sample);
            self.rate = (count - self.looked.1) as f64 * 1e9 / (now_ns - self.looked.0) as f64;
            self.looked = (now_ns, count);
        }
        let by_time = self
            .measuring_from_ns()
            .zip(options.duration)
            .map(|(from_ns, duration)| now_ns.saturating_sub(from_ns) as f64 / ns(duration) as f64);
        let by_count = options
            .messages
            .map(|messages| (self.total.counts.returned + self.sample.counts.returned) as f64 / messages as f64);
        let fraction = match (by_time, by_count) {
            (Some(time), Some(count)) => Some(time.max(count)),
            (time, count) => time.or(count.filter(|_| self.measuring_from_ns().is_some())),
        };
        let progress = Progress {
            fraction: fraction.map(|fraction| fraction.min(1.0)),
            opened: self.total.counts.opened + self.sample.counts.opened,
            rate: self.rate,
            latency: &self.interval.latency,
            elapsed: self.measuring_from_ns().map_or(Duration::ZERO, |from_ns| {
                // What the threads have told reaches up to here.
                let until_ns = self.total.until_ns.max(self.sample.until_ns);
                let elapsed = Duration::from_nanos(until_ns.saturating_sub(from_ns));
                options.duration.map_or(elapsed, |duration| duration.min(elapsed))
            }),
            tallies: [&self.total, &self.sample],
        };
        if !self.observer.progress(&progress) && !self.shared.stop.swap(true, Ordering::Relaxed) {
            self.stopped_ns = Some(now_ns);
        }
    }

    fn end_sample(&mut self) {
        // The threads tell when it suits them: what they have told reaches up to here.
        let until_ns = self.sample.until_ns.max(self.sample_from_ns);
        let start_ns = self.measuring_from_ns().unwrap_or(self.sample_from_ns);
        let length = Duration::from_nanos(until_ns - self.sample_from_ns);
        let counts = &self.sample.counts;
        if counts.returned > 0 || counts.measured_bytes > 0 || length >= self.sample_length {
            self.samples.push(Sample {
                at: Duration::from_nanos(self.sample_from_ns.saturating_sub(start_ns)),
                length,
                messages: counts.returned,
                bytes: counts.measured_bytes,
                p50_ns: quantile(&self.sample.latency, 0.5),
                p99_ns: quantile(&self.sample.latency, 0.99),
            });
        }
        self.interval.add(&self.sample);
        self.total.take(&mut self.sample);
        self.sample_from_ns = until_ns;
        if self.samples.len() > SAMPLES {
            self.samples = self.samples.chunks(2).map(together).collect();
            self.sample_length *= 2;
        }
    }

    fn end_interval(&mut self) {
        if self.interval.latency.is_empty() || self.interval.until_ns <= self.interval_from_ns {
            return;
        }
        self.observer.interval(&Interval {
            at: Duration::from_nanos(self.interval_from_ns),
            length: Duration::from_nanos(self.interval.until_ns - self.interval_from_ns),
            latency: &self.interval.latency,
            uncorrected: self.interval.uncorrected.as_ref(),
        });
        self.interval_from_ns = self.interval.until_ns;
        self.interval.reset();
    }

    pub(super) fn conclude(self, address: SocketAddr, started_at: SystemTime) -> Result<Outcome, Error> {
        let options = self.shared.options;
        let Tally { counts, latency, uncorrected, connect, troubles, first_due_ns, last_return_ns, last_sent_ns, .. } =
            self.total;
        let only_probed = u64::from(!options.has_handshake() && options.handshake);
        if counts.opened <= only_probed {
            let reason = match troubles.values().find_map(|cases| cases.examples.first()) {
                Some((_, text)) => text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason).to_owned(),
                None if self.stopped_ns.is_some() => ConnectError::Stopped.to_string(),
                None => ConnectError::Refused.to_string(),
            };
            return Err(Error::Connect { target: options.target.to_string(), reason });
        }
        let start_ns = self.shared.start_ns.load(Ordering::Acquire);
        let from_ns = if start_ns == 0 { self.shared.now_ns() } else { start_ns + ns(options.warmup) };
        let elapsed = match (self.stopped_ns, options.duration) {
            (Some(stopped_ns), duration) => {
                let elapsed = Duration::from_nanos(stopped_ns.saturating_sub(from_ns));
                duration.map_or(elapsed, |duration| elapsed.min(duration))
            }
            (None, Some(duration)) if options.messages.is_none() => duration,
            _ => Duration::from_nanos(last_return_ns.saturating_sub(first_due_ns)),
        };
        let requested_rate = match options.load {
            Load::Open { rate, .. } => Some(rate),
            _ => None,
        };
        // A number of messages may be sent long before the last of them comes back, but not sooner than the schedule has it.
        let sending = match (requested_rate, options.messages, self.stopped_ns) {
            (Some(rate), Some(messages), None) => {
                let interval = Duration::from_secs_f64(1.0 / rate);
                let sent = Duration::from_nanos(last_sent_ns.saturating_sub(from_ns)) + interval;
                sent.max(Duration::try_from_secs_f64(messages as f64 / rate).unwrap_or(sent))
            }
            _ => elapsed,
        };
        let sending = options.duration.map_or(sending, |duration| sending.min(duration));
        let cpu = (!self.total.cpu_span.is_zero()).then(|| ClientCpu {
            user: self.total.cpu.user,
            system: self.total.cpu.system,
            span: self.total.cpu_span / options.threads as u32,
        });
        Ok(Outcome {
            address,
            started_at,
            // What counts from the first message on began with that.
            measured_at: started_at + Duration::from_nanos(from_ns.min(first_due_ns)),
            is_interrupted: self.stopped_ns.is_some(),
            elapsed,
            counts,
            latency,
            uncorrected,
            connect,
            troubles: troubles.into_iter().map(|(name, cases)| (name, cases.since(from_ns))).collect(),
            samples: self.samples,
            missing: self.missing,
            requested_rate,
            sending,
            cpu,
        })
    }
}

/// A quantile of some times; none when there are none.
fn quantile(times: &Histogram<u64>, quantile: f64) -> Option<u64> {
    (!times.is_empty()).then(|| times.value_at_quantile(quantile))
}
