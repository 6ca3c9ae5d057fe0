//! One thread of a flood: its connections on one event loop. This file has the loop; `opening` leads to it, `ending` away from it.

mod ending;
mod opening;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slotmap::SlotMap;

use super::conversation::{Conversation, Message};
use super::pauses::Pauses;
use super::schedule::{Cursor, Schedule};
use super::tally::Tally;
use super::{Load, Options};
use crate::client::Pattern;
use crate::client::backoff::Backoff;
use crate::client::connector::{Connector, Step};
use crate::event::{EventLoop, Events, Name};
use crate::sys::epoll::EpollFlags;
use crate::sys::thread::{self, CpuTime};

/// What one call of recv(2) or send(2) may move. With the server's read buffer of the same size, both stay in the CPU's cache.
const BUFFER_BYTES: usize = 32 * 1024;

const EVENTS_A_TURN: usize = 256;

/// How often a thread tells what it has counted, and looks for what has taken too long.
const HOUSEKEEPING: Duration = Duration::from_millis(50);
/// The same while connections are being opened.
const BRISK_HOUSEKEEPING: Duration = Duration::from_millis(2);

/// The system's timers come up to this late (prctl(2), `PR_SET_TIMERSLACK`, and the way out of the sleep): a moment so close is
/// polled for.
const TIMERS_ARE_LATE: Duration = Duration::from_micros(100);

/// The trouble of a peer that gives everything back after our FIN, and does not send its own.
pub(super) const NO_FIN: &str = "not closed by the peer";

slotmap::new_key_type! {
    struct Key;
}

/// What the threads of a flood and the one that watches them share. Times are nanoseconds since `epoch`.
pub(super) struct Shared<'a> {
    pub(super) options: &'a Options,
    pub(super) address: SocketAddr,
    pub(super) epoch: Instant,
    /// Has everybody end early.
    pub(super) stop: AtomicBool,
    /// When all begin; 0 until that is known.
    pub(super) start_ns: AtomicU64,
    /// How many threads have opened all their connections, or given up those that could not be.
    pub(super) ready: AtomicUsize,
    /// How many have ended.
    pub(super) ended: AtomicUsize,
    /// The number of the next connection.
    pub(super) next_number: AtomicU64,
    /// What each thread has counted since that was last taken.
    pub(super) published: Vec<Mutex<Tally>>,
}

impl Shared<'_> {
    pub(super) fn now_ns(&self) -> u64 {
        ns(self.epoch.elapsed())
    }

    /// What a thread has counted and not yet handed over. A thread that has panicked has still counted right until then.
    pub(super) fn published(&self, thread: usize) -> MutexGuard<'_, Tally> {
        self.published[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How far a connection has come.
enum Link {
    /// Not there, and to be opened when this moment has come.
    Down {
        until_ns: u64,
    },
    Connecting(Box<Connector<OwnedFd>>),
    Talking(Conversation<OwnedFd>),
    /// Its work is done, or it was given up.
    Done,
}

/// The place of one connection, and of those that replace it.
struct Place {
    link: Link,
    key: Key,
    /// The number of the present connection, which its pattern is made of.
    number: u64,
    /// How many messages that count may still be issued.
    quota: u64,
    /// In an open loop: how many messages are due, and how many of them have been issued.
    due: u64,
    issued: u64,
    /// When the present connection was begun.
    dialed_ns: u64,
    backoff: Backoff,
    pauses: Pauses,
    was_open: bool,
    is_queued: bool,
}

pub(super) struct Worker<'a> {
    shared: &'a Shared<'a>,
    options: &'a Options,
    thread: usize,
    event_loop: EventLoop,
    keys: SlotMap<Key, usize>,
    places: Vec<Place>,
    /// Those that have more to do than one turn allowed.
    ready: VecDeque<usize>,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    random: fastrand::Rng,
    tally: Tally,
    cursor: Option<Cursor>,
    schedule: Option<Schedule>,
    /// How many places have been tried for the first time, and how many are on their way now.
    opened: usize,
    connecting: usize,
    is_ready: bool,
    is_started: bool,
    /// Whether messages may be sent.
    is_on: bool,
    has_ended: bool,
    /// Once it has ended: the first place that is not done yet.
    first_open: usize,
    counting_from_ns: u64,
    end_ns: u64,
    /// In an open loop: when messages that are still due are given up, and when those on their way are.
    send_until_ns: u64,
    give_up_ns: u64,
    timeout_ns: u64,
    housekeeping_ns: u64,
    /// When the last one was.
    kept_house_ns: u64,
    /// Everything that had come by then has been read. A deadline that passed later is not judged yet: this thread may have been stopped
    /// for a while, and the answers wait in the kernel.
    judging_ns: u64,
    /// The CPU time of this thread at the start, and when that was.
    cpu_at_start: Option<(CpuTime, u64)>,
    busy_until_ns: u64,
    messages: u64,
}

