//! Supervises the threads of a flood: starts them together, collects what they count, and reports the progress.

use std::thread;
use std::time::{Duration, SystemTime};

use super::error::Error;
use super::observer::{Interval, Observer, Progress};
use super::options::{Load, Options};
use super::outcome::{ClientCpu, Outcome};
use super::samples::Samples;
use super::shared::Shared;
use super::tally::{Tally, Totals};
use crate::client::connect::ConnectError;
use crate::client::latency::ns;

/// The interval at which the counts are collected. Each time takes CPU from the threads if they share one.
const COLLECT_INTERVAL: Duration = Duration::from_millis(100);

/// The time from the announcement of the start to the start, so that all threads hear of it.
const HEAD_START: Duration = Duration::from_millis(10);

/// The shortest time over which the present rate is computed.
const RATE_NS: u64 = 200_000_000;

/// The length of an interval of the observer.
const INTERVAL_NS: u64 = 1_000_000_000;

/// The supervisor, and the counts that it has collected. Times are in nanoseconds since the start of the run.
pub(super) struct Supervisor<'a> {
    shared: &'a Shared<'a>,
    observer: &'a mut dyn Observer,
    /// An empty tally, to exchange for that of a thread.
    empty: Tally,
    /// Counts that are not part of a sample yet.
    sample: Tally,
    samples: Samples,
    /// Samples that the observer has not been given as an interval yet.
    interval: Tally,
    interval_from_ns: u64,
    /// All samples.
    total: Tally,
    rate: RecentRate,
    stopped_ns: Option<u64>,
    missing: u64,
}

impl<'a> Supervisor<'a> {
    /// Returns a supervisor that has counted `total` already.
    pub(super) fn new(shared: &'a Shared<'a>, total: Tally, observer: &'a mut dyn Observer) -> Self {
        let tally = || Tally::new(shared.options().load.is_open_loop());
        Self {
            shared,
            observer,
            empty: tally(),
            sample: tally(),
            samples: Samples::new(shared.options().duration),
            interval: tally(),
            interval_from_ns: 0,
            total,
            rate: RecentRate::default(),
            stopped_ns: None,
            missing: 0,
        }
    }

    /// Supervises the threads until all have ended.
    pub(super) fn supervise(&mut self) {
        while self.shared.ended() < self.shared.options().threads {
            thread::park_timeout(COLLECT_INTERVAL);
            let now_ns = self.shared.now_ns();
            if self.shared.start_ns().is_none() && self.shared.is_ready() {
                self.start(now_ns);
            }
            // A thread that ends before the start could not even begin.
            if self.shared.start_ns().is_none() && self.shared.ended() > 0 {
                self.shared.stop();
            }
            self.collect();
            self.report(now_ns);
        }
        self.collect();
        self.end_sample();
        self.end_interval();
    }

    fn start(&mut self, now_ns: u64) {
        self.collect();
        self.missing = self.sample.counts().failed;
        let start_ns = now_ns + ns(HEAD_START);
        self.shared.start_at(start_ns);
        let from_ns = start_ns + ns(self.shared.options().warmup);
        self.samples.start(from_ns);
        self.interval_from_ns = from_ns;
    }

    /// Takes what the threads have counted.
    fn collect(&mut self) {
        for thread in 0..self.shared.options().threads {
            std::mem::swap(&mut *self.shared.published(thread), &mut self.empty);
            self.sample.take(&mut self.empty);
        }
    }

    /// Ends the sample and the interval that are due, and reports the progress to the observer.
    fn report(&mut self, now_ns: u64) {
        let options = self.shared.options();
        let measuring_from_ns = self.shared.measuring_from_ns();
        if measuring_from_ns.is_some_and(|from_ns| from_ns <= now_ns) {
            if self.samples.is_due(&self.sample) {
                self.end_sample();
            }
            if self.interval.until_ns() >= self.interval_from_ns + INTERVAL_NS {
                self.end_interval();
            }
        }
        let tallies = [&self.total, &self.sample];
        self.rate.update(now_ns, tallies.map(|tally| progress_of(tally, options)).iter().sum());
        let progress = Progress {
            fraction: fraction(options, tallies, measuring_from_ns, now_ns),
            opened: tallies.map(|tally| tally.counts().opened).iter().sum(),
            rate: self.rate.per_second,
            latency: self.interval.latency(),
            elapsed: measuring_from_ns.map_or(Duration::ZERO, |from_ns| {
                // The counts of the threads end here, a little before now.
                let until_ns = self.total.until_ns().max(self.sample.until_ns());
                let elapsed = Duration::from_nanos(until_ns.saturating_sub(from_ns));
                options.duration.map_or(elapsed, |duration| duration.min(elapsed))
            }),
            tallies,
        };
        if !self.observer.progress(&progress) && self.shared.stop() {
            self.stopped_ns = Some(now_ns);
        }
    }

    fn end_sample(&mut self) {
        self.samples.add(&self.sample);
        self.interval.add(&self.sample);
        self.total.take(&mut self.sample);
    }

