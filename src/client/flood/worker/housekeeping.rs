//! The housekeeping of a thread: the start, the end, deadlines, and the report of its counts.

use std::time::Duration;

use super::run::Worker;
use super::slot::Slot;
use super::timer;
use crate::client::flood::options::Load;
use crate::client::flood::schedule::{Cursor, Schedule};
use crate::client::latency::ns;
use crate::sys::thread;

/// The interval of housekeeping until the thread has started.
const INTERVAL_BEFORE_START: Duration = Duration::from_millis(2);

impl Worker<'_> {
    /// Does everything that no event reports.
    pub(super) fn keep_house(&mut self, now_ns: u64) {
        if !self.context.timeline.is_started() {
            self.start_if_announced(now_ns);
        }
        if self.context.shared.is_stopped() {
            self.context.timeline.stop(now_ns);
            self.opened = self.slots.len(); // the other slots stay down
        }
        for index in 0..self.slots.len() {
            let next = self.slots.get(index).look_after(now_ns, self.judging_ns, &mut self.context);
            self.follow(index, next);
        }
        // Messages that were due before the end are still issued, even if this thread comes late.
        self.issue_due(now_ns);
        let is_over = self.context.timeline.is_over(now_ns);
        if self.context.timeline.take_sending_over(now_ns) {
            self.drop_backlog();
        }
        if !self.context.timeline.has_ended() {
            let is_all_sent =
                self.context.timeline.is_on() && self.opened == self.slots.len() && self.slots.iter().all(Slot::is_finished);
            if is_over || (self.context.timeline.is_started() && is_all_sent) {
                self.end(now_ns);
            }
        }
        self.publish(now_ns);
        self.timer.done(now_ns, self.next_housekeeping_ns(now_ns));
    }

    /// Returns when housekeeping is due next: often while the connections open, and only at deadlines after the end.
    fn next_housekeeping_ns(&self, now_ns: u64) -> u64 {
        let timeline = &self.context.timeline;
        if timeline.has_ended() {
            let deadlines = self.slots.open_slots().iter().map(|slot| slot.deadline_ns(&self.context));
            return deadlines.fold(timeline.send_until_ns(), u64::min);
        }
        let interval = if timeline.is_started() { timer::INTERVAL } else { INTERVAL_BEFORE_START };
        let next_ns = match self.context.shared.start_ns() {
            Some(start_ns) if now_ns < start_ns => start_ns,
            _ => timeline.end_ns().min(timeline.send_until_ns()),
        };
        next_ns.min(now_ns + ns(interval))
    }

    fn start_if_announced(&mut self, now_ns: u64) {
        let is_settled = self.opened == self.slots.len() && self.slots.iter().all(Slot::is_settled);
        if is_settled && !std::mem::replace(&mut self.is_ready, true) {
            self.context.shared.note_ready();
        }
        let Some(start_ns) = self.context.shared.start_ns().filter(|&start_ns| start_ns <= now_ns) else { return };
        let options = self.context.options;
        self.context.timeline.start(start_ns, now_ns, options);
        self.cpu_at_start = thread::cpu_time().ok().map(|time| (time, now_ns));
        if let Load::Open { rate, .. } = options.load {
            let schedule = Schedule::new(start_ns, rate, options.connections as u64);
            self.context.schedule = Some(schedule);
            self.cursor = Some(Cursor::new(schedule, self.thread as u64, options.threads as u64, self.slots.len()));
        }
        if self.context.timeline.turn_on() {
            for index in 0..self.slots.len() {
                let next = self.slots.get(index).begin(now_ns, &mut self.context);
                self.follow(index, next);
            }
        }
    }

    /// Ends the measured time. Messages in flight are still awaited.
    fn end(&mut self, now_ns: u64) {
        self.context.timeline.end(now_ns);
        self.context.tally.close_sending();
        if let Some((from, from_ns)) = self.cpu_at_start
            && let Ok(to) = thread::cpu_time()
        {
            self.context.tally.used_cpu(from, to, Duration::from_nanos(now_ns.saturating_sub(from_ns)));
        }
        for index in 0..self.slots.len() {
            let next = self.slots.get(index).finish(now_ns, &mut self.context);
            self.follow(index, next);
        }
    }

    fn drop_backlog(&mut self) {
        for slot in self.slots.iter_mut() {
            slot.drop_backlog(&mut self.context);
        }
    }

    /// Hands the counts over to the supervisor, unless the last ones are still there.
    fn publish(&mut self, now_ns: u64) {
        // An exchange takes no time; adding up would.
        let mut published = self.context.shared.published(self.thread);
        if published.is_empty() {
            if !self.context.timeline.has_ended() {
                self.context.tally.close_sending();
            }
            self.context.tally.counted_until(now_ns);
            std::mem::swap(&mut *published, &mut self.context.tally);
        }
    }

    /// Hands over the last counts, after the end of all connections.
    pub(super) fn conclude(&mut self) {
        self.drop_backlog();
        self.context.tally.counted_until(self.context.now_ns());
        self.context.shared.published(self.thread).take(&mut self.context.tally);
    }
}
