//! The listeners of a server, and the limits on its connections. At the connection limit clients wait in the backlog.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tracing::{debug, warn};

use super::listener::{Accepted, Listener};
use super::per_source::PerSource;
use crate::server::config::Limits;
use crate::server::kernel::Kernel;
use crate::throttle::Throttle;

/// Connections that one listener may accept per turn.
pub(in crate::server) const ACCEPTS_PER_TURN: usize = 64;

/// The listeners, each under its index. `L` is the socket of a listener, `S` the stream of a connection.
#[derive(Debug)]
pub(in crate::server) struct Acceptor<L, S> {
    /// A listener leaves its place empty when it closes.
    listeners: Vec<Option<Listener<L, S>>>,
    /// The listener with the first right to the next free place.
    next: usize,
    max_connections: usize,
    per_source: Option<PerSource>,
    /// The peer of a new connection is its source. Behind a load balancer the source is known later.
    knows_source: bool,
    warnings: Throttle,
}

/// The result of one try to accept.
#[derive(Debug)]
pub(in crate::server) enum Arrival<S> {
    /// A connection to be opened, and its peer's address.
    Connection(S, SocketAddr),
    /// A connection whose source address is at its limit. It is closed.
    OverLimit(SocketAddr),
    /// An error that concerned one connection. The backlog may hold more.
    Failed(io::Error),
    /// Descriptors or memory have run out. The listener needs a pause.
    Exhausted(io::Error),
    /// The connection limit is reached. The listener is paused until a connection closes.
    Full,
    /// Nothing: the backlog is empty, or the listener is closed.
    None,
}

impl<L, S> Acceptor<L, S> {
    /// Returns an acceptor with these listeners, at most `max_connections` connections, and the other limits.
    pub(in crate::server) fn new(listeners: Vec<Listener<L, S>>, max_connections: usize, limits: &Limits) -> Self {
        Self {
            listeners: listeners.into_iter().map(Some).collect(),
            next: 0,
            max_connections,
            per_source: limits.max_per_ip.map(PerSource::new),
            knows_source: true,
            warnings: Throttle::default(),
        }
    }

    /// Leaves the sources of new connections to the owner: they are known later.
    #[cfg(feature = "proxy")]
    pub(in crate::server) fn with_later_sources(self) -> Self {
        Self { knows_source: false, ..self }
    }

