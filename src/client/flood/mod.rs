//! `edgecho flood`: many connections, every byte of which is accounted for.
//!
//! Each thread has a [`Worker`](worker::Worker) with connections, an event loop and a descriptor table of its own; none of them waits
//! for another. The thread that calls [`run`] has nothing to do with the traffic: it gives the word to begin, collects what has been
//! counted, and shows how far it has come.

mod conversation;
mod options;
pub mod report;
mod schedule;
mod sizes;
mod tally;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;

pub use options::{Load, Options, OptionsError, Verify};
pub use sizes::Sizes;
pub use tally::{Counts, Trouble};

use super::connector::{ConnectError, HANDSHAKE_BYTES};
use super::probe::probe;
use crate::sys::limits;
use tally::Tally;
use worker::{NO_FIN, Shared, Worker, ns};

/// How often it is looked how far the threads have come. It takes time from them if they share a CPU.
const LOOK: Duration = Duration::from_millis(100);

/// How long all threads have to hear when to begin.
const HEAD_START: Duration = Duration::from_millis(10);

/// How many samples are kept; when there are more, neighbours are put together.
const SAMPLES: usize = 600;

/// How many descriptors a thread needs beside those of its connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// Why there was no flood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options make no sense.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No connection could be used.
    #[error("cannot flood {target}: {reason}")]
    Connect {
        /// Whom.
        target: String,
        /// Why.
        reason: String,
    },
    /// The system lacks what the loop is made of.
    #[error("cannot {what}: {error}")]
    System {
        /// What could not be done.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

/// How far a flood has come, for whom it takes too long.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// From 0 to 1; none before the connections are open.
    pub fraction: Option<f64>,
    /// How many connections were opened.
    pub opened: u64,
    /// Messages (of a bulk: bytes; of a churn: connections) a second, lately.
    pub rate: f64,
    /// The latencies, lately, in nanoseconds.
    pub latency: &'a Histogram<u64>,
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

/// Latencies of a part of the measured time, one after the other without a gap.
#[derive(Debug)]
pub struct Interval<'a> {
    /// When it began, counted from the beginning of the run.
    pub at: Duration,
    /// How long it was.
    pub length: Duration,
    /// The latencies.
    pub latency: &'a Histogram<u64>,
    /// In an open loop, those from when a message was sent.
    pub uncorrected: Option<&'a Histogram<u64>>,
}

