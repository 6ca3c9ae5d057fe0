//! Everything outside of the server: the clock, the sockets, the events of epoll, and the script that decides what happens.

mod wait;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use edgecho::event::Token;
use edgecho::server::Config;

use super::head::Head;
use super::kernel::{MOST_CONNECTIONS, own_address};
use super::moments::At;
use super::plan::{Act, LISTENERS, Plan, Step};
use super::rules::Armed;
use super::socket::{Backlog, Socket};

/// A turn of 64 KiB in reads of 32 KiB, each with a write, and at either end a flush, a FIN, and an empty read; and as much again for a
/// connection that was queued in the turn before.
const MOST_CALLS: usize = 400;

/// Bounds on the bytes read between two waits: for each event 64 KiB and a buffer of 32 KiB, and for all queued connections 512 KiB and a
/// buffer.
pub const MOST_BYTES_AN_EVENT: usize = (64 + 32) * 1024;
pub const MOST_LEFTOVER_BYTES: usize = (512 + 32) * 1024;

/// An event that epoll will report.
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
    /// The number of listeners that another process has opened: the first ones.
    pub inherited: usize,
    /// The inherited listeners that epoll no longer watches.
    pub is_unwatched: [bool; LISTENERS],
    /// Clients in the queue of an inherited listener that was closed: the next process accepts them.
    pub left: Vec<usize>,
    pub accept_errors: VecDeque<i32>,
    ready: VecDeque<Ready>,
    pub gone: Vec<Token>,
    pub stale: bool,
    /// Calls until the process is stopped, and what happens then.
    pub stop: Option<(u32, Vec<Step>)>,
    pub pending_signals: usize,
    pub is_signal_listed: bool,
    /// The time at which the server read the first signal.
    pub drain: Option<At>,
    pub signals: usize,
    /// The number of times that the process was stopped.
    pub stops: u64,
    pub stops_before_drain: u64,
    pub is_over: bool,
    pub timers: BTreeMap<(Option<usize>, u32), Armed>,
    pub is_hoard_full: bool,
    pub pending_bytes: u64,
    /// Sockets with calls since the last wait.
    pub called: Vec<usize>,
    pub told: usize,
    /// The number of wake-ups that only keep a deadline, and the number allowed.
    pub wakes: u64,
    pub credit: u64,
    pub slept: u64,
    /// The number of times that repeating timers of the protocol have come meanwhile.
    pub timer_points: f64,
    pub wakes_this_sleep: u64,
    /// Waits in a row that neither took time nor were followed by anything.
    pub empty_waits: u32,
    pub calls: u64,
    pub last_calls: u64,
    pub last_time: u64,
    /// Since the last wait: calls of all kinds but to read the clock, calls that read it, and timers of the protocol.
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
            inherited: plan.inherited,
            is_unwatched: [false; LISTENERS],
            left: Vec::new(),
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

    /// The server makes a call. The process may be stopped before it.
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
                    return; // refused, or waits for the next process
                }
                let number = self.sockets.len();
                let head = Head::new(number, own_address(number), &self.config);
                self.sockets.push(Socket::new(number, head, capacity, is_prompt, self.at));
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
}

thread_local! {
    /// The world of the schedule that this thread plays.
    pub static CURRENT: Cell<Option<Rc<RefCell<World>>>> = const { Cell::new(None) };
}
