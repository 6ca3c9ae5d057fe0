//! From the first signal to the last connection: the queue of clients is served, then the connections finish or are closed in order.

use std::time::Instant;

use tracing::{info, warn};

use super::accept::Accepted;
use super::drain::Due;
use super::error::Error;
use super::kernel::Kernel;
use super::run::Server;
use super::statistics::Reason;
use super::tokens::DRAIN;
use super::turn::EVENT_BUDGET_BYTES;
use crate::event::Token;
use crate::protocol::{Protocol, SessionId};
use crate::sys::epoll::EpollFlags;
use crate::sys::signal::{self, Signal};

impl<P: Protocol, K: Kernel> Server<P, K> {
    pub(super) fn on_signals(&mut self) -> Result<(), Error> {
        while let Some(number) = self.kernel.next_signal().map_err(Error::system("read signals (read)"))? {
            if number == Signal::SIGUSR1 as i32 {
                info!(target: "edgecho::statistics", "{}", self.statistics());
                continue;
            }
            let name = signal::name(number);
            if self.drain.has_begun() {
                warn!(open = self.connections.len(), "{name} again: ending at once");
                self.interrupted_by = Some(number);
            } else {
                self.begin_drain(name);
            }
        }
        Ok(())
    }

    /// Begins the drain: clients that are in an accept queue are served, and then the listeners close.
    pub(super) fn begin_drain(&mut self, why: &str) {
        let Some(deadline) = self.drain.on_signal(self.kernel.now()) else { return };
        info!(open = self.connections.len(), "{why}: draining; a second signal ends at once");
        self.deadlines.set(deadline, Token::fixed(DRAIN));
        // The kernel has accepted them for us. The last of them closes the listener.
        for index in 0..self.listeners.len() {
            self.queue_listener(index);
        }
    }

    /// Finishes a drain as far as it goes, and returns whether it has come to its end: no client can come any more, all have left, and
    /// the protocol has nothing left to do.
    pub(super) fn finish_drain(&mut self) -> bool {
        self.drain.has_begun()
            && self.connections.is_empty()
            && self.listeners.iter().all(Option::is_none)
            && (P::ONLY_ANSWERS
                || self.drain.is_closing()
                || self.drain.is_over()
                || self.protocol.background().is_none_or(|background| background.finish_work()))
    }

    pub(super) fn on_drain_deadline(&mut self, now: Instant) {
        match self.drain.on_deadline(now) {
            Due::CloseAll(until) => {
                info!(open = self.connections.len(), "the drain's time is up: closing those that are left");
                self.deadlines.set(until, Token::fixed(DRAIN));
                for key in self.connections.keys().collect::<Vec<_>>() {
                    self.begin_close(key, Reason::Drained);
                    self.queue_connection(key);
                }
                // A listener that is still open had no descriptors for its queue. Each connection that ends leaves one.
                for index in 0..self.listeners.len() {
                    self.queue_listener(index);
                }
            }
            Due::Wait(until) => self.deadlines.set(until, Token::fixed(DRAIN)),
            Due::CutOff => {
                self.cut_off();
                for index in 0..self.listeners.len() {
                    self.abort_queue(index);
                }
            }
        }
    }

    /// Serves a client that had to wait in an accept queue until the drain's time was up: what it has sent is returned, and then it is
    /// closed in order.
    pub(super) fn serve_last(&mut self, key: SessionId) {
        if let Some(client) = self.connections.get_mut(key) {
            client.connection.on_event(EpollFlags::IN);
            self.serve(key, EVENT_BUDGET_BYTES);
            self.begin_close(key, Reason::Drained);
            self.queue_connection(key);
        }
    }

    /// Closes a listener with clients in its queue, which are reset. Each counts as aborted.
    fn abort_queue(&mut self, index: usize) {
        let Some(mut listener) = self.listeners[index].take() else { return };
        loop {
            match listener.accept(&mut self.kernel) {
                Ok(Accepted::Connection(..)) => {
                    self.statistics.accepted += 1;
                    self.statistics.count_closed(Reason::Aborted);
                }
                Ok(Accepted::Failed(_)) => {}
                Ok(Accepted::Nothing | Accepted::Exhausted(_)) | Err(_) => return,
            }
        }
    }

    /// Closes all connections that are left, as they are.
    pub(super) fn cut_off(&mut self) {
        for key in self.connections.keys().collect::<Vec<_>>() {
            self.cut(key, Reason::Drained);
        }
    }

    /// Closes a connection as it is. It is aborted if that destroys bytes, and otherwise closed for `reason`.
    pub(super) fn cut(&mut self, key: SessionId, reason: Reason) {
        let Some(client) = self.connections.get(key) else { return };
        let loses_bytes = client.connection.unsettled_bytes() > 0;
        self.remove(key, if loses_bytes { Reason::Aborted } else { reason });
    }
}
