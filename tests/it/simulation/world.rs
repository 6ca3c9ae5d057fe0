//! Everything outside of the server: the clock, the sockets, what epoll has to tell, and the script by which all that happens.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use edgecho::event::{Events, Token, Wait};
use edgecho::protocol::Echo;
use edgecho::server::{Config, Server};
use edgecho::sys::epoll::EpollFlags;

use super::kernel::{MOST_CONNECTIONS, Scripted};
use super::plan::{Act, LISTENERS, MS, Plan, Sleep, Step};
use super::rules::Armed;
use super::socket::{At, Backlog, Socket};

/// A server that has woken up so often in one sleep of the script is stopped for the rest of it: some sleeps are of months.
const MOST_WAKES_A_SLEEP: u64 = 150;

/// A turn of 64 KiB in reads of 32 KiB, each with a write, and at either end a flush, a FIN, and a read that brings nothing;
/// and as much again for a connection that was left over from the turn before.
const MOST_CALLS: usize = 400;

/// What may be read between two waits: at each event 64 KiB and a buffer of 32 KiB, and for those who were left over 512 KiB and a buffer.
pub const MOST_BYTES_AN_EVENT: usize = (64 + 32) * 1024;
pub const MOST_LEFTOVER_BYTES: usize = (512 + 32) * 1024;

/// Something that epoll has to tell of.
#[derive(Debug, Clone, Copy)]
enum Ready {
    Connection(usize),
    Listener(usize),
    Signals,
    /// A connection that has gone.
    Gone(Token),
}

pub struct World {
    pub base: Instant,
    pub at: At,
    /// Batches of events until now.
    pub epoch: u64,
    pub config: Config,
    pub script: VecDeque<Step>,
    pub sockets: Vec<Socket>,
    pub open: Vec<usize>,
    pub backlogs: [Backlog; LISTENERS],
    pub is_listening: [bool; LISTENERS],
    pub is_listener_listed: [bool; LISTENERS],
    pub accept_errors: VecDeque<i32>,
    ready: VecDeque<Ready>,
    pub gone: Vec<Token>,
    pub stale: bool,
    /// Calls until the process is stopped, and what happens then.
    pub stop: Option<(u32, Vec<Step>)>,
    pub pending_signals: usize,
    pub is_signal_listed: bool,
    /// When the server has read the first signal.
    pub drain: Option<At>,
    pub signals: usize,
    /// How often the process was stopped.
    pub stops: u64,
    pub stops_before_drain: u64,
    pub is_over: bool,
    pub timers: BTreeMap<(Option<usize>, u32), Armed>,
    pub is_hoard_full: bool,
    pub pending_bytes: u64,
    /// Sockets with calls since the last wait.
    pub called: Vec<usize>,
    pub told: usize,
    /// How often the server has woken up with nothing to do but to keep a deadline, and how often it may have.
    pub wakes: u64,
    pub credit: u64,
    pub slept: u64,
    /// How often repeating timers of the protocol have come meanwhile.
    pub timer_points: f64,
    pub wakes_this_sleep: u64,
    /// Waits in a row that neither took time nor were followed by anything.
    pub empty_waits: u32,
    pub calls: u64,
    pub last_calls: u64,
    pub last_time: u64,
    /// Since the last wait: calls of all kinds but to read the clock, those that read it, and timers of the protocol.
    pub kernel_calls: u64,
    pub clock_reads: u64,
    pub timers_came: u64,
    /// The real time at which the last wait ended, and the longest that the server took from one to the next.
    turn_began: Instant,
    pub longest_turn: Duration,
    pub trace: Option<Vec<String>>,
}

