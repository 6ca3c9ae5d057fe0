//! Everything that has a time: the timeouts of connections, heartbeats, and what the server itself has to do at a moment.

use std::time::{Duration, Instant};

use slotmap::SecondaryMap;
use tracing::info;

use super::timers::next_in_schedule;
use super::{Ms48, PeerProgress};
use crate::event::{Name, Token};
use crate::protocol::{Protocol, SessionId};
use crate::server::config::Timeouts;
use crate::server::connections::{Place, Slot};
use crate::server::drain::LINGER;
use crate::server::kernel::Kernel;
use crate::server::run::Server;
use crate::server::statistics::Reason;
use crate::server::tokens::{DRAIN, MEMORY, STATISTICS, STATUS, TRIM, listener_index};
use crate::stream::Stream;

/// Looks at a peer's progress within one timeout. A peer is closed by this part of the timeout late at the most.
const LOOKS_A_TIMEOUT: u32 = 8;

/// The time without progress after which a peer counts as stalled: a fifth more than the write timeout. A receiver acknowledges in
/// pieces: it opens its window when a whole segment has been read, which over loopback can be 128 KiB. With the default of 30 seconds a
/// peer that reads 4 KB/s takes 31 of them for that.
fn stall_time(write_timeout: Duration) -> Duration {
    write_timeout + write_timeout / 5
}

/// Bytes that a peer may have acknowledged before it is given longer, and the most that count.
const SMALL_HISTORY_BYTES: u64 = 15 << 20;
const LARGEST_HISTORY_BYTES: u64 = 32 << 20;

/// The stall time for a peer that has acknowledged so many bytes. A kernel whose receive buffer is full acknowledges nothing until a
/// sixteenth of the buffer has been read. The buffer of a peer that has read fast grows, to 32 MiB where tcp(7), `tcp_rmem`, allows it: at
/// 32 KiB/s a sixteenth of that takes 64 seconds. It is never larger than what the peer has taken.
fn stall_time_after(write_timeout: Duration, acknowledged_bytes: u64) -> Duration {
    let counted = acknowledged_bytes.clamp(SMALL_HISTORY_BYTES, LARGEST_HISTORY_BYTES);
    stall_time(write_timeout).mul_f64(counted as f64 / SMALL_HISTORY_BYTES as f64)
}

/// The write timeout of what the server itself wants to end, a connection that it closes or a piece that keeps memory, where the option
/// sets none.
const DEFAULT_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The step of the wheel: a sixteenth of the shortest timeout, so that none is late by more, and at most a second. A stalled peer is closed
/// late by two steps and the time between two looks: half as much again as the write timeout is never passed. A second is also
/// the longest step where no timeout asks for less, so that the loop wakes for its timers no more than once a second.
pub(in crate::server) fn wheel_step_ms(timeouts: &Timeouts, heartbeat: Option<Duration>) -> u64 {
    let shortest = [timeouts.idle, timeouts.write, timeouts.lifetime, heartbeat].into_iter().flatten().min();
    shortest.map_or(1_000, |shortest| (shortest.as_millis() as u64 / 16).clamp(1, 1_000))
}

/// The next action that is due for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// A timeout, unless the peer has made progress.
    Close(Reason),
    /// A look at the peer's progress.
    Look,
    /// A heartbeat: it has been quiet for long enough.
    Heartbeat,
}

impl Timeouts {
    /// Returns the time without progress after which the server gives up what it wants to end.
    pub(in crate::server) fn patience(&self) -> Duration {
        stall_time(self.write.unwrap_or(DEFAULT_WRITE_TIMEOUT))
    }

    /// Returns the same for a peer that has acknowledged so many bytes.
    fn patience_after(&self, acknowledged_bytes: u64) -> Duration {
        stall_time_after(self.write.unwrap_or(DEFAULT_WRITE_TIMEOUT), acknowledged_bytes)
    }

    /// Returns what is due for a connection next, and when, in milliseconds. `progress` has the times of the last known progress and of the
    /// last look at it, `heartbeat` that of the last heartbeat.
    fn next_due<S: Stream, T>(
        &self,
        client: &Slot<S, T>,
        progress: Option<(u64, u64)>,
        acknowledged_bytes: u64,
        heartbeat: Option<(Duration, u64)>,
    ) -> Option<(u64, Due)> {
        // Both ends of what has passed are whole milliseconds, rounded down: a millisecond more, so that nothing is due early.
        let after = |since_ms: u64, time: Duration| since_ms.saturating_add(time.as_millis() as u64 + 1);
        if client.closing.is_some() {
            return progress.map(|(_, looked_at_ms)| (after(looked_at_ms, LINGER / LOOKS_A_TIMEOUT), Due::Look));
        }
        let write = self.write.filter(|_| client.connection.needs_room());
        [
            write.zip(progress).map(|(timeout, (since_ms, looked_at_ms))| {
                let closes_at = after(since_ms, stall_time_after(timeout, acknowledged_bytes));
                let looks_at = after(looked_at_ms, timeout / LOOKS_A_TIMEOUT);
                if closes_at <= looks_at { (closes_at, Due::Close(Reason::WriteStalled)) } else { (looks_at, Due::Look) }
            }),
            self.idle.map(|timeout| (after(client.active_ms, timeout), Due::Close(Reason::Idle))),
            self.lifetime.map(|timeout| (after(client.since_ms.get(), timeout), Due::Close(Reason::Lifetime))),
            // Quiet since the last bytes, or since the last heartbeat.
            heartbeat.map(|(every, last_ms)| (after(last_ms.max(client.active_ms), every), Due::Heartbeat)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|&(at_ms, _)| at_ms)
    }
}

/// When connections that are quiet were last sent a heartbeat; nothing if none are sent.
#[derive(Debug, Default)]
pub(in crate::server) struct Heartbeats {
    every: Option<Duration>,
    last_ms: SecondaryMap<SessionId, u64>,
}

impl Heartbeats {
    pub(in crate::server) fn new(every: Option<Duration>) -> Self {
        Self { every, last_ms: SecondaryMap::new() }
    }

