//! epoll_wait(2): the script goes on while the server waits, and time passes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use edgecho::event::{Events, Token, Wait};
use edgecho::protocol::Echo;
use edgecho::server::Server;
use edgecho::sys::epoll::EpollFlags;

use super::super::kernel::Scripted;
use super::super::plan::{Act, MS, Sleep, Step};
use super::{MOST_BYTES_AN_EVENT, MOST_LEFTOVER_BYTES, Ready, World};

/// After this many wake-ups in one sleep of the script, the server is stopped for the rest of it: some sleeps last months.
const MOST_WAKES_A_SLEEP: u64 = 150;

impl World {
    /// Returns the next event that epoll reports.
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
            // At the front, as if this batch had closed them.
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

    /// Ends the turn before a wait, and checks it.
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

    /// Ends the script: all peers acknowledge everything and send a FIN.
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
            // No event is left. The server may still wait for a deadline; otherwise a signal ends it.
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
