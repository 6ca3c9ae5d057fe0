//! Everything that has a time: the timeouts of connections, the signals and the drain.

use std::io::Write;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use slotmap::SecondaryMap;
use tracing::{info, warn};

use super::config::Timeouts;
use super::drain::Due;
use super::error::Error;
use super::kernel::Kernel;
use super::statistics::Reason;
use super::{Client, DRAIN, STATISTICS, STATUS, Server, listener_index};
use crate::event::{Name, Token};
use crate::protocol::{Protocol, SessionId};
use crate::stream::Stream;
use crate::sys::signal::{self, Signal};

/// How long a connection that we close may take to accept what is pending and to send its FIN.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Milliseconds since the server's start, read when somebody needs them.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    last_read_ms: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now(), last_read_ms: 0 }
    }

    /// Looks at the clock.
    pub(super) fn read(&mut self) -> u64 {
        self.last_read_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_read_ms
    }

    /// What it was at the last look.
    #[inline]
    pub(super) fn last_read(&self) -> u64 {
        self.last_read_ms
    }

    /// The moment of a time.
    pub(super) fn instant(&self, at_ms: u64) -> Instant {
        self.start + Duration::from_millis(at_ms)
    }
}

/// The step of the wheel: an eighth of the shortest timeout, so that none is late by more, and at most a second. A second is also
/// the longest step where no timeout asks for less, so that the loop wakes for its timers no more than once a second.
pub(super) fn wheel_step_ms(timeouts: &Timeouts, heartbeat: Option<Duration>) -> u64 {
    let shortest = [timeouts.idle, timeouts.write, timeouts.lifetime, heartbeat].into_iter().flatten().min();
    shortest.map_or(1_000, |shortest| (shortest.as_millis() as u64 / 8).clamp(1, 1_000))
}

/// What becomes of a connection when its timer comes.
enum Verdict {
    /// Its time is up.
    Due(Reason),
    /// It has been quiet for long enough to be sent a heartbeat.
    Heartbeat,
    /// Not yet: there is so much left.
    Later(u64),
    /// Nothing has a time.
    Never,
}

impl Timeouts {
    /// What is due for a connection at `now_ms`, or how long until something is.
    fn verdict<S: Stream, T>(&self, client: &Client<S, T>, heartbeat: Option<(Duration, u32)>, now_ms: u64) -> Verdict {
        let since = |then: u32| u64::from((now_ms as u32).wrapping_sub(then));
        // Both ends of what has passed are whole milliseconds, cut off: a millisecond more, so that nothing is due early.
        let left = |timeout: Duration, passed: u64| (timeout.as_millis() as u64 + 1).saturating_sub(passed);
        let waits: [(Verdict, Option<u64>); 4] = match client.closing {
            Some(reason) => [
                (Verdict::Due(reason), Some(left(LINGER, since(client.stalled_ms)))),
                (Verdict::Never, None),
                (Verdict::Never, None),
                (Verdict::Never, None),
            ],
            None => [
                (
                    Verdict::Due(Reason::WriteStalled),
                    self.write.filter(|_| client.connection.needs_room()).map(|t| left(t, since(client.stalled_ms))),
                ),
                (Verdict::Due(Reason::Idle), self.idle.map(|t| left(t, since(client.active_ms)))),
                (Verdict::Due(Reason::Lifetime), self.lifetime.map(|t| left(t, now_ms - client.since_ms))),
                // Quiet since the last bytes, or since the last heartbeat.
                (Verdict::Heartbeat, heartbeat.map(|(every, last)| left(every, since(last).min(since(client.active_ms))))),
            ],
        };
        match waits.into_iter().filter_map(|(verdict, left)| Some((left?, verdict))).min_by_key(|&(left, _)| left) {
            None => Verdict::Never,
            Some((0, verdict)) => verdict,
            Some((left, _)) => Verdict::Later(left),
        }
    }
}