impl World {
    pub fn new(plan: &Plan, base: Instant) -> Self {
        Self {
            base,
            at: At::default(),
            epoch: 1,
            config: plan.config.clone(),
            script: plan.script.clone().into(),
            sockets: Vec::new(),
            open: Vec::new(),
            backlogs: Default::default(),
            is_listening: [true; LISTENERS],
            is_listener_listed: [false; LISTENERS],
            accept_errors: VecDeque::new(),
            ready: VecDeque::new(),
            gone: Vec::new(),
            stale: false,
            stop: None,
            pending_signals: 0,
            is_signal_listed: false,
            drain: None,
            signals: 0,
            stops: 0,
            stops_before_drain: 0,
            is_over: false,
            timers: BTreeMap::new(),
            is_hoard_full: false,
            pending_bytes: 0,
            called: Vec::new(),
            told: 0,
            wakes: 0,
            credit: 64,
            slept: 0,
            timer_points: 0.0,
            wakes_this_sleep: 0,
            empty_waits: 0,
            calls: 0,
            last_calls: 0,
            last_time: 0,
            kernel_calls: 0,
            clock_reads: 0,
            timers_came: 0,
            turn_began: Instant::now(),
            longest_turn: Duration::ZERO,
            trace: None,
        }
    }

    pub fn socket(&mut self, number: usize) -> &mut Socket {
        &mut self.sockets[number]
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let time = Duration::from_nanos(self.at.time);
            trace.push(format!("{time:>16?} {}", what()));
        }
    }

    /// The server makes a call. The process may be stopped in front of it.
    pub fn call(&mut self) {
        self.kernel_calls += 1;
        self.pause();
    }

    /// The process may be stopped here.
    pub fn pause(&mut self) {
        if let Some((left, _)) = &mut self.stop {
            *left -= 1;
            if *left == 0
                && let Some((_, during)) = self.stop.take()
            {
                self.note(|| "stopped".to_owned());
                self.stops += 1;
                during.into_iter().for_each(|step| self.happen(step));
                self.note(|| "continued".to_owned());
            }
        }
    }

    pub fn call_on(&mut self, number: usize) {
        self.call();
        self.calls += 1;
        let socket = &mut self.sockets[number];
        if socket.calls_this_turn == 0 {
            self.called.push(number);
        }
        assert!(socket.calls_this_turn < MOST_CALLS, "invariant 4: {MOST_CALLS} calls in one turn");
    }

    pub fn list(&mut self, number: usize) {
        let socket = &mut self.sockets[number];
        if socket.watched.is_some() && !std::mem::replace(&mut socket.is_listed, true) {
            self.ready.push_back(Ready::Connection(number));
        }
    }

    fn happen(&mut self, step: Step) {
        self.credit += 8;
        self.note(|| format!("{step:?}"));
        match step {
            Step::Connect { listener, capacity, is_prompt } => {
                if !self.is_listening[listener] || self.sockets.len() >= MOST_CONNECTIONS {
                    return; // refused
                }
                let number = self.sockets.len();
                self.sockets.push(Socket::new(number, capacity, is_prompt, self.at));
                self.backlogs[listener].push_back(number);
                if !std::mem::replace(&mut self.is_listener_listed[listener], true) {
                    self.ready.push_back(Ready::Listener(listener));
                }
            }
            Step::Peer(number, act) => self.act(number, act),
            Step::Everyone(act) => (0..self.sockets.len()).for_each(|number| self.act(number, act)),
            Step::AcceptFails(errno) => self.accept_errors.push_back(errno),
            Step::Stale => self.stale = true,
            Step::Advance(time) => {
                self.at.time += time;
                self.at.stopped += time;
            }
            Step::Stop(calls, during) => self.stop = Some((calls, during)),
            Step::Signal => {
                self.signals += 1;
                self.pending_signals += 1;
                if !std::mem::replace(&mut self.is_signal_listed, true) {
                    self.ready.push_back(Ready::Signals);
                }
            }
            Step::Turn | Step::Sleep(_) => {}
        }
    }

    fn act(&mut self, number: usize, act: Act) {
        let (at, epoch) = (self.at, self.epoch);
        let Some(socket) = self.sockets.get_mut(number).filter(|socket| !socket.is_closed) else { return };
        let is_edge = match act {
            Act::Send(count) => socket.deliver(count, false, at, epoch),
            Act::SendUrgent => socket.deliver(1, true, at, epoch),
            Act::Finish => socket.finish(at, epoch),
            Act::Reset => socket.reset(),
            Act::Acknowledge(count) => socket.acknowledge(count, at, epoch),
            Act::Probe => socket.acknowledge(0, at, epoch),
            Act::Interrupt => {
                socket.is_interrupted = true;
                false
            }
            Act::Spurious => true,
        };
        if is_edge {
            self.list(number);
        }
    }

    /// Returns the next event that epoll has to tell of.
    fn next_event(&mut self) -> Option<(Token, EpollFlags)> {
        while let Some(ready) = self.ready.pop_front() {
            match ready {
                Ready::Connection(number) => {
                    let at = self.at;
                    let socket = &mut self.sockets[number];
                    socket.is_listed = false;
                    let Some((token, interest)) = socket.watched else { continue };
                    let flags = socket.state() & (interest | EpollFlags::ERR | EpollFlags::HUP);
                    if !flags.is_empty() {
                        socket.told(flags, at);
                        self.note(|| format!("told of {number}: {flags:?}"));
                        return Some((token, flags));
                    }
                }
                Ready::Listener(index) => {
                    self.is_listener_listed[index] = false;
                    if self.is_listening[index] && !self.backlogs[index].is_empty() {
                        return Some((Server::<Echo, Scripted>::listener_token(index), EpollFlags::IN));
                    }
                }
                Ready::Signals => {
                    self.is_signal_listed = false;
                    return Some((Server::<Echo, Scripted>::signals_token(), EpollFlags::IN));
                }
                Ready::Gone(token) => return Some((token, EpollFlags::IN | EpollFlags::OUT | EpollFlags::HUP)),
            }
        }
        None
    }

    fn collect(&mut self, events: &mut Events) {
        if std::mem::take(&mut self.stale) && self.ready.len() < 100 {
            // In front, as if this batch had closed them.
            self.gone.iter().rev().take(20).for_each(|&token| self.ready.push_front(Ready::Gone(token)));
        }
        events.fill(std::iter::from_fn(|| self.next_event()));
        self.told = events.len();
        self.credit += 12 * events.len() as u64;
        self.epoch += 1;
        self.note(|| format!("{} events", events.len()));
    }

    fn nanos(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_nanos() as u64
    }

    /// A wait begins: the turn before it is over, and is looked at.
    fn end_turn(&mut self, wait: Wait) {
        self.check_clock_reads();
        self.longest_turn = self.longest_turn.max(self.turn_began.elapsed());
        let mut read_bytes = 0;
        for number in std::mem::take(&mut self.called) {
            let socket = &mut self.sockets[number];
            socket.calls_this_turn = 0;
            read_bytes += std::mem::take(&mut socket.read_this_turn);
        }
        let most = std::mem::take(&mut self.told) * MOST_BYTES_AN_EVENT + MOST_LEFTOVER_BYTES;
        assert!(read_bytes <= most, "invariant 4: {read_bytes} bytes were read in one turn, of {most}");
        let has_moved = self.calls != self.last_calls || self.at.time != self.last_time || !self.ready.is_empty();
        self.empty_waits = if has_moved { 0 } else { self.empty_waits + 1 };
        assert!(self.empty_waits < 8, "invariant 5: the loop spins");
        (self.last_calls, self.last_time) = (self.calls, self.at.time);
        if self.ready.is_empty() && wait != Wait::Poll {
            self.check_sleep(if let Wait::Until(at) = wait { self.nanos(at) } else { u64::MAX });
        }
    }

    /// Lets time pass until `until`, or until the server wakes up by itself. Returns whether it does.
    fn sleep(&mut self, until: u64, wait: Wait) -> bool {
        let start = self.at.time;
        let Wait::Until(at) = wait else {
            self.at.time = start.max(until);
            return false;
        };
        // epoll_wait(2) takes whole milliseconds in 31 bits.
        let wanted = self.nanos(at);
        let wakes_at = start + wanted.saturating_sub(start).div_ceil(MS).min(i32::MAX as u64) * MS;
        if wakes_at > until {
            self.at.time = until;
        } else {
            self.at.time = wakes_at;
            self.at.stopped += wakes_at.saturating_sub(wanted.max(start));
            self.wakes += 1;
            self.wakes_this_sleep += 1;
        }
        let slept = self.at.time - start;
        self.slept += slept;
        self.timer_points +=
            self.timers.values().filter_map(|armed| armed.every).map(|every| slept as f64 / every as f64).sum::<f64>();
        self.check_wakes();
        wakes_at <= until
    }

    /// The script is at its end: all peers acknowledge everything, and have nothing more to say.
    fn wind_down(&mut self) {
        self.note(|| "the end of the script".to_owned());
        self.is_over = true;
        self.stop = None;
        self.accept_errors.clear();
        self.wakes_this_sleep = 0;
        for number in 0..self.sockets.len() {
            self.sockets[number].is_prompt = true;
            self.act(number, Act::Acknowledge(u64::MAX));
            self.act(number, Act::Finish);
        }
    }

    pub fn wait(&mut self, events: &mut Events, wait: Wait) {
        let base = self.base;
        self.note(|| match wait {
            Wait::Until(at) => format!("wait until {:?}", at - base),
            wait => format!("wait: {wait:?}"),
        });
        self.end_turn(wait);
        self.call();
        self.wait_for_events(events, wait);
        self.turn_began = Instant::now();
        self.pause();
    }

    fn wait_for_events(&mut self, events: &mut Events, wait: Wait) {
        let deadline = if let Wait::Until(at) = wait { self.nanos(at) } else { u64::MAX };
        loop {
            while let Some(step) = self.script.pop_front() {
                match step {
                    Step::Turn => break,
                    Step::Sleep(_) if !self.ready.is_empty() || wait == Wait::Poll => {
                        self.script.push_front(step);
                        break;
                    }
                    Step::Sleep(sleep) => {
                        let until = match sleep {
                            Sleep::For(time) => self.at.time + time,
                            Sleep::Until(time) => time,
                            Sleep::ToDeadline(off) if wait != Wait::Forever => deadline.saturating_add_signed(off),
                            Sleep::ToDeadline(off) => self.at.time + off.unsigned_abs(),
                        };
                        if !matches!(sleep, Sleep::Until(_)) {
                            self.wakes_this_sleep = 0;
                        }
                        if self.wakes_this_sleep > MOST_WAKES_A_SLEEP {
                            let rest = until.saturating_sub(self.at.time);
                            self.note(|| format!("stopped for {:?}", Duration::from_nanos(rest)));
                            self.at.time += rest;
                            self.at.stopped += rest;
                            self.stops += 1;
                            self.wakes_this_sleep = 0;
                        } else if until > self.at.time && self.sleep(until, wait) {
                            self.script.push_front(Step::Sleep(Sleep::Until(until)));
                            return self.collect(events);
                        }
                    }
                    step => self.happen(step),
                }
            }
            if self.script.is_empty() && !self.is_over && self.ready.is_empty() {
                self.wind_down();
            }
            if !self.ready.is_empty() || wait == Wait::Poll || deadline <= self.at.time {
                return self.collect(events);
            }
            if !self.script.is_empty() {
                continue;
            }
            // Nothing more will happen by itself. The server may still have something to wait for; otherwise a signal ends it.
            let is_served = self.open.is_empty() && self.backlogs.iter().all(VecDeque::is_empty);
            if wait != Wait::Forever && !(is_served && self.signals == 0) && self.wakes_this_sleep < 2 * MOST_WAKES_A_SLEEP {
                self.sleep(u64::MAX, wait);
                return self.collect(events);
            }
            assert!(is_served || wait != Wait::Forever, "invariant 3: the server waits for what will never come");
            assert!(self.signals < 3, "invariant 5: the server does not end");
            self.wakes_this_sleep = 0;
            self.happen(Step::Signal);
        }
    }
}

thread_local! {
    /// The world of the schedule that this thread plays.
    pub static CURRENT: Cell<Option<Rc<RefCell<World>>>> = const { Cell::new(None) };
}