    pub(in crate::server) fn are_there(&self) -> bool {
        self.every.is_some()
    }

    /// A connection has come, or was sent one.
    pub(in crate::server) fn open(&mut self, id: SessionId, now_ms: u64) {
        if self.are_there() {
            self.last_ms.insert(id, now_ms);
        }
    }

    pub(in crate::server) fn forget(&mut self, id: SessionId) {
        if self.are_there() {
            self.last_ms.remove(id);
        }
    }

    fn of(&self, id: SessionId) -> Option<(Duration, u64)> {
        Some((self.every?, *self.last_ms.get(id)?))
    }
}

impl<P: Protocol, K: Kernel> Server<P, K> {
    /// Returns the next moment at which something may be due.
    #[inline]
    pub(in crate::server) fn next_deadline(&self) -> Option<Instant> {
        let wheel = self.wheel.next_ms().map(|at_ms| self.clock.instant(at_ms));
        let timers = if P::ONLY_ANSWERS { None } else { self.timers.next() };
        [self.deadlines.next(), wheel, timers].into_iter().flatten().min()
    }

    /// Does what was due at the moment up to which all events have been processed.
    #[cold]
    #[inline(never)]
    pub(in crate::server) fn keep_time(&mut self) {
        let known_until = self.horizon.known_until();
        if self.next_deadline().is_none_or(|at| at > known_until) {
            return;
        }
        self.clock.read(&self.kernel);
        while let Some(due) = self.wheel.take_due(self.clock.ms(known_until)) {
            for token in due {
                if let Name::Key(key) = token.name() {
                    self.check_timeouts(key);
                }
            }
        }
        while let Some(token) = self.deadlines.take_due(known_until) {
            let now = self.clock.last_read();
            match token.name() {
                Name::Fixed(DRAIN) => self.on_drain_deadline(now),
                Name::Fixed(STATISTICS) => self.log_statistics(now),
                Name::Fixed(STATUS) => self.on_status(now),
                Name::Fixed(MEMORY) => self.retry_for_memory(),
                Name::Fixed(TRIM) => self.trim_memory(),
                Name::Fixed(name) => self.queue_listener(listener_index(name)),
                Name::Key(key) => self.resume_now(key),
            }
        }
        if !P::ONLY_ANSWERS {
            self.run_protocol_timers(known_until);
        }
    }

    /// Counts the connections that were served in the turn that ends at `now` as active at its end, if it was long: their clients were not
    /// answered before, however early in the turn the clock was read.
    #[inline]
    pub(in crate::server) fn credit_long_turn(&mut self, now: Instant) {
        if let Some((start_ms, end_ms)) = self.clock.long_turn(now, self.wheel.step_ms()) {
            self.count_active_since(start_ms, end_ms);
        }
    }

    #[cold]
    fn count_active_since(&mut self, start_ms: u64, end_ms: u64) {
        for client in self.connections.values_mut().filter(|client| client.active_ms >= start_ms) {
            client.active_ms = end_ms;
        }
        for last_ms in self.heartbeats.last_ms.values_mut().filter(|last_ms| **last_ms >= start_ms) {
            *last_ms = end_ms;
        }
    }

    /// Sets the timer of a connection to the moment at which something is due for it next, unless it is set to an earlier one.
    pub(in crate::server) fn schedule_check(&mut self, key: SessionId) {
        let Some(client) = self.connections.get_mut(key) else { return };
        let acknowledged_bytes = self.peer_progress.acknowledged_bytes(key);
        let next = self.timeouts.next_due(client, self.peer_progress.of(key), acknowledged_bytes, self.heartbeats.of(key));
        let Some((at_ms, _)) = next else { return };
        // The wheel comes at the end of a step.
        if client.timer_ms > Ms48::new(at_ms.next_multiple_of(self.wheel.step_ms())) {
            // What is out of the wheel's reach comes sooner, and is then set again.
            client.timer_ms = Ms48::new(self.wheel.set(self.clock.last_read_ms(), at_ms, Token::of_key(key)));
        }
    }