impl<'a> Worker<'a> {
    /// The connections `thread`, `thread + threads` and so on.
    pub(super) fn new(shared: &'a Shared<'a>, thread: usize) -> io::Result<Self> {
        let options = shared.options;
        // A kernel that denies it costs a little speed, and no more.
        let _ = thread::unshare_descriptors();
        let numbers = (thread..options.connections).step_by(options.threads);
        let places = numbers.map(|connection| Place {
            link: Link::Down { until_ns: 0 },
            key: Key::default(),
            number: 0,
            quota: options.quota(connection),
            due: 0,
            issued: 0,
            dialed_ns: 0,
            backoff: Backoff::default(),
            pauses: Pauses::default(),
            was_open: false,
            is_queued: false,
        });
        let places: Vec<Place> = places.collect();
        let is_ramped = !options.ramp_up.is_zero() && !options.load.is_open_loop();
        // Who has a number of messages to send, and none to warm up with, counts from the first on.
        let counts_all = options.messages.is_some() && options.warmup.is_zero();
        let mut scratch = vec![0; BUFFER_BYTES];
        Pattern::new(options.seed, u64::MAX - thread as u64).fill(0, &mut scratch); // what a stream that nobody looks at is made of
        Ok(Self {
            shared,
            options,
            thread,
            event_loop: EventLoop::new()?,
            keys: SlotMap::with_capacity_and_key(places.len()),
            places,
            ready: VecDeque::new(),
            buffer: vec![0; BUFFER_BYTES],
            scratch,
            random: fastrand::Rng::with_seed(options.seed ^ (thread as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            tally: Tally::new(options.load.is_open_loop()),
            cursor: None,
            schedule: None,
            opened: 0,
            connecting: 0,
            is_ready: false,
            is_started: false,
            is_on: is_ramped,
            has_ended: false,
            first_open: 0,
            counting_from_ns: if counts_all && is_ramped { 0 } else { u64::MAX },
            end_ns: u64::MAX,
            send_until_ns: u64::MAX,
            give_up_ns: u64::MAX,
            timeout_ns: ns(options.timeout),
            housekeeping_ns: 0,
            kept_house_ns: 0,
            judging_ns: 0,
            cpu_at_start: None,
            busy_until_ns: 0,
            messages: 0,
        })
    }

    /// Does its part of the flood.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_A_TURN);
        loop {
            let now_ns = self.shared.now_ns();
            if now_ns >= self.housekeeping_ns {
                self.keep_house(now_ns);
            }
            if self.has_ended && self.pass_closed() {
                break;
            }
            if self.opened < self.places.len() {
                self.open_more(now_ns);
            }
            self.issue_due(now_ns);
            self.serve_ready();
            self.event_loop.wait_exactly(&mut events, self.wait(now_ns))?;
            for (token, flags) in events.iter() {
                if let Name::Key(key) = token.name::<Key>()
                    && let Some(&index) = self.keys.get(key)
                {
                    self.on_event(index, flags);
                }
            }
            if events.len() < EVENTS_A_TURN {
                self.judging_ns = now_ns;
            }
            if self.has_ended {
                self.settle(&events);
            }
            if !self.options.busy_poll.is_zero() && !events.is_empty() {
                self.busy_until_ns = self.shared.now_ns() + ns(self.options.busy_poll);
            }
        }
        self.drop_backlog();
        self.tally.until_ns = self.shared.now_ns();
        self.shared.published(self.thread).take(&mut self.tally);
        Ok(())
    }

    /// How long the next wait may take.
    fn wait(&self, now_ns: u64) -> Duration {
        if !self.ready.is_empty() || now_ns < self.busy_until_ns {
            return Duration::ZERO;
        }
        let mut until_ns = self.housekeeping_ns;
        if let Some(cursor) = &self.cursor {
            let due_ns = cursor.next_ns();
            if due_ns < self.end_ns {
                if due_ns < now_ns + ns(TIMERS_ARE_LATE) {
                    return Duration::ZERO;
                }
                until_ns = until_ns.min(due_ns - ns(TIMERS_ARE_LATE));
            }
        }
        Duration::from_nanos(until_ns.saturating_sub(now_ns))
    }

    /// Looks after what does not come as an event: the beginning and the end, what has taken too long, and the figures.
    fn keep_house(&mut self, now_ns: u64) {
        if !self.is_started {
            self.start_if_told(now_ns);
        }
        if self.shared.stop.load(Ordering::Relaxed) {
            self.end_ns = self.end_ns.min(now_ns);
            self.send_until_ns = self.send_until_ns.min(now_ns);
            self.opened = self.places.len(); // those that were not tried yet are Down, and no longer to be opened
        }
        for index in 0..self.places.len() {
            self.look_after(index, now_ns);
        }
        // What was due before the end is due still, even if this thread comes late.
        self.issue_due(now_ns);
        let is_time_up = now_ns >= self.end_ns.min(self.send_until_ns);
        if now_ns >= self.send_until_ns {
            self.send_until_ns = u64::MAX;
            self.drop_backlog();
        }
        if !self.has_ended {
            let is_finished = |place: &Place| match &place.link {
                Link::Done => true,
                Link::Talking(conversation) => place.quota == 0 && conversation.in_flight() == 0,
                _ => false,
            };
            let is_all_sent = self.is_on && self.opened == self.places.len() && self.places.iter().all(is_finished);
            if is_time_up || (self.is_started && is_all_sent) {
                self.end(now_ns);
            }
        }
        {
            // Exchanged, not added up: that takes no time. What nobody has fetched yet stays, and this is handed over later.
            let mut published = self.shared.published(self.thread);
            if published.is_empty() {
                if !self.has_ended {
                    self.tally.counts.sent_in_time = self.tally.counts.sent;
                }
                self.tally.until_ns = now_ns;
                std::mem::swap(&mut *published, &mut self.tally);
            }
        }
        self.kept_house_ns = now_ns;
        self.housekeeping_ns = if self.has_ended {
            self.next_deadline_ns()
        } else {
            let interval = if self.is_started { HOUSEKEEPING } else { BRISK_HOUSEKEEPING };
            let start_ns = self.shared.start_ns.load(Ordering::Acquire);
            let next_ns = if now_ns < start_ns { start_ns } else { self.end_ns.min(self.send_until_ns) };
            next_ns.min(now_ns + ns(interval))
        };
    }

    fn start_if_told(&mut self, now_ns: u64) {
        let is_settled = |place: &Place| matches!(place.link, Link::Talking(_) | Link::Done);
        if !self.is_ready && self.opened == self.places.len() && self.places.iter().all(is_settled) {
            self.is_ready = true;
            self.shared.ready.fetch_add(1, Ordering::Release);
        }
        let start_ns = self.shared.start_ns.load(Ordering::Acquire);
        if start_ns == 0 || now_ns < start_ns {
            return;
        }
        self.is_started = true;
        let from_ns = start_ns + ns(self.options.warmup);
        // What was sent before this thread heard of the start does not count.
        let heard_ns = if self.is_on { now_ns } else { start_ns };
        self.counting_from_ns = self.counting_from_ns.min(from_ns.max(heard_ns));
        self.cpu_at_start = thread::cpu_time().ok().map(|time| (time, now_ns));
        if let Some(duration) = self.options.duration {
            self.end_ns = from_ns + ns(duration);
        }
        if let Load::Open { rate, .. } = self.options.load {
            // The first message that counts may be on any connection.
            let last = self.options.messages.map(|messages| messages.saturating_add(self.options.connections as u64));
            let all_due_ns = last.map_or(u64::MAX, |last| from_ns.saturating_add((last as f64 * 1e9 / rate) as u64));
            self.send_until_ns = self.end_ns.min(all_due_ns).saturating_add(self.timeout_ns);
            self.give_up_ns = self.send_until_ns.saturating_add(self.timeout_ns);
            let schedule = Schedule::new(start_ns, rate, self.options.connections as u64);
            self.schedule = Some(schedule);
            let (first, step) = (self.thread as u64, self.options.threads as u64);
            self.cursor = Some(Cursor::new(schedule, first, step, self.places.len()));
        }
        if !self.is_on {
            self.is_on = true;
            for index in 0..self.places.len() {
                self.begin(index, now_ns);
            }
        }
    }

    #[inline]
    fn on_event(&mut self, index: usize, flags: EpollFlags) {
        match &mut self.places[index].link {
            Link::Talking(conversation) => {
                conversation.on_event(flags);
                self.advance(index);
            }
            Link::Connecting(connector) => match connector.on_event(flags, Instant::now()) {
                Step::Waiting => {}
                Step::Connected => self.on_connected(index),
                Step::Failed(error) => self.on_connect_error(index, &error),
            },
            Link::Down { .. } | Link::Done => {}
        }
    }

    /// Issues as many messages as may be on their way.
    #[inline]
    fn issue(&mut self, index: usize, now_ns: u64) {
        let place = &mut self.places[index];
        let Link::Talking(conversation) = &mut place.link else { return };
        if conversation.is_closing() || conversation.is_gathering() {
            return;
        }
        let depth = match self.options.load {
            Load::Closed { pipeline } | Load::Open { pipeline, .. } => pipeline,
            Load::Churn => 1,
            Load::Bulk => return,
        };
        while conversation.in_flight() < depth {
            let due_ns = match &self.schedule {
                Some(_) if place.issued >= place.due => break,
                Some(schedule) => {
                    let connection = (self.thread + index * self.options.threads) as u64;
                    let due_ns = schedule.due_ns(connection, place.issued);
                    let shifted_ns = place.pauses.shift(due_ns);
                    // What was due in the warm-up does not count, however late it is sent.
                    if shifted_ns != due_ns && due_ns >= self.counting_from_ns && place.quota > 0 {
                        self.tally.counts.paused_messages += 1;
                        shifted_ns
                    } else {
                        due_ns
                    }
                }
                None if now_ns >= self.end_ns => break,
                None if self.options.load == Load::Churn => place.dialed_ns,
                None => now_ns,
            };
            if due_ns >= self.counting_from_ns {
                if place.quota == 0 {
                    break;
                }
                place.quota -= 1;
                self.tally.counts.sent += 1;
                self.tally.last_sent_ns = now_ns;
            }
            let size = self.options.sizes.get(self.messages, &mut self.random);
            self.messages += 1;
            place.issued += 1;
            conversation.issue(size + self.options.framing.overhead() as u32, due_ns, now_ns);
        }
    }

    /// In an open loop, issues what has become due.
    #[inline]
    fn issue_due(&mut self, now_ns: u64) {
        let last_ns = now_ns.min(self.end_ns.saturating_sub(1));
        while let Some(index) = self.cursor.as_mut().and_then(|cursor| cursor.take_due(last_ns)) {
            self.places[index].due += 1;
            self.issue(index, now_ns);
            self.advance(index);
        }
    }

    /// Goes on with those whose last turn was not enough, each once.
    fn serve_ready(&mut self) {
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { break };
            self.places[index].is_queued = false;
            self.advance(index);
            if self.has_ended {
                self.finish(index, self.shared.now_ns());
            }
        }
    }

