//! What holds back the reading of a connection that would otherwise go on: its rate, and the memory that all outboxes together may
//! take. Nothing is dropped: what is not read stays in the kernel, and TCP slows the sender.
//!
//! When the memory limit is reached, a connection that needs none still goes on: one whose peer's kernel has acknowledged all that it was
//! sent. Its send buffer is empty, so a small read finds room there, and nothing stays in its outbox. So peers that do not read, however
//! many there are, cannot stop one that does.
//!
//! Lines and frames that are not whole yet take memory, too. At the limit one connection at a time may make its piece whole, so that memory
//! comes free again; the others wait. If the piece is not whole after the stall time, the connection is closed. Pieces of up to 16 KiB need
//! not wait.

mod rate;

use std::collections::VecDeque;
use std::time::Duration;

use slotmap::SecondaryMap;

use super::config::Limits;
use super::connections::Place;
use super::kernel::Kernel;
use super::run::Server;
use super::statistics::Reason;
use super::tokens::{MEMORY, TRIM};
use super::turn::READ_BUFFER_BYTES;
use crate::event::{Name, Token};
use crate::protocol::{Protocol, SessionId};
use rate::Bucket;

/// The most that is read at once from a connection that needs no memory, while the limit is reached: an empty send buffer has room for it
/// (socket(7), the smallest `SO_SNDBUF`).
const SMALL_READ_BYTES: usize = 4 * 1024;

/// The bytes of an unfinished piece that a connection may always have: enough for the lines and frames of most protocols.
const SMALL_PIECE_BYTES: usize = 16 * 1024;

/// Connections that wait for memory are looked at again after this time: an acknowledgement makes no event.
const MEMORY_RETRY: Duration = Duration::from_millis(10);

/// Connections that are looked at again at a time.
const MEMORY_RETRIES: usize = 64;

/// Less than this in the outboxes is not worth giving back to the system.
const LEAST_PEAK_BYTES: u64 = 4 << 20;

/// Free memory is given back when the outboxes have held little for this long.
const TRIM_AFTER: Duration = Duration::from_secs(1);

/// The gates of a server. Without a limit there are none, and a turn costs one look at that.
#[derive(Debug)]
pub(super) struct Pressure {
    rate: Option<u64>,
    buckets: SecondaryMap<SessionId, Bucket>,
    memory_limit: Option<u64>,
    /// Those who wait for memory, in the order in which they came.
    waiting: VecDeque<Token>,
    /// The connection that may make its piece whole though the limit is reached, and since when, in milliseconds.
    holder: Option<(SessionId, u64)>,
    /// A retry is scheduled for the connections that wait.
    is_retry_set: bool,
    are_there: bool,
    /// The most that the outboxes have held since memory was last given back.
    peak_bytes: u64,
    is_trim_set: bool,
}

impl Pressure {
    pub(super) fn new(limits: &Limits) -> Self {
        let Limits { rate_limit: rate, memory_limit, .. } = *limits;
        let are_there = rate.is_some() || memory_limit.is_some();
        Self {
            rate,
            buckets: SecondaryMap::new(),
            memory_limit,
            waiting: VecDeque::new(),
            holder: None,
            is_retry_set: false,
            are_there,
            peak_bytes: 0,
            is_trim_set: false,
        }
    }

    #[inline]
    pub(super) fn are_there(&self) -> bool {
        self.are_there
    }

    /// Returns whether the outboxes hold far less than they did, after a peak that is worth giving back.
    fn is_past_peak(&self, pending_bytes: u64) -> bool {
        self.peak_bytes >= LEAST_PEAK_BYTES && pending_bytes <= self.peak_bytes / 8
    }

    /// A connection has gone.
    pub(super) fn forget(&mut self, key: SessionId) {
        if self.holder.is_some_and(|(holder, _)| holder == key) {
            self.holder = None;
        }
    }

    /// A connection has come.
    pub(super) fn open(&mut self, key: SessionId, now_ms: u64) {
        if let Some(rate) = self.rate {
            self.buckets.insert(key, Bucket::full(rate, now_ms));
        }
    }
}

impl<P: Protocol, K: Kernel> Server<P, K> {
    /// What a connection may read in this turn of `budget_bytes`, and into how much of the buffer.
    #[cold]
    pub(super) fn read_budget(&mut self, key: SessionId, mut budget_bytes: usize) -> (usize, usize) {
        let now_ms = self.clock.read(&self.kernel);
        let Some(client) = self.connections.get(key) else { return (0, 1) };
        // Who is being closed is no longer answered: what it sends is discarded, and takes neither memory nor time.
        if client.closing.is_some() {
            return (budget_bytes, READ_BUFFER_BYTES);
        }
        if let Some((rate, bucket)) = self.pressure.rate.zip(self.pressure.buckets.get_mut(key)) {
            budget_bytes = budget_bytes.min(bucket.available(rate, client.connection.received_bytes(), now_ms));
        }
        if self.is_memory_full() {
            let held_bytes = client.connection.piece_bytes(&self.protocol);
            // A connection that owes its peer bytes is not read, and cannot make a piece whole.
            let can_read = !client.connection.needs_room();
            let needs_none = can_read && held_bytes < SMALL_PIECE_BYTES && client.connection.is_acknowledged();
            let wants_to_hold = can_read && !needs_none && held_bytes > 0;
            let is_holder = wants_to_hold && self.pressure.holder.get_or_insert((key, now_ms)).0 == key;
            budget_bytes = budget_bytes.min(match (is_holder, needs_none) {
                (true, _) => READ_BUFFER_BYTES,
                (_, true) => SMALL_READ_BYTES,
                _ => 0,
            });
        }
        (budget_bytes, budget_bytes.clamp(1, READ_BUFFER_BYTES))
    }