    /// The wheel has come back for a connection.
    fn check_timeouts(&mut self, key: SessionId) {
        let known_ms = self.clock.ms(self.horizon.known_until());
        let Some(client) = self.connections.get_mut(key) else { return };
        // A sooner timer was set after this one, and has been kept.
        if client.timer_ms > Ms48::new(known_ms) {
            return;
        }
        client.timer_ms = Ms48::NEVER;
        match self.due_for(key, known_ms) {
            None | Some(Due::Look) => {}
            Some(Due::Heartbeat) => {
                self.heartbeats.open(key, self.clock.last_read_ms());
                self.send_heartbeat(key);
            }
            Some(Due::Close(reason @ (Reason::Idle | Reason::Lifetime))) if self.connections[key].closing.is_none() => {
                self.begin_close(key, reason);
                self.schedule_check(key);
                return self.resume_now(key);
            }
            // Nothing that is owed can reach it. In a drain this is an abort: the exit status says that bytes were lost.
            Some(Due::Close(Reason::WriteStalled)) if !self.drain.has_begun() => {
                return self.remove(key, Reason::WriteStalled);
            }
            Some(Due::Close(reason)) => {
                self.cut(key, reason);
                return;
            }
        }
        self.schedule_check(key);
    }

    /// Returns what is due for a connection at `known_ms`, by what the kernel knows of it.
    fn due_for(&mut self, key: SessionId, known_ms: u64) -> Option<Due> {
        let client = self.connections.get_mut(key)?;
        let due = |client: &_, progress: &PeerProgress, heartbeat| {
            let next: Option<(u64, Due)> =
                self.timeouts.next_due(client, progress.of(key), progress.acknowledged_bytes(key), heartbeat);
            next.filter(|&(at_ms, _)| at_ms <= known_ms).map(|(_, due)| due)
        };
        let first = due(client, &self.peer_progress, self.heartbeats.of(key))?;
        if matches!(first, Due::Heartbeat | Due::Close(Reason::Lifetime)) && client.closing.is_none() {
            return Some(first);
        }
        let acknowledged = client.connection.stream().acknowledged();
        // Read after that: what happened so long ago would otherwise seem to be older by a pause in between.
        let now_ms = self.clock.read(&self.kernel);
        // A connection that the server itself holds back is not idle: its bytes wait for us.
        if client.place != Place::Nowhere || client.connection.has_unread_input() {
            client.active_ms = now_ms;
        }
        let sent_bytes = client.connection.sent_with_fin();
        if let Ok(acknowledged) = acknowledged
            && let Some(last_ms) = self.peer_progress.look(key, acknowledged, sent_bytes, now_ms)
        {
            client.active_ms = client.active_ms.max(last_ms);
        }
        if let Some(reason) = client.closing {
            let (since_ms, _) = self.peer_progress.of(key).unwrap_or_default();
            let passed = Duration::from_millis(known_ms.saturating_sub(since_ms));
            let owes_bytes = client.connection.owes_bytes();
            let acknowledged_bytes = self.peer_progress.acknowledged_bytes(key);
            let patience = if owes_bytes { self.timeouts.patience_after(acknowledged_bytes).max(LINGER) } else { LINGER };
            return Some(if passed > patience { Due::Close(reason) } else { Due::Look });
        }
        due(client, &self.peer_progress, self.heartbeats.of(key))
    }

    /// Begins to close a connection, in order, for a reason. The caller gives it a turn or queues it.
    pub(in crate::server) fn begin_close(&mut self, key: SessionId, reason: Reason) {
        let now_ms = self.clock.last_read_ms();
        if let Some(client) = self.connections.get_mut(key) {
            // Input that came in time and is discarded from now on is lost: the drain has not kept its promise.
            let loses_input = reason == Reason::Drained && client.closing.is_none() && client.connection.has_input_left();
            client.connection.close();
            client.closing.get_or_insert(if loses_input { Reason::Aborted } else { reason });
            // A connection that waits for its rate or for memory waits no longer: its input is only read to be discarded.
            if client.place == Place::HeldBack {
                client.place = Place::Nowhere;
            }
            self.peer_progress.begin(key, client.connection.sent_bytes(), now_ms);
        }
    }

    /// Tells everybody how many there are, by a schedule that being late does not shift.
    fn on_status(&mut self, now: Instant) {
        let Some((interval, at)) = &mut self.status else { return };
        if let Some(next) = next_in_schedule(*at, *interval, now) {
            *at = next;
            self.deadlines.set(next, Token::fixed(STATUS));
        }
        self.send_status();
    }

    fn log_statistics(&mut self, now: Instant) {
        if let Some(interval) = self.stats_interval {
            self.deadlines.set(now + interval, Token::fixed(STATISTICS));
            let statistics = self.statistics();
            info!(
                accepted = statistics.accepted,
                open = statistics.open,
                received_bytes = statistics.received_bytes,
                sent_bytes = statistics.sent_bytes,
                pending_bytes = statistics.pending_bytes,
                turns = statistics.turns,
                events = statistics.events,
                "statistics"
            );
        }
    }
}