    /// Reads once, takes what has come back, and writes once.
    #[inline]
    fn advance(&mut self, index: usize) {
        let place = &mut self.places[index];
        let Link::Talking(conversation) = &mut place.link else { return };
        let received = conversation.receive(&mut self.buffer, self.options.verify, || self.shared.now_ns());
        let mut is_done = false;
        if !matches!(received, Ok(0)) {
            let now_ns = self.shared.now_ns();
            if let Ok(count) = received
                && (self.counting_from_ns..self.end_ns).contains(&now_ns)
            {
                self.tally.counts.measured_bytes += count as u64;
            }
            while let Some(message) = conversation.take_returned() {
                if self.options.load != Load::Bulk {
                    record(&mut self.tally, &message, now_ns, self.counting_from_ns, self.end_ns, self.timeout_ns);
                }
                is_done = self.options.load == Load::Churn;
            }
            if is_done && self.options.half_close && !self.has_ended {
                conversation.close();
                is_done = false;
            } else if !is_done && received.is_ok() {
                self.issue(index, now_ns);
            }
        }
        let place = &mut self.places[index];
        let Link::Talking(conversation) = &mut place.link else { return };
        match received.and_then(|_| conversation.send(&mut self.scratch, self.options.verify)) {
            Ok(()) if is_done => self.renew(index),
            Ok(()) => {
                if conversation.has_more() && !place.is_queued {
                    place.is_queued = true;
                    self.ready.push_back(index);
                }
            }
            Err(end) => self.on_end(index, end),
        }
    }
}

/// Counts a message that has come back.
#[inline]
fn record(tally: &mut Tally, message: &Message, now_ns: u64, counting_from_ns: u64, end_ns: u64, timeout_ns: u64) {
    if message.due_ns < counting_from_ns {
        return;
    }
    tally.counts.returned += 1;
    tally.counts.returned_in_time += u64::from(now_ns < end_ns);
    tally.first_due_ns = tally.first_due_ns.min(message.due_ns);
    tally.last_return_ns = now_ns;
    let latency_ns = now_ns.saturating_sub(message.due_ns);
    tally.latency.saturating_record(latency_ns);
    if let Some(uncorrected) = &mut tally.uncorrected {
        uncorrected.saturating_record(now_ns.saturating_sub(message.sent_ns));
    }
    if latency_ns > timeout_ns {
        tally.counts.late += 1;
        tally
            .trouble("late", 1, now_ns, || format!("a message came back {:.3} s after it was due", latency_ns as f64 / 1e9));
    }
}
