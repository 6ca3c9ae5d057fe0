//! The rules, which do not depend on the server's code: when a connection may be closed and by when it must be, when a timer may come
//! and by when it must, and how often the loop may wake up.
//!
//! The rules allow for what the server cannot know: bytes that arrive after its last wait, and the time for which the process is stopped.

use std::net::SocketAddr;
use std::time::Duration;

use edgecho::protocol::Timer;
use edgecho::server::Reason;

use super::kernel::own_address;
use super::moments::At;
use super::plan::MS;
use super::socket::Socket;
use super::world::World;

/// The time that a closing connection may make no progress.
pub(super) const LINGER: u64 = 2_000 * MS;

/// Rounding: of both ends of a time and of the wait, to milliseconds.
const ROUNDING: u64 = 4 * MS;

/// The longest time for which a connection waits for its rate: until a twentieth of a second's worth is there, after it has taken a tenth too
/// much. It counts as held back meanwhile, even if there is nothing to be read.
const RATE_PAUSE: u64 = 160 * MS;

/// A time beyond any clock.
const FOR_EVER: Duration = Duration::from_secs(200 * 365 * 24 * 60 * 60);

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A timer of the protocol.
#[derive(Debug)]
pub struct Armed {
    /// The earliest time at which it comes next; none if that is too far away for any clock.
    due: Option<u64>,
    pub every: Option<u64>,
    set: At,
}

impl Armed {
    pub fn new(timer: &Timer, at: At) -> Self {
        Self {
            due: (timer.after < FOR_EVER).then(|| at.time + nanos(timer.after)),
            every: timer.every.map(|every| nanos(every.max(Duration::from_millis(1)))),
            set: at,
        }
    }
}

impl World {
    /// The step of the wheel: a sixteenth of the shortest timeout, and at most a second.
    fn step(&self) -> u64 {
        let timeouts = &self.config.timeouts;
        let shortest = [timeouts.idle, timeouts.write, timeouts.lifetime, self.config.heartbeat].into_iter().flatten().min();
        shortest.map_or(1_000 * MS, |shortest| (nanos(shortest) / 16).clamp(MS, 1_000 * MS))
    }

    /// The time that has passed since `then`, as far as the server could use it.
    pub(super) fn late(&self, then: At, time: u64) -> u64 {
        then.time.saturating_add(time).saturating_add(self.at.stopped - then.stopped).saturating_add(ROUNDING)
    }

    /// Returns whether the drain may have begun: a signal has come, and the drain delay is over. After a pause the server may delay it again.
    pub fn may_drain(&self) -> bool {
        let delay = nanos(self.config.timeouts.drain_delay);
        self.signals > 1 || self.drain.is_some_and(|signal| self.at.time - signal.time >= delay)
    }

    /// The server goes to sleep until `until`: nothing is left undone, and nothing that is due before then will come too late.
    pub fn check_sleep(&self, until: u64) {
        for &number in &self.open {
            if self.sockets[number].is_open {
                self.check_undone(number, until);
                self.check_deadlines(number, until);
            } else {
                self.check_waiting(number, until);
            }
        }
        for (index, backlog) in self.backlogs.iter().enumerate() {
            let has_place = self.config.limits.max_connections.is_none_or(|most| self.open.len() < most);
            assert!(
                backlog.is_empty() || !has_place || until <= self.at.time + 1_000 * MS,
                "invariant 3: clients wait to be accepted by listener {index}, and there is a place"
            );
        }
        for (&(owner, number), armed) in &self.timers {
            let is_told = owner.is_none_or(|number| {
                let socket = &self.sockets[number];
                socket.our_fin.is_none() && !socket.is_finished && !socket.is_pending && !socket.has_asked_to_close
            });
            let latest = armed.due.map(|due| due + (self.at.stopped - armed.set.stopped) + ROUNDING);
            assert!(!is_told || latest.is_none_or(|latest| until <= latest), "timer {number} of {owner:?} comes too late");
        }
        if let Some(drain) = self.drain {
            // A pause counts neither for the delay nor against the peers: they are given their time once more, but no third time.
            let timeouts = &self.config.timeouts;
            let delay = nanos(timeouts.drain_delay);
            let again = if self.stops > self.stops_before_drain { delay + LINGER } else { 0 };
            let latest = self.late(drain, delay + nanos(timeouts.drain) + LINGER + again);
            assert!(until <= latest, "the drain takes too long: {until} instead of {latest}");
        }
    }

