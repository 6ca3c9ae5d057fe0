//! Runs a flood: checks what it needs, starts the threads, and waits for the outcome.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, SystemTime};

use super::error::Error;
use super::observer::{Observer, Progress};
use super::options::{Options, OptionsError};
use super::outcome::Outcome;
use super::shared::Shared;
use super::supervisor::Supervisor;
use super::tally::Tally;
use super::worker::Worker;
use crate::client::connect::{ConnectError, HANDSHAKE_BYTES, Probe, check_source};
use crate::sys::limits;

/// The number of descriptors that a thread needs besides its connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// Floods until the end that the options set, or until the observer stops it. Raises the soft limit on open descriptors to the hard
/// limit.
///
/// # Errors
/// [`Error::Options`] for invalid options, [`Error::Connect`] if no connection could be used, [`Error::System`] if a system call
/// fails that the flood cannot do without.
pub fn run(options: &Options, observer: &mut dyn Observer) -> Result<Outcome, Error> {
    options.check()?;
    check_descriptors(options)?;
    check_sources(options)?;
    let mut tally = Tally::new(options.load.is_open_loop());
    let address = find_address(options, &mut tally, observer)?;
    let shared = Shared::new(options, address);
    let started_at = SystemTime::now();
    let mut supervisor = Supervisor::new(&shared, tally, observer);
    let caller = thread::current();
    thread::scope(|scope| {
        let work = |thread| {
            let result = Worker::new(&shared, thread).and_then(Worker::run);
            shared.note_ended();
            caller.unpark();
            result
        };
        let workers: Vec<_> = (0..options.threads).map(|thread| scope.spawn(move || work(thread))).collect();
        supervisor.supervise();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked; this is a bug in edgecho")))
        })
    })
    .map_err(|error| Error::System { what: "run the event loop", error })?;
    supervisor.conclude(started_at)
}

/// Returns the address to flood. A single address needs no probe if each connection has its own handshake.
fn find_address(options: &Options, tally: &mut Tally, observer: &mut dyn Observer) -> Result<SocketAddr, Error> {
    let addresses = options.target.addresses();
    if addresses.len() == 1 && !options.has_probe() {
        return Ok(addresses[0]);
    }
    let nothing = Tally::new(false);
    let progress = Progress {
        fraction: None,
        opened: 0,
        rate: 0.0,
        latency: nothing.latency(),
        elapsed: Duration::ZERO,
        tallies: [&nothing; 2],
    };
    let probe = Probe {
        source: options.sources.first().copied(),
        handshake: options.handshake.then_some(options.framing),
        send_proxy: options.send_proxy,
        timeouts: options.connect,
        retry: options.retry,
    };
    let found = probe.run(addresses, &mut || observer.progress(&progress)).map_err(|error| no_connection(options, error))?;
    let handshake_bytes = if options.handshake { HANDSHAKE_BYTES as u64 } else { 0 };
    tally.opened(found.connect_time, handshake_bytes, found.header_bytes as u64);
    Ok(found.address)
}

/// Checks that this host has the source addresses that will be used.
fn check_sources(options: &Options) -> Result<(), Error> {
    let mut sources = options.sources.iter().take(options.connections);
    sources.try_for_each(|&source| check_source(source).map_err(|error| no_connection(options, error)))
}

fn no_connection(options: &Options, error: ConnectError) -> Error {
    Error::Connect { target: options.target.to_string(), error }
}

/// Raises the limit on descriptors, and checks that the connections of a thread fit.
fn check_descriptors(options: &Options) -> Result<(), Error> {
    let system = |error| Error::System { what: "read the limit on descriptors (getrlimit)", error };
    let limit = limits::descriptors().map_err(system)?;
    // A failure leaves the limit as it is, and the check below judges that.
    let _ = limits::set_descriptors(limits::Limit { soft: limit.hard, ..limit });
    let limit = limits::descriptors().map_err(system)?.soft;
    let possible = limit.saturating_sub(OTHER_DESCRIPTORS);
    let wanted = options.connections.div_ceil(options.threads) as u64;
    if wanted > possible {
        let threads = (options.connections as u64).div_ceil(possible.max(1));
        let problem = format!(
            "must be at least {threads}: {wanted} connections per thread exceed the {possible} that the limit on open descriptors \
             allows (RLIMIT_NOFILE is {limit}), and each thread has its own table; or raise the limit with 'ulimit -Hn'"
        );
        return Err(OptionsError::new("threads", problem).into());
    }
    Ok(())
}
