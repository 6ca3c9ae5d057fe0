//! The phases of a thread: when it starts, what it counts, and when it ends.

use crate::client::flood::options::{Load, Options};
use crate::client::latency::ns;

/// The phases of a thread. Times are in nanoseconds since the start of the run; `u64::MAX` if not known yet.
#[derive(Debug)]
pub(super) struct Timeline {
    is_started: bool,
    /// Messages may be sent.
    is_on: bool,
    has_ended: bool,
    counting_from_ns: u64,
    end_ns: u64,
    /// The end of the schedule of an open loop. Unlike `end_ns`, it stays when all connections are given up early.
    schedule_end_ns: u64,
    /// In an open loop: when messages that are still due are dropped, and when those in flight are given up.
    send_until_ns: u64,
    give_up_ns: u64,
}

impl Timeline {
    pub(super) fn new(options: &Options) -> Self {
        // With a ramp-up, connections send before the last one is open. An open loop waits for its schedule.
        let is_ramped = !options.ramp_up.is_zero() && !options.load.is_open_loop();
        // A number of messages without a warm-up counts from the first message on.
        let counts_all = options.messages.is_some() && options.warmup.is_zero();
        Self {
            is_started: false,
            is_on: is_ramped,
            has_ended: false,
            counting_from_ns: if counts_all && is_ramped { 0 } else { u64::MAX },
            end_ns: u64::MAX,
            schedule_end_ns: u64::MAX,
            send_until_ns: u64::MAX,
            give_up_ns: u64::MAX,
        }
    }

    pub(super) fn is_started(&self) -> bool {
        self.is_started
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns whether a message that was due at this time counts.
    #[inline]
    pub(super) fn counts(&self, due_ns: u64) -> bool {
        due_ns >= self.counting_from_ns
    }

    /// Returns whether a time is part of the measured time.
    #[inline]
    pub(super) fn is_measured(&self, now_ns: u64) -> bool {
        (self.counting_from_ns..self.end_ns).contains(&now_ns)
    }

    pub(super) fn counting_from_ns(&self) -> u64 {
        self.counting_from_ns
    }

    #[inline]
    pub(super) fn end_ns(&self) -> u64 {
        self.end_ns
    }

    pub(super) fn schedule_end_ns(&self) -> u64 {
        self.schedule_end_ns
    }

    pub(super) fn send_until_ns(&self) -> u64 {
        self.send_until_ns
    }

    pub(super) fn give_up_ns(&self) -> u64 {
        self.give_up_ns
    }

    /// Starts the measured time, of which this thread hears at `now_ns`.
    pub(super) fn start(&mut self, start_ns: u64, now_ns: u64, options: &Options) {
        self.is_started = true;
        let from_ns = start_ns + ns(options.warmup);
        // What was sent before this thread heard of the start does not count.
        let heard_ns = if self.is_on { now_ns } else { start_ns };
        self.counting_from_ns = self.counting_from_ns.min(from_ns.max(heard_ns));
        if let Some(duration) = options.duration {
            self.end_ns = from_ns + ns(duration);
        }
        self.schedule_end_ns = self.end_ns;
        if let Load::Open { rate, .. } = options.load {
            // The first message that counts may be on any connection.
            let last = options.messages.map(|messages| messages.saturating_add(options.connections as u64));
            let all_due_ns = last.map_or(u64::MAX, |last| from_ns.saturating_add((last as f64 * 1e9 / rate) as u64));
            let timeout_ns = ns(options.timeout);
            self.send_until_ns = self.end_ns.min(all_due_ns).saturating_add(timeout_ns);
            self.give_up_ns = self.send_until_ns.saturating_add(timeout_ns);
        }
    }

    /// Allows messages to be sent. Returns whether that is new.
    pub(super) fn turn_on(&mut self) -> bool {
        !std::mem::replace(&mut self.is_on, true)
    }

    /// Moves the end to now, because the observer asks for it.
    pub(super) fn stop(&mut self, now_ns: u64) {
        self.end_ns = self.end_ns.min(now_ns);
        self.schedule_end_ns = self.schedule_end_ns.min(now_ns);
        self.send_until_ns = self.send_until_ns.min(now_ns);
    }

    /// Returns whether the measured time, or the time to send in, is over.
    pub(super) fn is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.end_ns.min(self.send_until_ns)
    }

    /// Returns, once, whether the time to send in is over.
    pub(super) fn take_sending_over(&mut self, now_ns: u64) -> bool {
        let is_over = now_ns >= self.send_until_ns;
        if is_over {
            self.send_until_ns = u64::MAX;
        }
        is_over
    }

    /// Ends the measured time. Messages in flight are still awaited.
    pub(super) fn end(&mut self, now_ns: u64) {
        self.has_ended = true;
        self.end_ns = self.end_ns.min(now_ns);
    }
}