    /// Nothing was left undone for a connection of which the server knows everything.
    fn check_undone(&self, number: usize, until: u64) {
        let socket = &self.sockets[number];
        assert!(!socket.is_reset, "{number} was reset, and is still open");
        let waits_for_rate = self.config.limits.rate_limit.is_some() && until <= self.at.time + RATE_PAUSE;
        if socket.is_pending {
            let is_stuck = socket.is_writable() && !waits_for_rate;
            assert!(!is_stuck, "invariant 3: there is room for {number}, and something is pending");
            return;
        }
        if socket.unread() == 0 && !socket.is_finished {
            return;
        }
        let is_open = socket.our_fin.is_none();
        // Notices that were not offered yet may be pending, too.
        let is_retried = until <= self.at.time + 11 * MS;
        let waits_for_memory =
            self.config.limits.memory_limit.is_some_and(|limit| self.pending_bytes >= limit || is_retried);
        let is_held_back = is_open && (waits_for_rate || waits_for_memory || self.is_hoard_full);
        assert!(is_held_back, "invariant 3: {number} has {} unread bytes, and the server sleeps", socket.unread());
    }

    /// The time that a connection that is being closed may make no progress. As long as its peer is owed bytes the write timeout holds, or
    /// 30 seconds if there is none.
    fn patience(&self, socket: &Socket) -> u64 {
        let owes_bytes = socket.is_pending || socket.acked < socket.sent;
        let write = self.config.timeouts.write.map_or(30_000 * MS, nanos);
        if owes_bytes { LINGER.max(write * 6 / 5) } else { LINGER }
    }

    /// The server wakes up before the latest moment of each timeout.
    fn check_deadlines(&self, number: usize, until: u64) {
        let socket = &self.sockets[number];
        let step = self.step();
        let timeouts = &self.config.timeouts;
        let at_least = |what: &str, latest: u64| {
            let [until_, latest_] = [until, latest].map(Duration::from_nanos);
            assert!(
                until <= latest,
                "{what} of {number} comes too late: it is kept at {until_:?}, the latest is {latest_:?}"
            );
        };
        if let Some(fin) = socket.our_fin {
            let since = if fin.time > socket.acknowledgements.at().time { fin } else { socket.acknowledgements.at() };
            if !self.may_drain() {
                at_least("the end of lingering", self.late(since, self.patience(socket) * 5 / 4 + 2 * step));
            }
            return;
        }
        if self.may_drain() && socket.is_pending {
            return; // the drain has its own time
        }
        // A connection that the server has begun to close, with bytes that are pending, has as long as its peer makes progress.
        let may_be_closing = timeouts.idle.is_some() || timeouts.lifetime.is_some() || socket.has_asked_to_close;
        let closes = if socket.is_pending && may_be_closing { self.patience(socket) * 3 / 2 + 2 * step } else { 0 };
        let acknowledged = socket.acknowledgements.at();
        if let Some(write) = timeouts.write.filter(|_| socket.is_pending) {
            let latest = [acknowledged, socket.pending_since, socket.touched].into_iter().max_by_key(|at| at.time);
            at_least("the write timeout", self.late(latest.unwrap_or_default(), nanos(write) * 3 / 2 + closes));
        }
        let latest =
            [acknowledged, socket.deliveries.at(), socket.touched, socket.begun].into_iter().max_by_key(|at| at.time);
        let latest = latest.unwrap_or_default();
        // A segment that acknowledges nothing new may be taken for one that does, once; and so may one of 49.7 days ago, for Linux counts in
        // 32 bits how long ago it was.
        let is_misleading = socket.has_probes || self.at.time - socket.segment.time >= MS << 32;
        // After a pause all get the time once more that were heard of, or asked about, in the turn in which it was.
        let is_after_pause = self.at.stopped - latest.stopped > step;
        let again = |time: u64| if is_misleading || is_after_pause { time } else { 0 };
        let limits = &self.config.limits;
        let is_held_back = self.is_hoard_full || limits.memory_limit.is_some_and(|limit| self.pending_bytes >= limit);
        let has_limits = limits.rate_limit.is_some() || limits.memory_limit.is_some();
        let is_heard = socket.is_pending || (socket.unread() == 0 && !socket.is_finished);
        if let Some(idle) = timeouts.idle.map(nanos).filter(|_| is_heard && !is_held_back) {
            let pause = if has_limits { RATE_PAUSE } else { 0 };
            let quiet = self.late(latest, idle + idle / 4 + 2 * step + pause + again(idle));
            at_least("the idle timeout", quiet.max(self.late(acknowledged, 0)) + closes);
        }
        let is_served = !is_held_back && !has_limits && !socket.is_pending && !socket.has_asked_to_close;
        if let Some(every) = self.config.heartbeat.map(nanos).filter(|_| is_served) {
            at_least("a heartbeat", self.late(latest, every + 2 * step + again(every)));
        }
        if let Some(lifetime) = timeouts.lifetime {
            let latest = self.late(socket.begun, nanos(lifetime) + 2 * step);
            at_least("the end of life", latest.max(self.late(acknowledged, 0)) + closes);
        }
    }

