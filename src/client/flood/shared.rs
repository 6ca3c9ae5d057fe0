//! The state that the threads of a flood and their supervisor share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::options::Options;
use super::tally::Tally;
use crate::client::latency::ns;

/// The shared state. Times are in nanoseconds since the start of the run.
pub(super) struct Shared<'a> {
    options: &'a Options,
    address: SocketAddr,
    epoch: Instant,
    is_stopped: AtomicBool,
    /// 0 until the start is announced.
    start_ns: AtomicU64,
    ready: AtomicUsize,
    ended: AtomicUsize,
    next_number: AtomicU64,
    published: Vec<Mutex<Tally>>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(options: &'a Options, address: SocketAddr) -> Self {
        Self {
            options,
            address,
            epoch: Instant::now(),
            is_stopped: AtomicBool::new(false),
            start_ns: AtomicU64::new(0),
            ready: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            next_number: AtomicU64::new(0),
            published: (0..options.threads).map(|_| Mutex::new(Tally::new(options.load.is_open_loop()))).collect(),
        }
    }

    pub(super) fn options(&self) -> &'a Options {
        self.options
    }

    /// Returns the address to connect to.
    pub(super) fn address(&self) -> &SocketAddr {
        &self.address
    }

    /// Returns the present time.
    #[inline]
    pub(super) fn now_ns(&self) -> u64 {
        ns(self.epoch.elapsed())
    }

    /// Converts an instant to nanoseconds since the start of the run.
    pub(super) fn since_start_ns(&self, at: Instant) -> u64 {
        ns(at - self.epoch)
    }

    /// Converts nanoseconds since the start of the run to an instant.
    pub(super) fn instant(&self, at_ns: u64) -> Instant {
        self.epoch + Duration::from_nanos(at_ns)
    }

    /// Asks all threads to end early. Returns whether this is the first time.
    pub(super) fn stop(&self) -> bool {
        !self.is_stopped.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Announces when all threads start.
    pub(super) fn start_at(&self, start_ns: u64) {
        self.start_ns.store(start_ns, Ordering::Release);
    }

    /// Returns when all threads start, once it is announced.
    pub(super) fn start_ns(&self) -> Option<u64> {
        Some(self.start_ns.load(Ordering::Acquire)).filter(|&start_ns| start_ns != 0)
    }

    /// Returns when the measured time begins, once the start is announced.
    pub(super) fn measuring_from_ns(&self) -> Option<u64> {
        self.start_ns().map(|start_ns| start_ns + ns(self.options.warmup))
    }

    /// Notes that one more thread has opened its connections, or given them up.
    pub(super) fn note_ready(&self) {
        self.ready.fetch_add(1, Ordering::Release);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) == self.options.threads
    }

    /// Notes that one more thread has ended.
    pub(super) fn note_ended(&self) {
        self.ended.fetch_add(1, Ordering::Release);
    }

    /// Returns the number of threads that have ended.
    pub(super) fn ended(&self) -> usize {
        self.ended.load(Ordering::Acquire)
    }

    /// Takes the number of the next connection.
    pub(super) fn take_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the number of the next connection.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number.load(Ordering::Relaxed)
    }

    /// Locks the counts that a thread has published and the supervisor has not taken. After a panic of the thread, they are still
    /// right.
    pub(super) fn published(&self, thread: usize) -> MutexGuard<'_, Tally> {
        self.published[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
