//! The loop of a thread: open, issue what is due, resume queued connections, wait, dispatch the events.

use std::io;
use std::time::Duration;

use super::context::Context;
use super::slot::{Key, Next};
use super::slots::Slots;
use super::timer::Timer;
use crate::client::flood::schedule::Cursor;
use crate::client::flood::shared::Shared;
use crate::client::latency::ns;
use crate::event::{EventLoop, Events, Name};
use crate::sys::thread::{self, CpuTime};

const EVENTS_PER_TURN: usize = 256;

/// The maximum number of connections in progress, well under the backlog of any server.
const CONNECTING_AT_ONCE: usize = 256;

/// The time by which the system's timers may be late (prctl(2), `PR_SET_TIMERSLACK`, and the wake-up). A deadline this close is
/// polled for.
const TIMER_SLACK: Duration = Duration::from_micros(100);

/// A thread of a flood. Times are in nanoseconds since the start of the run.
pub(in crate::client::flood) struct Worker<'a> {
    pub(super) context: Context<'a>,
    pub(super) slots: Slots,
    pub(super) thread: usize,
    event_loop: EventLoop,
    /// The connections with a message due, once an open loop has started.
    pub(super) cursor: Option<Cursor>,
    /// The number of slots whose first connection has been tried.
    pub(super) opened: usize,
    pub(super) timer: Timer,
    /// All connections are open, or given up.
    pub(super) is_ready: bool,
    /// The CPU time of this thread at the start, and the time of the start.
    pub(super) cpu_at_start: Option<(CpuTime, u64)>,
    /// All events up to this time have been handled. A later deadline is not judged yet: the thread may have been stopped for a while,
    /// and the echoes wait in the kernel.
    pub(super) judging_ns: u64,
    busy_until_ns: u64,
}

impl<'a> Worker<'a> {
    /// Returns a thread with the connections `thread`, `thread + threads` and so on.
    pub(in crate::client::flood) fn new(shared: &'a Shared<'a>, thread: usize) -> io::Result<Self> {
        // Without its own table the thread is a little slower, and no more.
        let _ = thread::unshare_descriptors();
        Ok(Self {
            context: Context::new(shared, thread),
            slots: Slots::new(shared.options(), thread),
            thread,
            event_loop: EventLoop::new()?,
            cursor: None,
            opened: 0,
            timer: Timer::default(),
            is_ready: false,
            cpu_at_start: None,
            judging_ns: 0,
            busy_until_ns: 0,
        })
    }

    /// Runs until all connections have ended.
    pub(in crate::client::flood) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            let now_ns = self.context.now_ns();
            if self.timer.is_due(now_ns) {
                self.keep_house(now_ns);
            }
            if self.context.timeline.has_ended() && self.slots.pass_done() {
                break;
            }
            if self.opened < self.slots.len() {
                self.open_more(now_ns);
            }
            self.issue_due(now_ns);
            self.resume_queued();
            self.event_loop.wait_exactly(&mut events, self.wait_time(now_ns))?;
            self.dispatch(&events);
            if events.len() < EVENTS_PER_TURN {
                self.judging_ns = now_ns;
            }
            let busy_poll = self.context.options.busy_poll;
            if !busy_poll.is_zero() && !events.is_empty() {
                self.busy_until_ns = self.context.now_ns() + ns(busy_poll);
            }
        }
        self.conclude();
        Ok(())
    }

    /// Opens connections that have not been tried, as fast as the ramp-up allows.
    fn open_more(&mut self, now_ns: u64) {
        let ramp_ns = ns(self.context.options.ramp_up);
        while self.opened < self.slots.len() && self.context.connecting < CONNECTING_AT_ONCE {
            let due_ns = ramp_ns as f64 * self.opened as f64 / self.slots.len() as f64;
            if now_ns < due_ns as u64 {
                break;
            }
            self.opened += 1;
            self.open(self.opened - 1);
        }
    }

    fn open(&mut self, index: usize) {
        let key = self.slots.renew_key(index);
        let next = self.slots.get(index).open(key, &self.event_loop, &mut self.context);
        self.follow(index, next);
    }

    /// Does what a slot needs next.
    #[inline]
    pub(super) fn follow(&mut self, index: usize, next: Next) {
        match next {
            Next::Wait => {}
            Next::Queue => self.slots.queue(index),
            Next::Open => self.open(index),
        }
    }

    /// In an open loop: issues the messages that have become due.
    #[inline]
    pub(super) fn issue_due(&mut self, now_ns: u64) {
        let last_ns = now_ns.min(self.context.timeline.end_ns().saturating_sub(1));
        while let Some(index) = self.cursor.as_mut().and_then(|cursor| cursor.take_due(last_ns)) {
            let next = self.slots.get(index).on_due(now_ns, &mut self.context);
            self.follow(index, next);
        }
    }

    /// Resumes the queued slots, each once.
    fn resume_queued(&mut self) {
        for _ in 0..self.slots.queued() {
            let Some(index) = self.slots.take_queued() else { break };
            let next = self.slots.get(index).advance(&mut self.context);
            self.follow(index, next);
            if self.context.timeline.has_ended() {
                self.finish(index);
            }
        }
    }

    /// Handles the events. After the end, connections that an event has brought to their end are closed.
    #[inline]
    fn dispatch(&mut self, events: &Events) {
        for (token, flags) in events.iter() {
            if let Name::Key(key) = token.name::<Key>()
                && let Some(index) = self.slots.find(key)
            {
                let next = self.slots.get(index).on_event(flags, &mut self.context);
                self.follow(index, next);
                if self.context.timeline.has_ended() {
                    self.finish(index);
                }
            }
        }
        if self.context.timeline.has_ended() && !events.is_empty() {
            self.timer.expect_soon();
        }
    }

    pub(super) fn finish(&mut self, index: usize) {
        let now_ns = self.context.now_ns();
        let next = self.slots.get(index).finish(now_ns, &mut self.context);
        self.follow(index, next);
    }

    /// Returns how long the next wait may take.
    fn wait_time(&self, now_ns: u64) -> Duration {
        if self.slots.queued() > 0 || now_ns < self.busy_until_ns {
            return Duration::ZERO;
        }
        let mut until_ns = self.timer.due_ns();
        if let Some(cursor) = &self.cursor {
            let due_ns = cursor.next_ns();
            if due_ns < self.context.timeline.end_ns() {
                if due_ns < now_ns + ns(TIMER_SLACK) {
                    return Duration::ZERO;
                }
                until_ns = until_ns.min(due_ns - ns(TIMER_SLACK));
            }
        }
        Duration::from_nanos(until_ns.saturating_sub(now_ns))
    }
}
