//! Time: the clock, deadlines, timeouts, heartbeats, and the timers of protocols.
//!
//! Nothing here knows a connection but by its key. Each connection keeps its own [`Times`], and passes [`Facts`] about itself; the answer
//! is the next [`Action`] for it.

mod clock;
mod heartbeats;
mod progress;
mod timeouts;
mod timers;

use std::time::{Duration, Instant};

pub(super) use clock::LongTurn;
pub(super) use timeouts::{Action, Facts, Times};

use super::config::{Config, Timeouts};
use super::drain::LINGER;
use super::kernel::Kernel;
use super::statistics::Reason;
use super::tokens::{STATISTICS, STATUS};
use crate::event::{Deadlines, Token, Wait, Wheel};
use crate::protocol::{SessionId, Timer};
use crate::stream::Acknowledged;
use clock::{Clock, Horizon, Ms48};
use heartbeats::Heartbeats;
use progress::PeerProgress;
use timers::Timers;

/// Turns of at most this many events are not timed: the budgets keep them short, and a clock reading is not free.
const SHORT_TURN_EVENTS: usize = 8;

/// The server's time.
#[derive(Debug)]
pub(super) struct Time {
    clock: Clock,
    horizon: Horizon,
    /// Each turn begins with a clock reading, because a timeout needs the time of each connection's last activity.
    reads_clock: bool,
    /// Turns of at least this many events are timed.
    timed_events: usize,
    /// The start of the turn, if it is timed.
    turn_start: Option<Instant>,
    /// The time that queued work has taken since the last turn, if all turns are timed.
    queued_work: Duration,
    /// The deadlines of the server itself, and of connections that wait for their rate.
    deadlines: Deadlines,
    /// The checks of connections.
    wheel: Wheel,
    timeouts: Timeouts,
    progress: PeerProgress,
    heartbeats: Heartbeats,
    timers: Timers,
    stats_interval: Option<Duration>,
    /// The interval of status lines, and the time of the next one.
    status: Option<(Duration, Instant)>,
    busy_poll: Duration,
    /// The end of busy polling.
    busy_until: Option<Instant>,
}

/// The clock, and the turns of the loop.
impl Time {
    pub(super) fn new(kernel: &impl Kernel, config: &Config) -> Self {
        let clock = Clock::start(kernel);
        let now = clock.last_read();
        let mut deadlines = Deadlines::default();
        if let Some(interval) = config.stats_interval {
            deadlines.set(now + interval, Token::fixed(STATISTICS));
        }
        let status = config.status_interval.map(|interval| (interval, now + interval));
        if let Some((_, at)) = status {
            deadlines.set(at, Token::fixed(STATUS));
        }
        Self {
            clock,
            horizon: Horizon::new(now),
            reads_clock: config.timeouts.idle.is_some()
                || config.heartbeat.is_some()
                || config.limits.memory_limit.is_some(),
            timed_events: if config.time_turns { 0 } else { SHORT_TURN_EVENTS + 1 },
            turn_start: None,
            queued_work: Duration::ZERO,
            deadlines,
            wheel: Wheel::new(timeouts::wheel_step_ms(&config.timeouts, config.heartbeat)),
            timeouts: config.timeouts.clone(),
            progress: PeerProgress::default(),
            heartbeats: Heartbeats::new(config.heartbeat),
            timers: Timers::default(),
            stats_interval: config.stats_interval,
            status,
            busy_poll: config.busy_poll,
            busy_until: None,
        }
    }

    /// Reads the clock, and returns the time in milliseconds.
    pub(super) fn read(&mut self, kernel: &impl Kernel) -> u64 {
        self.clock.read(kernel)
    }