    fn end_interval(&mut self) {
        let until_ns = self.interval.until_ns();
        if self.interval.latency().is_empty() || until_ns <= self.interval_from_ns {
            return;
        }
        self.observer.interval(&Interval {
            at: Duration::from_nanos(self.interval_from_ns),
            length: Duration::from_nanos(until_ns - self.interval_from_ns),
            latency: self.interval.latency(),
            uncorrected: self.interval.uncorrected(),
        });
        self.interval_from_ns = until_ns;
        self.interval.reset();
    }

    /// Returns the outcome of a run that began at `started_at`.
    pub(super) fn conclude(self, started_at: SystemTime) -> Result<Outcome, Error> {
        let options = self.shared.options();
        let totals = self.total.into_totals();
        if totals.counts.opened <= u64::from(options.has_probe()) {
            let error = totals.connect_error.unwrap_or(match self.stopped_ns {
                Some(_) => ConnectError::Stopped,
                None => ConnectError::Refused,
            });
            return Err(Error::Connect { target: options.target.to_string(), error });
        }
        let from_ns = self.shared.measuring_from_ns().unwrap_or_else(|| self.shared.now_ns());
        let elapsed = elapsed(options, &totals, from_ns, self.stopped_ns);
        let cpu = (!totals.cpu_span.is_zero()).then(|| ClientCpu {
            user: totals.cpu.user,
            system: totals.cpu.system,
            span: totals.cpu_span / options.threads as u32,
        });
        Ok(Outcome {
            address: *self.shared.address(),
            started_at,
            // If everything counts from the first message on, the measured time began with that.
            measured_at: started_at + Duration::from_nanos(from_ns.min(totals.first_due_ns)),
            is_interrupted: self.stopped_ns.is_some(),
            elapsed,
            sending: sending(options, &totals, from_ns, self.stopped_ns, elapsed),
            requested_rate: requested_rate(options),
            counts: totals.counts,
            latency: totals.latency,
            uncorrected: totals.uncorrected,
            connect: totals.connect,
            troubles: totals.troubles.since(from_ns),
            samples: self.samples.into_vec(),
            missing: self.missing,
            cpu,
        })
    }
}

/// The present rate.
#[derive(Debug, Default)]
struct RecentRate {
    at_ns: u64,
    count: u64,
    per_second: f64,
}

impl RecentRate {
    fn update(&mut self, now_ns: u64, count: u64) {
        if now_ns >= self.at_ns + RATE_NS {
            self.per_second = (count - self.count) as f64 * 1e9 / (now_ns - self.at_ns) as f64;
            (self.at_ns, self.count) = (now_ns, count);
        }
    }
}

/// Returns the count that a load makes progress by.
fn progress_of(tally: &Tally, options: &Options) -> u64 {
    match options.load {
        Load::Bulk => tally.counts().measured_bytes,
        Load::Churn => tally.counts().cycles,
        Load::Closed { .. } | Load::Open { .. } => tally.counts().returned,
    }
}

/// Returns the part of the run that is done, by its duration or by its messages.
fn fraction(options: &Options, tallies: [&Tally; 2], measuring_from_ns: Option<u64>, now_ns: u64) -> Option<f64> {
    let from_ns = measuring_from_ns?;
    let by_time = options.duration.map(|duration| now_ns.saturating_sub(from_ns) as f64 / ns(duration) as f64);
    let returned: u64 = tallies.map(|tally| tally.counts().returned).iter().sum();
    let by_count = options.messages.map(|messages| returned as f64 / messages as f64);
    Some(by_time.into_iter().chain(by_count).fold(0.0, f64::max).min(1.0))
}

fn requested_rate(options: &Options) -> Option<f64> {
    match options.load {
        Load::Open { rate, .. } => Some(rate),
        _ => None,
    }
}

/// Returns the length of the measured time.
fn elapsed(options: &Options, totals: &Totals, from_ns: u64, stopped_ns: Option<u64>) -> Duration {
    match (stopped_ns, options.duration) {
        (Some(stopped_ns), duration) => {
            let elapsed = Duration::from_nanos(stopped_ns.saturating_sub(from_ns));
            duration.map_or(elapsed, |duration| elapsed.min(duration))
        }
        (None, Some(duration)) if options.messages.is_none() => duration,
        _ => Duration::from_nanos(totals.last_return_ns.saturating_sub(totals.first_due_ns)),
    }
}

/// Returns the time in which messages were to be sent.
fn sending(options: &Options, totals: &Totals, from_ns: u64, stopped_ns: Option<u64>, elapsed: Duration) -> Duration {
    // A number of messages may be sent long before the last of them comes back, but not sooner than the schedule says.
    let sending = match (requested_rate(options), options.messages, stopped_ns) {
        (Some(rate), Some(messages), None) => {
            let interval = Duration::from_secs_f64(1.0 / rate);
            let sent = Duration::from_nanos(totals.last_sent_ns.saturating_sub(from_ns)) + interval;
            sent.max(Duration::try_from_secs_f64(messages as f64 / rate).unwrap_or(sent))
        }
        _ => elapsed,
    };
    options.duration.map_or(sending, |duration| sending.min(duration))
}