/// When connections that are quiet were last sent a heartbeat; nothing if none are sent.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    every: Option<Duration>,
    last_ms: SecondaryMap<SessionId, u32>,
}

impl Heartbeats {
    pub(super) fn new(every: Option<Duration>) -> Self {
        Self { every, last_ms: SecondaryMap::new() }
    }

    pub(super) fn are_there(&self) -> bool {
        self.every.is_some()
    }

    /// A connection has come, or was sent one.
    pub(super) fn open(&mut self, id: SessionId, now_ms: u64) {
        if self.are_there() {
            self.last_ms.insert(id, now_ms as u32);
        }
    }

    pub(super) fn forget(&mut self, id: SessionId) {
        if self.are_there() {
            self.last_ms.remove(id);
        }
    }

    fn of(&self, id: SessionId) -> Option<(Duration, u32)> {
        Some((self.every?, *self.last_ms.get(id)?))
    }
}

impl<P: Protocol, K: Kernel> Server<P, K> {
    /// Does what is due.
    pub(super) fn keep_deadlines(&mut self) {
        if let Some(next) = self.wheel.next_ms()
            && next <= self.clock.read()
        {
            while let Some(due) = self.wheel.take_due(self.clock.last_read()) {
                for token in due {
                    if let Name::Key(key) = token.name() {
                        self.on_timer(key);
                    }
                }
            }
        }
        if self.deadlines.next().is_none() {
            return; // and save the look at the clock
        }
        let now = Instant::now();
        while let Some(token) = self.deadlines.take_due(now) {
            match token.name() {
                Name::Fixed(DRAIN) => self.on_drain_deadline(now),
                Name::Fixed(STATISTICS) => self.log_statistics(now),
                Name::Fixed(STATUS) => self.on_status(now),
                Name::Fixed(name) => {
                    let index = listener_index(name);
                    if let Some(listener) = &mut self.listeners[index] {
                        listener.resume();
                        self.queue_listener(index);
                    }
                }
                Name::Key(key) => self.resume_client(key),
            }
        }
    }

    /// Has the wheel come back for a connection when its next timeout is due, unless it does so sooner.
    pub(super) fn set_timer(&mut self, key: SessionId) {
        let now_ms = self.clock.last_read();
        let Some(client) = self.clients.get_mut(key) else { return };
        let Verdict::Later(left) = self.timeouts.verdict(client, self.heartbeats.of(key), now_ms) else { return };
        let is_sooner = |timer: NonZeroU32| i64::from(timer.get().wrapping_sub(now_ms as u32) as i32) <= left as i64;
        if !client.timer_ms.is_some_and(is_sooner) {
            // What is out of the wheel's reach comes sooner, and is then set again.
            let comes_at_ms = self.wheel.set(now_ms + left, Token::of_key(key));
            client.timer_ms = NonZeroU32::new(comes_at_ms as u32).or(NonZeroU32::new(1));
        }
    }

    /// The wheel has come back for a connection.
    fn on_timer(&mut self, key: SessionId) {
        let now_ms = self.clock.last_read();
        let Some(client) = self.clients.get_mut(key) else { return };
        // A sooner timer was set after this one, and has been kept.
        if client.timer_ms.is_none_or(|timer| (timer.get().wrapping_sub(now_ms as u32) as i32) > 0) {
            return;
        }
        client.timer_ms = None;
        match self.timeouts.verdict(client, self.heartbeats.of(key), now_ms) {
            Verdict::Never => {}
            Verdict::Later(_) => self.set_timer(key),
            Verdict::Heartbeat => {
                self.heartbeats.open(key, now_ms);
                self.say_heartbeat(key);
                self.set_timer(key);
            }
            Verdict::Due(reason @ (Reason::Idle | Reason::Lifetime)) if client.closing.is_none() => {
                self.begin_close(key, reason);
                self.set_timer(key);
                self.resume_client(key);
            }
            // It takes nothing, or does not send its FIN: nothing that is owed can reach it.
            Verdict::Due(reason) => {
                let is_stalled = client.connection.needs_room();
                self.forget(key, if is_stalled { Reason::WriteStalled } else { reason });
            }
        }
    }

