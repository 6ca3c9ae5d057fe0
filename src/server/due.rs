//! Deadlines: checks of timeouts, retries, log lines, and the drain.

use std::time::Instant;

use tracing::info;

use super::connections::Queue;
use super::drain::Due;
use super::kernel::Kernel;
use super::observer::View;
use super::run::Server;
use super::statistics::Reason;
use super::time::Action;
use super::tokens::{DRAIN, MEMORY, OBSERVER, PROXY, STATISTICS, STATUS, TRIM, listener_index};
use super::turn::EVENT_BUDGET_BYTES;
use crate::event::{Name, Token};
use crate::protocol::{Protocol, SessionId};
use crate::stream::Stream;
use crate::sys::epoll::EpollFlags;

/// Connections that wait for memory and are looked at again at a time.
const MEMORY_RETRIES: usize = 64;

impl<P: Protocol, K: Kernel> Server<P, K> {
    /// Does what was due at the moment up to which all events have been processed.
    #[cold]
    #[inline(never)]
    pub(super) fn do_due(&mut self) {
        if !self.time.is_due() {
            return;
        }
        self.time.read(&self.kernel);
        while let Some(due) = self.time.take_due_checks() {
            for token in due {
                if let Name::Key(key) = token.name() {
                    self.check_timeouts(key);
                }
            }
        }
        while let Some(token) = self.time.take_due_deadline() {
            match token.name() {
                Name::Fixed(DRAIN) => self.on_drain_deadline(),
                Name::Fixed(STATISTICS) => self.log_statistics(),
                Name::Fixed(STATUS) => {
                    self.time.set_next_status();
                    self.send_status();
                }
                Name::Fixed(MEMORY) => self.retry_for_memory(),
                Name::Fixed(TRIM) => self.pressure.trim(),
                Name::Fixed(PROXY) => self.on_proxy_deadline(),
                Name::Fixed(OBSERVER) => self.watch.iter_mut().for_each(|watch| watch.note_due()),
                Name::Fixed(name) => self.queue_listener(listener_index(name)),
                Name::Key(key) => self.resume_now(key),
            }
        }
        self.run_protocol_timers();
    }

    /// Gives a connection a turn that no event has asked for.
    fn resume_now(&mut self, key: SessionId) {
        self.resume(key, EVENT_BUDGET_BYTES);
    }

    /// Checks the timeouts of a connection.
    fn check_timeouts(&mut self, key: SessionId) {
        let Some(slot) = self.connections.get_mut(key) else { return };
        if !self.time.begin_check(&mut slot.times) {
            return;
        }
        match self.due_action(key) {
            None | Some(Action::Look) => self.schedule_check(key),
            Some(Action::Heartbeat) => {
                self.time.note_heartbeat(key);
                self.send_heartbeat(key);
                self.schedule_check(key);
            }
            Some(Action::Close(reason)) => self.close_for_timeout(key, reason),
        }
    }

    /// Returns the action that is due for a connection, by what the kernel knows of its peer.
    fn due_action(&mut self, key: SessionId) -> Option<Action> {
        let slot = self.connections.get_mut(key)?;
        let first = self.time.due_action(key, slot.times, slot.facts())?;
        if matches!(first, Action::Heartbeat | Action::Close(Reason::Lifetime)) && slot.closing().is_none() {
            return Some(first);
        }
        let acknowledged = slot.connection.stream().acknowledged();
        // Read after that: an acknowledgement would otherwise seem to be older by a pause in between.
        let now_ms = self.time.read(&self.kernel);
        if slot.waits_for_server() {
            slot.times.set_active(now_ms);
        }
        if let Ok(acknowledged) = acknowledged
            && let Some(last_ms) = self.time.note_look(key, acknowledged, slot.connection.sent_with_fin())
        {
            slot.times.set_active(slot.times.active_ms().max(last_ms));
        }
        match slot.closing() {
            Some(reason) => Some(self.time.closing_action(key, reason, slot.connection.owes_bytes())),
            None => self.time.due_action(key, slot.times, slot.facts()),
        }
    }

    fn close_for_timeout(&mut self, key: SessionId, reason: Reason) {
        let is_closing = self.connections.get(key).is_some_and(|slot| slot.closing().is_some());
        match reason {
            Reason::Idle | Reason::Lifetime if !is_closing => {
                self.begin_close(key, reason);
                self.schedule_check(key);
                self.resume_now(key);
            }
            // No byte that is owed can reach the peer. In a drain this is an abort: the exit status says that bytes were lost.
            Reason::WriteStalled if !self.drain.has_begun() => self.remove(key, reason),
            _ => self.cut(key, reason),
        }
    }

    /// Looks again at some of the connections that wait for memory: they may need none by now.
    #[cold]
    fn retry_for_memory(&mut self) {
        if let Some((key, since_ms)) = self.pressure.begin_retry() {
            self.check_holder(key, since_ms);
        }
        let mut retries = 0;
        while retries < MEMORY_RETRIES
            && let Some(token) = self.pressure.pop_waiting()
        {
            if let Name::Key(key) = token.name()
                && self.connections.queue_held_back(key)
            {
                retries += 1;
            }
        }
        self.schedule_memory_retry();
    }