    /// A timer has come: not early, and no more often than its schedule says.
    pub fn timer_came(&mut self, owner: Option<usize>, number: u32) {
        self.credit += 8;
        self.timers_came += 1;
        let now = self.at.time;
        let Some(armed) = self.timers.get_mut(&(owner, number)) else { panic!("timer {number} of {owner:?} is not set") };
        let due = armed.due.expect("a timer came that no clock reaches");
        assert!(now >= due, "timer {number} of {owner:?} comes early");
        match armed.every {
            None => drop(self.timers.remove(&(owner, number))),
            Some(every) => {
                // At least one of the schedule has passed for each that came. Those that were missed are left out.
                armed.due = (every < nanos(FOR_EVER)).then(|| due + every);
            }
        }
    }

    /// The server asks for acknowledgements: it may be about to close the connection as idle.
    pub fn check_look(&mut self, number: usize) {
        let may_be_idle = self.is_idle(number, true);
        self.sockets[number].may_be_idle |= may_be_idle;
    }

    /// Our FIN goes out.
    pub fn check_fin(&mut self, number: usize) {
        let may_be_idle = self.is_idle(number, false);
        let epoch = self.epoch;
        let socket = &mut self.sockets[number];
        match &socket.look {
            // The server decided at that look, and could not know of what has come since.
            Some(look) if look.epoch == epoch && !look.is_pending => {}
            // The server decided earlier: pending bytes had to go out first.
            Some(look) if look.is_pending && socket.may_be_idle => {}
            _ => socket.may_be_idle = may_be_idle,
        }
    }

    /// Returns whether a connection may be closed as idle: neither a byte nor an acknowledgement has come for the timeout, and the server was not
    /// holding it back.
    fn is_idle(&self, number: usize, is_look: bool) -> bool {
        let Some(idle) = self.config.timeouts.idle else { return false };
        let socket = &self.sockets[number];
        let acknowledged = if is_look { socket.acknowledgements.at() } else { socket.acknowledgements.known(self.epoch) };
        let latest = [acknowledged, socket.deliveries.known(self.epoch), socket.opened, socket.last_read];
        let latest = latest.into_iter().map(|at| at.time).max().unwrap_or_default();
        // The server does not hold back input that it leaves unread because the peer does not read its pending bytes.
        self.at.time - latest >= nanos(idle).saturating_sub(self.turn())
            && (socket.is_pending || socket.known_unread(self.epoch) == 0)
    }

    /// A turn that takes no longer than a step of the wheel counts as a moment: its beginning. Without a pause turns take no time.
    fn turn(&self) -> u64 {
        if self.stops > 0 { self.step() } else { 0 }
    }

    pub fn check_heartbeat(&mut self, number: usize, bytes: &[u8]) {
        if bytes != b"HEARTBEAT\n" {
            return;
        }
        let every = self.config.heartbeat.map(nanos).expect("a heartbeat, though none is configured");
        let turn = self.turn();
        let (at, epoch) = (self.at, self.epoch);
        let socket = &mut self.sockets[number];
        if socket.is_pending {
            return; // it is offered once more
        }
        let latest = [socket.deliveries.known(epoch), socket.opened].into_iter().map(|at| at.time).max().unwrap_or_default();
        let every = every.saturating_sub(turn);
        assert!(at.time - latest >= every, "a heartbeat for {number} comes early");
        let last = socket.last_heartbeat;
        let is_repeated = at.time - last.time < every && at.stopped == last.stopped;
        assert!(!is_repeated || last.time == 0, "the next heartbeat for {number} comes early");
        socket.last_heartbeat = at;
    }