    /// From here on a connection is being closed, in order, for a reason. It is to be given a turn.
    pub(super) fn begin_close(&mut self, key: SessionId, reason: Reason) {
        let now_ms = self.clock.last_read();
        if let Some(client) = self.clients.get_mut(key) {
            client.connection.close();
            client.closing.get_or_insert(reason);
            // Who waits for its rate or for memory waits no longer: nothing more is read from it but to be discarded.
            client.is_queued = false;
            client.stalled_ms = now_ms as u32;
        }
    }

    pub(super) fn on_signals(&mut self) -> Result<(), Error> {
        while let Some(number) = self.kernel.next_signal().map_err(Error::system("read signals (read)"))? {
            if number == Signal::SIGUSR1 as i32 {
                // Whoever cannot take it does not get it.
                let _ = write!(std::io::stderr(), "{}", self.statistics());
                continue;
            }
            let name = signal::name(number);
            if self.drain.has_begun() {
                warn!(open = self.clients.len(), "{name} again: ending at once");
                self.interrupted_by = Some(number);
            } else {
                self.begin_drain(name);
            }
        }
        Ok(())
    }

    /// Begins the drain: who is in the accept queue is let in, and nobody else.
    pub(super) fn begin_drain(&mut self, why: &str) {
        let Some(deadline) = self.drain.on_signal(Instant::now()) else { return };
        info!(open = self.clients.len(), "{why}: draining; a second signal ends at once");
        self.deadlines.set(deadline, Token::fixed(DRAIN));
        // Those that the kernel has accepted for us are served, too. The last of them closes the listener.
        for index in 0..self.listeners.len() {
            self.queue_listener(index);
        }
    }

    /// Tells everybody how many there are, by a schedule that being late does not shift.
    fn on_status(&mut self, now: Instant) {
        let Some((interval, at)) = &mut self.status else { return };
        while *at <= now {
            *at += *interval;
        }
        self.deadlines.set(*at, Token::fixed(STATUS));
        self.say_status();
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

    /// Whether a drain has come to its end: nobody can come any more, and all have left.
    pub(super) fn is_drained(&mut self) -> bool {
        self.drain.has_begun()
            && self.clients.is_empty()
            && self.listeners.iter().all(Option::is_none)
            && (P::ONLY_ANSWERS || self.drain.is_over() || self.protocol.finish_work())
    }

    fn on_drain_deadline(&mut self, now: Instant) {
        match self.drain.on_deadline(now) {
            Due::CloseAll(until) => {
                info!(open = self.clients.len(), "the drain's time is up: closing those that are left");
                self.listeners.fill_with(|| None);
                self.deadlines.set(until, Token::fixed(DRAIN));
                self.clock.read();
                for key in self.clients.keys().collect::<Vec<_>>() {
                    self.begin_close(key, Reason::Drained);
                    self.queue_client(key);
                }
            }
            Due::CutOff => {
                self.cut_off();
            }
        }
    }

    /// Closes all that are left, as they are. Gives how many have been cut off with bytes pending, now or before.
    pub(super) fn cut_off(&mut self) -> u64 {
        let mut unsent_bytes = 0;
        for key in self.clients.keys().collect::<Vec<_>>() {
            let pending_bytes = self.clients[key].connection.pending_bytes();
            unsent_bytes += pending_bytes;
            self.forget(key, if pending_bytes > 0 { Reason::Aborted } else { Reason::Drained });
        }
        let aborted = self.statistics.closed_for(Reason::Aborted);
        if unsent_bytes > 0 {
            warn!(connections = aborted, unsent_bytes, "cut off before they had taken what they were owed");
        }
        aborted
    }
}
