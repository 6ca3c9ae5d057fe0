//! Taking connections in, and holding them back in the kernel's queue while there is no place for them.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;

use tracing::{debug, warn};

use super::listener::{Accepted, Listener};
use crate::event::Token;
use crate::protocol::Protocol;
use crate::server::connection::{Connection, Peer, Turn};
use crate::server::connections::{INTEREST, Place, Slot};
use crate::server::error::Error;
use crate::server::fault::Fault;
use crate::server::kernel::Kernel;
use crate::server::run::Server;
use crate::server::statistics::Reason;
use crate::server::time::Ms48;
use crate::server::tokens::{self, listener_index};

/// What one listener may accept in a turn.
const ACCEPTS_PER_TURN: usize = 64;

impl<P: Protocol, K: Kernel> Server<P, K> {
    pub(in crate::server) fn on_listener_event(&mut self, name: u32) -> Result<(), Error> {
        match &self.listeners[listener_index(name)] {
            // The edge is not lost: who is queued or held back accepts until there is nobody left.
            Some(listener) if listener.is_queued || listener.is_held_back() => Ok(()),
            Some(_) => self.accept_from(listener_index(name)),
            None => Ok(()),
        }
    }

    /// Accepts until the queue is empty, there is no place left, or the budget of this turn is used up.
    pub(in crate::server) fn accept_from(&mut self, index: usize) -> Result<(), Error> {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &mut self.listeners[index] else { return Ok(()) };
            // At a drain the limit no longer holds: the kernel has accepted these clients for us.
            if self.connections.len() >= self.max_connections && !self.drain.has_begun() {
                listener.hold_back();
                let limit = self.max_connections;
                self.warn_that_clients_wait(format_args!("connection limit reached ({limit} of {limit})"));
                return Ok(());
            }
            match listener.accept(&mut self.kernel).map_err(Error::system("accept connections (accept4)"))? {
                Accepted::Connection(stream, peer) => {
                    if let Err((stream, error)) = self.open(stream, peer) {
                        self.keep_for_later(index, stream, peer, &error);
                        return Ok(());
                    }
                    if let Some(listener) = &mut self.listeners[index] {
                        listener.on_success();
                    }
                    self.next_listener = index + 1;
                }
                Accepted::Nothing => {
                    if self.drain.has_begun() {
                        self.listeners[index] = None;
                    }
                    return Ok(());
                }
                Accepted::Failed(error) => {
                    self.count_accept_error(&error);
                    debug!("a connection was gone before it was accepted: {error}");
                }
                Accepted::Exhausted(error) => {
                    self.count_accept_error(&error);
                    self.pause_listener(index, format_args!("{error}: {}", Fault::of(&error)));
                    return Ok(());
                }
            }
        }
        self.queue_listener(index);
        Ok(())
    }

    fn count_accept_error(&mut self, error: &io::Error) {
        *self.statistics.accept_errors.entry(error.raw_os_error().unwrap_or_default()).or_default() += 1;
    }

    /// Something has run out: lets the kernel keep those that come, until something has come free or the pause is over.
    fn pause_listener(&mut self, index: usize, reason: impl Display) {
        let Some(listener) = &mut self.listeners[index] else { return };
        self.deadlines.set(listener.pause(self.kernel.now()), tokens::of_listener(index));
        if self.drain.has_begun()
            && let Err(error) = listener.stop_queueing(&mut self.kernel)
        {
            debug!("new clients may still join the queue while it is drained (listen): {error}");
        }
        self.warn_that_clients_wait(reason);
    }

    /// A connection was accepted that epoll cannot watch for now. It is taken in when epoll can; its descriptor is not given up.
    #[cold]
    fn keep_for_later(&mut self, index: usize, stream: K::Stream, peer: SocketAddr, error: &io::Error) {
        if let Some(listener) = &mut self.listeners[index] {
            listener.keep(stream, peer);
        }
        self.pause_listener(
            index,
            format_args!("epoll cannot watch more of them (epoll_ctl): {error}: {}", Fault::of(error)),
        );
    }

    fn warn_that_clients_wait(&mut self, reason: impl Display) {
        if let Some(suppressed) = self.accept_trouble.admit(self.kernel.now()) {
            warn!(open = self.connections.len(), suppressed, "new clients wait in the backlog: {reason}");
        }
    }

    /// Takes in a connection, unless its source is at the limit. Gives the stream back if it cannot be watched.
    fn open(&mut self, stream: K::Stream, peer: SocketAddr) -> Result<(), (K::Stream, io::Error)> {
        if let Some(per_source) = &mut self.per_source
            && !per_source.admit(peer)
        {
            self.statistics.accepted += 1;
            self.statistics.count_closed(Reason::Limit);
            debug!(%peer, "closed at once: its source has as many connections as it may");
            return Ok(());
        }
        let now_ms = self.clock.read(&self.kernel);
        let kept = Peer::from(peer);
        let (protocol, post, kernel) = (&mut self.protocol, &mut self.post, &mut self.kernel);
        let opened = self.connections.try_insert_with_key(|id| match kernel.watch(&stream, Token::of_key(id), INTEREST) {
            Err(error) => Err((stream, error)),
            Ok(()) => Ok(Slot {
                connection: Connection::open(stream, protocol, &mut Turn { id, peer: &kept, post, pipe: None }),
                peer: kept,
                since_ms: Ms48::new(now_ms),
                active_ms: now_ms,
                timer_ms: Ms48::NEVER,
                counted_bytes: 0,
                closing: None,
                place: Place::Nowhere,
            }),
        });
        let key = match opened {
            Ok(key) => key,
            Err(failed) => {
                if let Some(per_source) = &mut self.per_source {
                    per_source.release(peer);
                }
                return Err(failed);
            }
        };
        self.statistics.accepted += 1;
        self.pressure.open(key, now_ms);
        self.heartbeats.open(key, now_ms);
        if self.timeouts.idle.is_some() || self.timeouts.lifetime.is_some() || self.heartbeats.are_there() {
            self.schedule_check(key);
        }
        // What the protocol has said of its own accord may not have found room.
        if !P::ONLY_ANSWERS && self.connections[key].connection.memory_bytes(key, &self.protocol) > 0 {
            self.count_pending(key);
        }
        debug!(%peer, "opened");
        self.do_requests();
        if self.drain.is_closing() {
            self.serve_last(key);
        }
        Ok(())
    }

    /// Resumes the listeners that wait for a free place. The one behind the listener that had the last place
    /// goes first, so that a long queue of one does not keep the others waiting.
    pub(in crate::server) fn resume_listeners(&mut self) {
        let (first, count) = (self.next_listener, self.listeners.len());
        for index in (first..first + count).map(|index| index % count) {
            if self.listeners[index].as_ref().is_some_and(Listener::is_held_back) {
                self.queue_listener(index);
            }
        }
    }

    /// Has a listener accept in the next turn. A pause ends, and its deadline with it.
    pub(in crate::server) fn queue_listener(&mut self, index: usize) {
        let Some(listener) = &mut self.listeners[index] else { return };
        if let Some(until) = listener.resume() {
            self.deadlines.cancel(until, tokens::of_listener(index));
        }
        if !listener.is_queued {
            listener.is_queued = true;
            self.ready.push_back(tokens::of_listener(index));
        }
    }
}