    /// Returns the addresses of the open listeners.
    pub(in crate::server) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.iter().flatten().map(Listener::address)
    }

    /// Returns the number of listeners, open or closed.
    pub(in crate::server) fn len(&self) -> usize {
        self.listeners.len()
    }

    /// Returns whether all listeners are closed.
    pub(in crate::server) fn is_closed(&self) -> bool {
        self.listeners.iter().all(Option::is_none)
    }

    /// Returns whether a listener accepts at an event. The edge is not lost otherwise: a listener that is queued or paused accepts later, until
    /// its backlog is empty.
    pub(in crate::server) fn accepts_now(&self, index: usize) -> bool {
        self.listeners[index].as_ref().is_some_and(|listener| !listener.is_queued() && !listener.is_paused())
    }

    /// Tries once to accept a connection, with `open` connections open. In a drain the connection limit no longer holds, because the kernel
    /// has accepted these clients already; and a listener with an empty backlog is closed.
    ///
    /// # Errors
    /// Returns the errors of accept4(2) that no further try can mend.
    pub(in crate::server) fn accept<K>(
        &mut self,
        index: usize,
        kernel: &mut K,
        open: usize,
        is_draining: bool,
    ) -> io::Result<Arrival<S>>
    where
        K: Kernel<Listener = L, Stream = S>,
    {
        let Some(listener) = &mut self.listeners[index] else { return Ok(Arrival::None) };
        if open >= self.max_connections && !is_draining {
            listener.pause_until_close();
            let limit = self.max_connections;
            self.warn(kernel.now(), open, format_args!("connection limit reached ({limit} of {limit})"));
            return Ok(Arrival::Full);
        }
        Ok(match listener.accept(kernel)? {
            Accepted::Connection(stream, peer) => {
                if !self.knows_source || self.admit(peer) {
                    Arrival::Connection(stream, peer)
                } else {
                    self.note_opened(index);
                    Arrival::OverLimit(peer)
                }
            }
            Accepted::Failed(error) => Arrival::Failed(error),
            Accepted::Exhausted(error) => Arrival::Exhausted(error),
            Accepted::ShutDown(error) => {
                let address = listener.address();
                warn!("another process has shut down the inherited socket {address} (accept4): restart its socket unit");
                listener.leave_queue(kernel);
                self.listeners[index] = None;
                if self.is_closed() && !is_draining {
                    return Err(error);
                }
                Arrival::None
            }
            Accepted::Nothing => {
                if is_draining {
                    self.listeners[index] = None;
                }
                Arrival::None
            }
        })
    }

    /// Closes the inherited listeners, because a drain begins: the clients in their queues are left to the next process.
    pub(in crate::server) fn leave_inherited<K: Kernel<Listener = L>>(&mut self, kernel: &mut K) {
        for place in &mut self.listeners {
            if place.as_mut().is_some_and(|listener| listener.leave_queue(kernel)) {
                *place = None;
            }
        }
    }

    /// Notes that a connection of a listener was opened: what had run out is there again, and the next listener has the next place.
    pub(in crate::server) fn note_opened(&mut self, index: usize) {
        if let Some(listener) = &mut self.listeners[index] {
            listener.on_success();
        }
        self.next = index + 1;
    }

    /// Keeps a connection that could not be watched, to be accepted again. Its descriptor is not given up.
    pub(in crate::server) fn keep(&mut self, index: usize, stream: S, peer: SocketAddr) {
        if self.knows_source {
            self.release(peer);
        }
        if let Some(listener) = &mut self.listeners[index] {
            listener.keep(stream, peer);
        }
    }

    /// Counts a connection of a source, unless the source is at its limit. Returns whether it was counted.
    pub(in crate::server) fn admit(&mut self, source: SocketAddr) -> bool {
        self.per_source.as_mut().is_none_or(|sources| sources.admit(source))
    }

    /// Notes that a connection is closed.
    pub(in crate::server) fn release(&mut self, peer: SocketAddr) {
        if let Some(sources) = &mut self.per_source {
            sources.release(peer);
        }
    }

    /// Pauses a listener, because something has run out, and returns the end of the pause. In a drain no newcomer joins its backlog meanwhile.
    pub(in crate::server) fn pause<K>(
        &mut self,
        index: usize,
        kernel: &mut K,
        open: usize,
        is_draining: bool,
        reason: impl Display,
    ) -> Option<Instant>
    where
        K: Kernel<Listener = L, Stream = S>,
    {
        let listener = self.listeners[index].as_mut()?;
        let until = listener.pause(kernel.now());
        if is_draining && let Err(error) = listener.stop_queueing(kernel) {
            debug!("new clients may still join the backlog while it is drained (listen): {error}");
        }
        self.warn(kernel.now(), open, reason);
        Some(until)
    }

    fn warn(&mut self, now: Instant, open: usize, reason: impl Display) {
        if let Some(suppressed) = self.warnings.admit(now) {
            warn!(open, suppressed, "new clients wait in the backlog: {reason}");
        }
    }

    /// Returns the listeners in the order in which they are resumed. The one behind the listener that had the last place goes first, so that a
    /// long backlog of one does not keep the others waiting.
    pub(in crate::server) fn in_turn(&self) -> impl Iterator<Item = usize> + use<L, S> {
        let (first, count) = (self.next, self.listeners.len());
        (first..first + count).map(move |index| index % count)
    }

    /// Returns whether a listener is paused.
    pub(in crate::server) fn is_paused(&self, index: usize) -> bool {
        self.listeners[index].as_ref().is_some_and(Listener::is_paused)
    }

    /// Ends the pause of a listener, and returns its deadline, if it has one.
    pub(in crate::server) fn resume(&mut self, index: usize) -> Option<Instant> {
        self.listeners[index].as_mut()?.resume()
    }

    /// Notes that a listener is in the ready queue. Returns whether it has to be put there.
    pub(in crate::server) fn queue(&mut self, index: usize) -> bool {
        self.listeners[index].as_mut().is_some_and(Listener::queue)
    }

    /// Notes that a listener was taken from the ready queue.
    pub(in crate::server) fn unqueue(&mut self, index: usize) {
        if let Some(listener) = &mut self.listeners[index] {
            listener.unqueue();
        }
    }

    /// Closes the listeners with the clients in their backlogs, which are reset; inherited listeners were closed before. Returns the number of these clients.
    pub(in crate::server) fn abort<K>(&mut self, kernel: &mut K) -> u64
    where
        K: Kernel<Listener = L, Stream = S>,
    {
        let mut aborted = 0;
        for mut listener in self.listeners.iter_mut().filter_map(Option::take) {
            loop {
                match listener.accept(kernel) {
                    Ok(Accepted::Connection(..)) => aborted += 1,
                    Ok(Accepted::Failed(_)) => {}
                    Ok(Accepted::Nothing | Accepted::Exhausted(_) | Accepted::ShutDown(_)) | Err(_) => break,
                }
            }
        }
        aborted
    }
}