/// Who watches a flood.
pub trait Observer {
    /// Called about 10 times a second. Gives whether to go on.
    fn progress(&mut self, progress: &Progress<'_>) -> bool;

    /// Called about once a second.
    fn interval(&mut self, interval: &Interval<'_>);
}

/// What a flood came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The address that was flooded.
    pub address: SocketAddr,
    /// When it began.
    pub started_at: SystemTime,
    /// Whether it was ended early.
    pub is_interrupted: bool,
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

/// Floods, until the end that the options name or the observer's word, and gives what came of it. The soft limit on open
/// descriptors is raised to the hard one.
///
/// # Errors
/// [`Error::Options`] for what makes no sense, [`Error::Connect`] when not a single connection could be used, [`Error::System`] for
/// want of anything else.
pub fn run(options: &Options, observer: &mut dyn Observer) -> Result<Outcome, Error> {
    options.check()?;
    check_descriptors(options)?;
    let mut tally = Tally::new(options.load.is_open_loop());
    let address = find_address(options, &mut tally)?;
    let shared = Shared {
        options,
        address,
        epoch: Instant::now(),
        stop: AtomicBool::new(false),
        start_ns: AtomicU64::new(0),
        ready: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
        next_number: AtomicU64::new(0),
        published: (0..options.threads).map(|_| Mutex::new(Tally::new(options.load.is_open_loop()))).collect(),
    };
    let started_at = SystemTime::now();
    let mut watch = Watch::new(&shared, tally, observer);
    let caller = thread::current();
    thread::scope(|scope| {
        let work = |thread| {
            let result = Worker::new(&shared, thread).and_then(Worker::run);
            shared.ended.fetch_add(1, Ordering::Release);
            caller.unpark();
            result
        };
        let workers: Vec<_> = (0..options.threads).map(|thread| scope.spawn(move || work(thread))).collect();
        watch.watch();
        workers.into_iter().try_for_each(|worker| {
            let died = || Err(io::Error::other("a thread has died; this is a defect of edgecho"));
            worker.join().unwrap_or_else(|_| died())
        })
    })
    .map_err(|error| Error::System { what: "run the event loop", error })?;
    watch.conclude(address, started_at)
}

/// Where to connect to. If there is only one place, and each connection finds out what it is by itself, nobody has to be asked.
fn find_address(options: &Options, tally: &mut Tally) -> Result<SocketAddr, Error> {
    let addresses = options.target.addresses();
    if addresses.len() == 1 && options.has_handshake() == options.handshake {
        return Ok(addresses[0]);
    }
    let source = options.sources.first().copied();
    let mut random = fastrand::Rng::new();
    match probe(addresses, source, options.handshake, options.connect, options.retry, &mut random) {
        Ok((index, connect_time)) => {
            tally.counts.opened += 1;
            tally.counts.handshake_bytes += if options.handshake { HANDSHAKE_BYTES as u64 } else { 0 };
            tally.connect.saturating_record(ns(connect_time));
            Ok(addresses[index])
        }
        Err(error) => Err(Error::Connect { target: options.target.to_string(), reason: error.to_string() }),
    }
}

/// Raises the limit on descriptors, and makes sure that the connections of a thread fit.
fn check_descriptors(options: &Options) -> Result<(), Error> {
    let system = |error| Error::System { what: "read the limit on descriptors (getrlimit)", error };
    let limit = limits::descriptors().map_err(system)?;
    // Where it cannot be raised, it is what it is.
    let _ = limits::set_descriptors(limits::Limit { soft: limit.hard, ..limit });
    let limit = limits::descriptors().map_err(system)?.soft;
    let possible = limit.saturating_sub(OTHER_DESCRIPTORS);
    let wanted = options.connections.div_ceil(options.threads) as u64;
    if wanted > possible {
        let threads = (options.connections as u64).div_ceil(possible.max(1));
        return Err(OptionsError(format!(
            "{wanted} connections a thread are more than the {possible} that the limit on open descriptors leaves room for \
             (RLIMIT_NOFILE is {limit}): use --threads {threads}, each of which has a table of its own, or raise it with 'ulimit -Hn'"
        ))
        .into());
    }
    Ok(())
}

/// What is seen of the threads while they work.
struct Watch<'a> {
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
    fn new(shared: &'a Shared<'a>, total: Tally, observer: &'a mut dyn Observer) -> Self {
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

    fn watch(&mut self) {
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
        if now_ns >= self.looked.0 + 500_000_000 {
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
                p50_ns: self.sample.latency.value_at_quantile(0.5),
                p99_ns: self.sample.latency.value_at_quantile(0.99),
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

    fn conclude(self, address: SocketAddr, started_at: SystemTime) -> Result<Outcome, Error> {
        let options = self.shared.options;
        let Tally { counts, latency, uncorrected, connect, troubles, first_due_ns, last_return_ns, .. } = self.total;
        let only_probed = u64::from(!options.has_handshake() && options.handshake);
        if counts.opened <= only_probed && counts.failed > 0 {
            let reason = match troubles.values().find_map(|trouble| trouble.examples.first()) {
                Some(example) => example.split_once(": ").map_or(example.as_str(), |(_, reason)| reason).to_owned(),
                None => ConnectError::Refused.to_string(),
            };
            return Err(Error::Connect { target: options.target.to_string(), reason });
        }
        let start_ns = self.shared.start_ns.load(Ordering::Acquire);
        let from_ns = if start_ns == 0 { self.shared.now_ns() } else { start_ns + ns(options.warmup) };
        let elapsed = match (self.stopped_ns, options.duration) {
            (Some(stopped_ns), _) => Duration::from_nanos(stopped_ns.saturating_sub(from_ns)),
            (None, Some(duration)) if options.messages.is_none() => duration,
            _ => Duration::from_nanos(last_return_ns.saturating_sub(first_due_ns)),
        };
        Ok(Outcome {
            address,
            started_at,
            is_interrupted: self.stopped_ns.is_some(),
            elapsed,
            counts,
            latency,
            uncorrected,
            connect,
            troubles: troubles.into_iter().collect(),
            samples: self.samples,
            missing: self.missing,
        })
    }
}

/// Neighbouring samples as one.
fn together(samples: &[Sample]) -> Sample {
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
