//! `edgecho flood`: many connections, every byte of which is accounted for.
//!
//! Each thread has connections, an event loop and a descriptor table of its own; none of them waits
//! for another. The thread that calls [`run`] has nothing to do with the traffic: it gives the word to begin, collects what has been
//! counted, and shows how far it has come.

mod conversation;
mod options;
mod outcome;
mod pauses;
pub mod report;
mod schedule;
mod sizes;
mod tally;
mod watch;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;

pub use options::{Load, Options, OptionsError, Verify};
pub use outcome::{ClientCpu, Outcome, Sample};
pub use sizes::Sizes;
pub use tally::{Counts, Example, Trouble};

use super::connect_error::ConnectError;
use super::connector::HANDSHAKE_BYTES;
use super::probe::probe;
use crate::client::dial::check_source;
use crate::sys::limits;
use tally::Tally;
use watch::Watch;
use worker::{Shared, Worker, ns};

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
    /// Measured time when this was counted.
    pub elapsed: Duration,
    tallies: [&'a Tally; 2],
}

impl Progress<'_> {
    /// Returns what has been counted so far. Bytes, but for the measured ones, are counted when a connection is closed.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.tallies.iter().for_each(|tally| counts += &tally.counts);
        counts
    }

    /// Returns all latencies so far, in nanoseconds.
    #[must_use]
    pub fn latency_so_far(&self) -> Histogram<u64> {
        let [first, second] = self.tallies;
        let mut latency = first.latency.clone();
        latency += &second.latency;
        latency
    }
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

/// Floods, until the end that the options name or the observer's word, and gives what came of it. The soft limit on open
/// descriptors is raised to the hard one.
///
/// # Errors
/// [`Error::Options`] for what makes no sense, [`Error::Connect`] when not a single connection could be used, [`Error::System`] for
/// want of anything else.
pub fn run(options: &Options, observer: &mut dyn Observer) -> Result<Outcome, Error> {
    options.check()?;
    check_descriptors(options)?;
    check_sources(options)?;
    let mut tally = Tally::new(options.load.is_open_loop());
    let address = find_address(options, &mut tally, observer)?;
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
fn find_address(options: &Options, tally: &mut Tally, observer: &mut dyn Observer) -> Result<SocketAddr, Error> {
    let addresses = options.target.addresses();
    if addresses.len() == 1 && options.has_handshake() == options.handshake {
        return Ok(addresses[0]);
    }
    let source = options.sources.first().copied();
    let mut random = fastrand::Rng::new();
    let handshake = options.handshake.then_some(options.framing);
    let nothing = Tally::new(false);
    let tallies = [&nothing; 2];
    let progress =
        Progress { fraction: None, opened: 0, rate: 0.0, latency: &nothing.latency, elapsed: Duration::ZERO, tallies };
    let mut is_wanted = || observer.progress(&progress);
    match probe(addresses, source, handshake, options.connect, options.retry, &mut random, &mut is_wanted) {
        Ok((index, connect_time)) => {
            tally.counts.opened += 1;
            tally.counts.handshake_bytes += if options.handshake { HANDSHAKE_BYTES as u64 } else { 0 };
            tally.connect.saturating_record(ns(connect_time));
            Ok(addresses[index])
        }
        Err(error) => Err(Error::Connect { target: options.target.to_string(), reason: error.to_string() }),
    }
}

/// Makes sure that this host has the source addresses that are going to be used.
fn check_sources(options: &Options) -> Result<(), Error> {
    options.sources.iter().take(options.connections).try_for_each(|&source| {
        let error = |error: ConnectError| Error::Connect { target: options.target.to_string(), reason: error.to_string() };
        check_source(source).map_err(error)
    })
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