    /// Returns the time of the last clock reading, in milliseconds.
    #[inline]
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.last_read_ms()
    }

    /// Returns the time of the last clock reading.
    pub(super) fn now(&self) -> Instant {
        self.clock.last_read()
    }

    /// Returns how long the next wait may take, with `watched` descriptors in the epoll set; and the turn that ends with it, if it was a long
    /// one. With queued work the wait only asks for what is ready.
    #[inline]
    pub(super) fn before_wait(&mut self, kernel: &impl Kernel, watched: usize, has_work: bool) -> (Wait, Option<LongTurn>) {
        let is_scheduled = !(self.wheel.is_empty() && self.deadlines.is_empty() && self.timers.is_empty());
        if is_scheduled || self.busy_until.is_some() {
            self.before_timed_wait(kernel, watched, has_work)
        } else {
            (if has_work { Wait::Poll } else { Wait::Forever }, None)
        }
    }

    #[inline(never)] // most turns are followed by a wait without a deadline
    fn before_timed_wait(&mut self, kernel: &impl Kernel, watched: usize, has_work: bool) -> (Wait, Option<LongTurn>) {
        let mut long_turn = None;
        let deadline = self.next_deadline();
        if deadline.is_some() {
            let now = kernel.now();
            self.horizon.before_wait(now, watched);
            if self.reads_clock {
                long_turn = self.clock.long_turn(now, self.wheel.step_ms());
            }
        }
        if let Some(turn) = long_turn {
            self.heartbeats.credit(turn.start_ms, turn.end_ms);
        }
        let is_busy = has_work || self.busy_until.is_some_and(|until| kernel.now() < until);
        (if is_busy { Wait::Poll } else { Wait::until(deadline) }, long_turn)
    }

    /// Begins a turn of `events` events.
    #[inline]
    pub(super) fn begin_turn(&mut self, kernel: &impl Kernel, events: usize) {
        if self.reads_clock {
            self.clock.begin_turn(kernel);
        }
        self.turn_start = (events >= self.timed_events).then(|| kernel.now());
    }

    /// Ends a turn of `events` events, and returns the time that it took, if it was timed.
    #[inline]
    pub(super) fn end_turn(&mut self, kernel: &impl Kernel, events: usize) -> Option<Duration> {
        if self.turn_start.is_none() && self.busy_poll.is_zero() {
            return None;
        }
        self.end_timed_turn(kernel, events)
    }

    #[inline(never)] // a turn with one message is neither timed nor followed by busy polling
    fn end_timed_turn(&mut self, kernel: &impl Kernel, events: usize) -> Option<Duration> {
        if !self.busy_poll.is_zero() && events > 0 {
            self.busy_until = Some(kernel.now() + self.busy_poll);
        }
        let start = self.turn_start?;
        Some(std::mem::take(&mut self.queued_work) + kernel.now().saturating_duration_since(start))
    }

    /// Begins queued work. Returns the time, if all turns are timed.
    pub(super) fn begin_queued_work(&mut self, kernel: &impl Kernel) -> Option<Instant> {
        (self.timed_events == 0).then(|| kernel.now())
    }

    /// Ends queued work that was begun at `start`. It belongs to the turn that follows.
    pub(super) fn end_queued_work(&mut self, start: Option<Instant>, kernel: &impl Kernel) {
        if let Some(start) = start {
            self.queued_work = kernel.now().saturating_duration_since(start);
        }
    }
}

/// Deadlines. A deadline is judged by the moment up to which all events have been processed, and not by the clock.
impl Time {
    /// Notes that all events of a wait have been processed, `events` of at most `capacity`. Returns whether something may be due now.
    #[inline]
    pub(super) fn after_events(&mut self, events: usize, capacity: usize) -> bool {
        self.horizon.after_turn(events, capacity)
    }

    /// Returns whether something is due.
    pub(super) fn is_due(&self) -> bool {
        self.next_deadline().is_some_and(|at| at <= self.horizon.known_until())
    }

    /// Returns the next moment at which something may be due.
    #[inline]
    fn next_deadline(&self) -> Option<Instant> {
        let wheel = self.wheel.next_ms().map(|at_ms| self.clock.instant(at_ms));
        [self.deadlines.next(), wheel, self.timers.next()].into_iter().flatten().min()
    }

    /// Takes the connections whose checks are due.
    pub(super) fn take_due_checks(&mut self) -> Option<Vec<Token>> {
        self.wheel.take_due(self.known_ms())
    }

    /// Takes the earliest deadline that is due.
    pub(super) fn take_due_deadline(&mut self) -> Option<Token> {
        self.deadlines.take_due(self.horizon.known_until())
    }

    /// Takes the earliest timer of the protocol that is due: its owner and its number.
    pub(super) fn take_due_timer(&mut self) -> Option<(Option<SessionId>, u32)> {
        self.timers.take_due(self.horizon.known_until())
    }

    /// Returns the moment up to which all events have been processed, in milliseconds.
    fn known_ms(&self) -> u64 {
        self.clock.ms(self.horizon.known_until())
    }

    /// Sets a deadline.
    pub(super) fn set_deadline(&mut self, at: Instant, token: Token) {
        self.deadlines.set(at, token);
    }

    /// Sets a deadline at `at_ms`, in milliseconds of the server's clock.
    pub(super) fn set_deadline_ms(&mut self, at_ms: u64, token: Token) {
        self.deadlines.set(self.clock.instant(at_ms), token);
    }

    /// Sets a deadline one to two `step`s after `now`, on a grid of time, so that a token that sets it often has it once.
    pub(super) fn set_deadline_on_grid(&mut self, now: Instant, step: Duration, token: Token) {
        let step_ms = step.as_millis() as u64;
        self.set_deadline_ms((self.clock.ms(now) / step_ms + 2) * step_ms, token);
    }

    /// Takes back a deadline, if it is still set.
    pub(super) fn cancel_deadline(&mut self, at: Instant, token: Token) {
        self.deadlines.cancel(at, token);
    }

    /// Sets a timer of the protocol, from the last clock reading on.
    pub(super) fn set_protocol_timer(&mut self, owner: Option<SessionId>, timer: Timer) {
        self.timers.set(owner, timer, self.clock.last_read());
    }

    /// Takes back a timer of the protocol.
    pub(super) fn cancel_protocol_timer(&mut self, owner: Option<SessionId>, number: u32) {
        self.timers.cancel(owner, number);
    }