    /// The server has closed a connection, for a reason.
    pub fn closed(&mut self, number: usize, peer: SocketAddr, reason: Reason) {
        self.note(|| format!("{number} closed: {reason:?}"));
        let socket = &self.sockets[number];
        if !socket.is_open {
            return self.closed_waiting(number, reason);
        }
        let source = socket.head.source.filter(|_| socket.head.is_whole());
        assert_eq!(peer, source.unwrap_or(own_address(number)), "the address of {number}");
        let (at, epoch) = (self.at, self.epoch);
        let is_interrupted = self.signals > 1;
        let timeouts = &self.config.timeouts;
        let socket = &self.sockets[number];
        let acknowledged = match &socket.look {
            Some(look) if look.epoch == epoch => look.acknowledged,
            _ => socket.acknowledgements.known(epoch),
        };
        let quiet = |since: [At; 2]| at.time - since.into_iter().map(|at| at.time).max().unwrap_or_default();
        let drained = |time: u64| {
            self.drain
                .is_some_and(|since| at.time - since.time >= nanos(timeouts.drain_delay) + nanos(timeouts.drain) + time)
        };
        match reason {
            Reason::Peer => {
                assert!(socket.is_finished && socket.unread() == 0, "{number} had not finished");
                assert!(!socket.is_pending && socket.echoed == socket.read, "invariant 1: {number} did not get everything");
            }
            Reason::Reset => assert!(socket.is_reset, "{number} was not reset"),
            Reason::Idle => assert!(socket.may_be_idle, "{number} was closed as idle, and was not"),
            Reason::WriteStalled => {
                let write = timeouts.write.map(nanos).expect("no write timeout is set");
                assert!(socket.is_pending, "nothing was pending for {number}");
                let quiet = quiet([acknowledged, socket.pending_since]);
                assert!(quiet >= write, "{number} was closed as stalled after {:?}", Duration::from_nanos(quiet));
            }
            Reason::Lifetime => {
                let lifetime = timeouts.lifetime.map(nanos).expect("no lifetime is set");
                let age = socket.our_fin.unwrap_or(at).time - socket.opened.time;
                assert!(age >= lifetime, "{number} was closed for its age of {:?}", Duration::from_nanos(age));
            }
            Reason::Protocol => assert!(socket.has_asked_to_close, "{number} was not to be closed"),
            Reason::Drained => assert!(is_interrupted || drained(0), "{number} was closed before the drain was over"),
            Reason::Aborted => {
                let stalled = quiet([acknowledged, socket.our_fin.unwrap_or_default()]) >= self.patience(socket);
                let lost_input = drained(0) && socket.delivered > socket.echoed;
                // In a drain, a peer that the write timeout cuts off has lost bytes.
                let write = timeouts.write.map(nanos).filter(|_| self.may_drain() && socket.is_pending);
                let write_stalled = write.is_some_and(|write| quiet([acknowledged, socket.pending_since]) >= write);
                let may_be_cut_off = is_interrupted || drained(LINGER) || stalled || lost_input || write_stalled;
                assert!(may_be_cut_off, "{number} was cut off");
            }
            reason => panic!("{number} was closed by a limit that is not set: {reason}"),
        }
        // Closing in order means that nothing is destroyed.
        if matches!(reason, Reason::Idle | Reason::Lifetime | Reason::Protocol | Reason::Drained)
            && !socket.is_finished
            && !socket.is_reset
        {
            let stalled = quiet([acknowledged, socket.our_fin.unwrap_or_default()]) >= LINGER;
            assert!(is_interrupted || drained(LINGER) || stalled, "{number} was closed before its peer could finish");
            let lost = socket.known_unread(epoch) + if socket.is_pending { socket.pending_bytes } else { 0 };
            assert_eq!(lost, 0, "{number} lost bytes, and does not count as aborted");
        }
        self.sockets[number].is_closed = true;
    }

    /// Wake-ups that bring no event: no more than the deadlines ask for. Each takes two waits, for what happened before the first.
    pub fn check_wakes(&self) {
        let mut most = self.credit + 4 * (self.slept / self.step() + 1);
        let limits = &self.config.limits;
        if limits.rate_limit.is_some() {
            most += 2 * (self.slept / (40 * MS)) * self.sockets.len() as u64;
        }
        if limits.memory_limit.is_some() {
            most += 2 * self.slept / (10 * MS);
        }
        most += 2 * self.timer_points as u64;
        for interval in [self.config.status_interval, self.config.stats_interval].into_iter().flatten() {
            most += 2 * self.slept / nanos(interval);
        }
        assert!(self.wakes <= most, "invariant 5: woke up {} times, of {most}", self.wakes);
    }

    /// A turn is over: the clock was read a few times, and a few times for each call, timer and connection.
    pub fn check_clock_reads(&mut self) {
        let calls = std::mem::take(&mut self.kernel_calls);
        let most = 16 + 4 * calls + 8 * std::mem::take(&mut self.timers_came) + 4 * self.sockets.len() as u64;
        let reads = std::mem::take(&mut self.clock_reads);
        assert!(reads <= most, "invariant 4: the clock was read {reads} times in one turn, of {most}");
    }

    /// The run is over.
    pub fn check_end(&self) {
        assert!(self.open.is_empty(), "a connection was left open");
        let is_in = |(number, socket): (usize, &Socket)| socket.is_closed || self.signals > 1 || self.left.contains(&number);
        assert!(self.sockets.iter().enumerate().all(is_in), "a client was never accepted");
    }
}