    /// A connection has more to read. It waits for memory, for its rate, or only for the others.
    #[cold]
    pub(super) fn hold_back(&mut self, key: SessionId) {
        let now_ms = self.clock.last_read_ms();
        let is_memory_full = self.is_memory_full();
        let Some(client) = self.connections.get_mut(key).filter(|client| client.closing.is_none()) else {
            return self.queue_connection(key);
        };
        if is_memory_full && !client.connection.needs_room() {
            client.place = Place::HeldBack;
            self.pressure.waiting.push_back(Token::of_key(key));
            return self.set_memory_retry();
        }
        if let Some((rate, bucket)) = self.pressure.rate.zip(self.pressure.buckets.get_mut(key))
            && bucket.available(rate, client.connection.received_bytes(), now_ms) == 0
        {
            client.place = Place::HeldBack;
            return self.deadlines.set(self.clock.instant(bucket.refilled_at_ms(rate, now_ms)), Token::of_key(key));
        }
        self.queue_connection(key);
    }

    fn is_memory_full(&self) -> bool {
        self.pressure.memory_limit.is_some_and(|limit| self.statistics.pending_bytes >= limit)
    }

    /// The outboxes hold more than before, or less. Connections that wait for memory go on, if there is some.
    pub(super) fn on_memory_changed(&mut self) {
        let pending_bytes = self.statistics.pending_bytes;
        let gates = &mut self.pressure;
        if !gates.waiting.is_empty() && gates.memory_limit.is_some_and(|limit| pending_bytes < limit) {
            self.ready.append(&mut gates.waiting);
        }
        gates.peak_bytes = gates.peak_bytes.max(pending_bytes);
        if gates.is_past_peak(pending_bytes) && !std::mem::replace(&mut gates.is_trim_set, true) {
            self.deadlines.set(self.kernel.now() + TRIM_AFTER, Token::fixed(TRIM));
        }
    }

    fn set_memory_retry(&mut self) {
        if !std::mem::replace(&mut self.pressure.is_retry_set, true) {
            self.deadlines.set(self.kernel.now() + MEMORY_RETRY, Token::fixed(MEMORY));
        }
    }

    /// Looks again at some of the connections that wait for memory: they may need none by now.
    #[cold]
    pub(super) fn retry_for_memory(&mut self) {
        self.pressure.is_retry_set = false;
        self.check_holder();
        let mut retries = 0;
        while retries < MEMORY_RETRIES
            && let Some(token) = self.pressure.waiting.pop_front()
        {
            // Connections that have gone, or are being closed, wait no longer.
            if let Name::Key(key) = token.name()
                && self.connections.get(key).is_some_and(|client| client.place == Place::HeldBack)
            {
                self.ready.push_back(token);
                retries += 1;
            }
        }
        if !self.pressure.waiting.is_empty() {
            self.set_memory_retry();
        }
    }

    /// Lets another connection make its piece whole, if that of the holder is whole. Closes the holder if nothing more comes for the stall
    /// time, or if its piece is not whole after that time while others wait: bytes that trickle in do not keep the place.
    fn check_holder(&mut self) {
        let Some((key, since_ms)) = self.pressure.holder else { return };
        let Some(client) = self.connections.get(key) else { return };
        if client.connection.piece_bytes(&self.protocol) == 0 || client.connection.needs_room() {
            self.pressure.holder = None;
        } else if client.place == Place::Nowhere {
            let known_ms = self.clock.ms(self.horizon.known_until());
            let is_over = |since_ms| Duration::from_millis(known_ms.saturating_sub(since_ms)) > self.timeouts.patience();
            if is_over(client.active_ms) {
                self.close_silent_holders();
            } else if is_over(since_ms) {
                self.remove(key, Reason::Memory);
            }
        }
    }

    /// Closes the connections that keep memory for a piece of which nothing more has come for the stall time. Each of them would keep the
    /// others waiting as long as the first has.
    #[cold]
    fn close_silent_holders(&mut self) {
        let (known_ms, patience) = (self.clock.ms(self.horizon.known_until()), self.timeouts.patience());
        let silent = self.connections.iter().filter(|(_, client)| {
            client.place == Place::Nowhere
                && client.connection.piece_bytes(&self.protocol) > 0
                && Duration::from_millis(known_ms.saturating_sub(client.active_ms)) > patience
        });
        for key in silent.map(|(key, _)| key).collect::<Vec<_>>() {
            self.remove(key, Reason::Memory);
        }
    }

    /// Gives the memory of a peak back to the system: the C library keeps what was freed between two pieces that are still in use.
    #[cold]
    pub(super) fn trim_memory(&mut self) {
        self.pressure.is_trim_set = false;
        if self.pressure.is_past_peak(self.statistics.pending_bytes) {
            self.pressure.peak_bytes = self.statistics.pending_bytes;
            crate::sys::memory::trim();
        }
    }
}