    /// Sets the deadline of the next log line with statistics.
    pub(super) fn set_next_statistics(&mut self) {
        if let Some(interval) = self.stats_interval {
            self.deadlines.set(self.clock.last_read() + interval, Token::fixed(STATISTICS));
        }
    }

    /// Sets the deadline of the next status line, by a schedule that being late does not shift.
    pub(super) fn set_next_status(&mut self) {
        let now = self.clock.last_read();
        if let Some((interval, at)) = &mut self.status
            && let Some(next) = timers::next_in_schedule(*at, *interval, now)
        {
            *at = next;
            self.deadlines.set(next, Token::fixed(STATUS));
        }
    }
}

/// The timeouts of connections.
impl Time {
    /// Begins to keep the time of a connection that is opened at `now_ms`. Returns whether it needs a check.
    pub(super) fn begin(&mut self, key: SessionId, now_ms: u64) -> bool {
        self.heartbeats.restart(key, now_ms);
        self.timeouts.idle.is_some() || self.timeouts.lifetime.is_some() || self.heartbeats.is_enabled()
    }

    /// Forgets a connection that is closed.
    pub(super) fn forget(&mut self, key: SessionId) {
        self.timers.forget(key);
        self.heartbeats.forget(key);
        self.progress.forget(key);
    }

    /// Counts the time without progress of a peer whose connection is being closed, from the last clock reading on.
    pub(super) fn begin_close(&mut self, key: SessionId, sent_bytes: u64) {
        self.progress.begin(key, sent_bytes, self.clock.last_read_ms());
    }

    /// Counts the time without progress of a peer while bytes are pending for it, and a write timeout is set. Returns whether the count has
    /// begun, so that the connection needs a check.
    pub(super) fn watch_progress(&mut self, key: SessionId, facts: Facts, sent_bytes: u64) -> bool {
        if self.timeouts.write.is_none() || facts.is_closing || facts.needs_room == self.progress.is_counted(key) {
            return false;
        }
        if facts.needs_room {
            self.progress.begin(key, sent_bytes, self.clock.last_read_ms());
        } else {
            self.progress.forget(key);
        }
        facts.needs_room
    }

    /// Schedules the check of a connection for the moment at which an action is next due for it, unless an earlier check is scheduled.
    pub(super) fn schedule_check(&mut self, key: SessionId, times: &mut Times, facts: Facts) {
        let Some((at_ms, _)) = self.next_action(key, *times, facts) else { return };
        // The wheel comes at the end of a step.
        if times.check_ms > Ms48::new(at_ms.next_multiple_of(self.wheel.step_ms())) {
            // What is out of the wheel's reach comes sooner, and is then scheduled again.
            times.check_ms = Ms48::new(self.wheel.set(self.clock.last_read_ms(), at_ms, Token::of_key(key)));
        }
    }

    /// Takes the check of a connection off the schedule. Returns false for a stale token: an earlier check was scheduled after this one, and
    /// was made.
    pub(super) fn begin_check(&self, times: &mut Times) -> bool {
        if times.check_ms > Ms48::new(self.known_ms()) {
            return false;
        }
        times.check_ms = Ms48::NEVER;
        true
    }

    /// Returns the action that is due for a connection, as far as is known without a look at its peer.
    pub(super) fn due_action(&self, key: SessionId, times: Times, facts: Facts) -> Option<Action> {
        let next = self.next_action(key, times, facts);
        next.filter(|&(at_ms, _)| at_ms <= self.known_ms()).map(|(_, action)| action)
    }

    /// Returns the action for a connection that is being closed, after a look at its peer.
    pub(super) fn closing_action(&self, key: SessionId, reason: Reason, owes_bytes: bool) -> Action {
        let progress = self.progress.of(key).unwrap_or_default();
        let passed = Duration::from_millis(self.known_ms().saturating_sub(progress.since_ms));
        let patience =
            if owes_bytes { self.timeouts.patience_after(progress.acknowledged_bytes).max(LINGER) } else { LINGER };
        if passed > patience { Action::Close(reason) } else { Action::Look }
    }

    /// Notes what a look at a peer has shown, at the last clock reading. Returns the time of the peer's last acknowledgement, if there was one
    /// since the look before.
    pub(super) fn note_look(&mut self, key: SessionId, acknowledged: Acknowledged, sent_bytes: u64) -> Option<u64> {
        self.progress.look(key, acknowledged, sent_bytes, self.clock.last_read_ms())
    }

    /// Notes that a connection is sent a heartbeat.
    pub(super) fn note_heartbeat(&mut self, key: SessionId) {
        self.heartbeats.restart(key, self.clock.last_read_ms());
    }

    /// Returns whether more time than the server's patience has passed since `since_ms`.
    pub(super) fn is_past_patience(&self, since_ms: u64) -> bool {
        Duration::from_millis(self.known_ms().saturating_sub(since_ms)) > self.timeouts.patience()
    }

    fn next_action(&self, key: SessionId, times: Times, facts: Facts) -> Option<(u64, Action)> {
        self.timeouts.next_action(times, facts, self.progress.of(key), self.heartbeats.of(key))
    }
}