    /// Releases the holder if its piece is whole. Closes it if no input comes for the stall time, or if its piece is not whole after that
    /// time while others wait: a trickle of bytes does not keep the others waiting.
    fn check_holder(&mut self, key: SessionId, since_ms: u64) {
        let Some(slot) = self.connections.get(key) else { return };
        if slot.connection.piece_bytes(&self.protocol) == 0 || slot.connection.needs_room() {
            self.pressure.release_holder();
        } else if slot.queue() == Queue::None {
            if self.time.is_past_patience(slot.times.active_ms()) {
                self.close_silent_holders();
            } else if self.time.is_past_patience(since_ms) {
                self.remove(key, Reason::Memory);
            }
        }
    }

    /// Closes the connections that keep memory for a piece of which nothing more has come for the stall time. Each of them would keep the
    /// others waiting as long as the first has.
    #[cold]
    fn close_silent_holders(&mut self) {
        let silent = self.connections.iter().filter(|(_, slot)| {
            slot.queue() == Queue::None
                && slot.connection.piece_bytes(&self.protocol) > 0
                && self.time.is_past_patience(slot.times.active_ms())
        });
        for key in silent.map(|(key, _)| key).collect::<Vec<_>>() {
            self.remove(key, Reason::Memory);
        }
    }

    /// Calls the observer, if its time has come or it has not seen the current state. Sets the deadline of its next call.
    #[cold]
    #[inline(never)]
    pub(super) fn observe(&mut self) {
        let (stage, open) = (self.drain.stage(), self.connections.len());
        let Some(watch) = self.watch.as_mut().filter(|watch| watch.needs_call(stage, open)) else { return };
        self.time.read(&self.kernel);
        let view = View { now: self.time.now(), stage, open, accepted: self.statistics.accepted };
        let (before, next) = watch.observe(&view);
        if before != next {
            let token = Token::fixed(OBSERVER);
            before.into_iter().for_each(|at| self.time.cancel_deadline(at, token));
            next.into_iter().for_each(|at| self.time.set_deadline(at, token));
        }
    }

    fn log_statistics(&mut self) {
        self.time.set_next_statistics();
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

    /// Begins the drain delay, or without one the drain.
    pub(super) fn begin_drain(&mut self, why: &str) {
        let waiting = self.waiting_if_any();
        match self.drain.on_signal(self.kernel.now()) {
            Some(Due::Leave(until)) => {
                let delay = self.drain.delay();
                info!(
                    open = self.connections.len(),
                    waiting,
                    "{why}: not ready any more, and accepting for {delay:?} before the drain; a second signal ends at once"
                );
                self.time.set_deadline(until, Token::fixed(DRAIN));
            }
            Some(Due::Drain(until)) => {
                info!(open = self.connections.len(), waiting, "{why}: draining; a second signal ends at once");
                self.drain_until(until);
            }
            _ => {}
        }
    }

    /// Returns the number of connections that wait for their header, for a log line, unless it is 0.
    fn waiting_if_any(&self) -> Option<usize> {
        Some(self.waiting()).filter(|&count| count > 0)
    }

    /// Drains: the clients in the backlogs are served, and then the listeners close. The backlogs of inherited listeners are left to the next
    /// process.
    fn drain_until(&mut self, deadline: Instant) {
        self.time.set_deadline(deadline, Token::fixed(DRAIN));
        self.acceptor.leave_inherited(&mut self.kernel);
        // The kernel has accepted these clients for us. The last of them closes the listener.
        self.queue_listeners();
    }

    fn on_drain_deadline(&mut self) {
        let waiting = self.waiting_if_any();
        match self.drain.on_deadline(self.time.now()) {
            Due::Drain(until) => {
                info!(
                    open = self.connections.len(),
                    waiting, "the drain delay is over: draining; a second signal ends at once"
                );
                self.drain_until(until);
            }
            Due::CloseAll(until) => {
                info!(
                    open = self.connections.len(),
                    waiting, "the drain timeout is over: closing the connections that are left"
                );
                self.time.set_deadline(until, Token::fixed(DRAIN));
                self.close_waiting();
                for key in self.connections.keys() {
                    self.begin_close(key, Reason::Drained);
                    self.connections.queue(key);
                }
                // A listener that is still open had no descriptors for its backlog. Each connection that ends leaves one.
                self.queue_listeners();
            }
            Due::Leave(until) => self.time.set_deadline(until, Token::fixed(DRAIN)),
            Due::Wait(until) => {
                let stage = if self.drain.has_begun() { "time to close connections" } else { "drain delay" };
                info!("the process was paused at the end of the {stage}, which begins again, once");
                self.time.set_deadline(until, Token::fixed(DRAIN));
            }
            Due::CutOff => {
                self.cut_off();
                let aborted = self.acceptor.abort(&mut self.kernel);
                self.statistics.count_aborted(aborted);
            }
        }
    }

    /// Serves a client that had to wait in a backlog until the drain timeout was over: its input is answered, and then it is closed in order.
    pub(super) fn serve_last(&mut self, key: SessionId) {
        if let Some(slot) = self.connections.get_mut(key) {
            slot.connection.on_event(EpollFlags::IN);
            self.serve(key, EVENT_BUDGET_BYTES);
            self.begin_close(key, Reason::Drained);
            self.connections.queue(key);
        }
    }

    /// Closes all connections that are left, as they are.
    pub(super) fn cut_off(&mut self) {
        self.cut_waiting();
        for key in self.connections.keys() {
            self.cut(key, Reason::Drained);
        }
    }
}
