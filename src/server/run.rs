//! The server: wait, accept, serve what is ready, keep deadlines, drain.
//!
//! ```text
//!            edge                    budget used up
//!   epoll ---------> on_connection_event ------------> ready queue
//!     ^                    |                            |
//!     |                 advance  <----- next turn ------+
//!     |                    |
//!     +---- Waiting -------+------ Ended ------> close(2)
//! ```
//!
//! This file has the loop. `startup` leads to it, `accepting` takes connections in, `serving` gives each its turn, `gates` holds
//! back those that have had enough, `timing` keeps the deadlines, `draining` leads to the end.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use slotmap::SlotMap;
use tracing::{error, info, warn};

use super::accept::{Listener, PerSource};
use super::config::Timeouts;
use super::connection::Host;
use super::connections::Slot;
use super::drain::Drain;
use super::error::Error;
use super::handle::HandleEnd;
use super::kernel::{Kernel, Linux};
use super::pressure::Pressure;
use super::statistics::{Reason, Statistics};
use super::time::{Clock, Heartbeats, Horizon, PeerProgress, Timers};
use super::tokens::{HANDLE, PROTOCOL, SIGNALS, listener_index};
use super::turn::{Input, QUEUED_BUDGET_BYTES, ReadBuffer};
use crate::event::{Deadlines, Events, Name, Token, Wait, Wheel};
use crate::protocol::{Post, Protocol, SessionId};
use crate::stream::Pipe;
use crate::sys::epoll::EpollFlags;
use crate::throttle::Throttle;

/// What one call of epoll_wait(2) may tell.
pub(super) const EVENTS_PER_TURN: usize = 256;

/// Descriptors in the epoll set beside listeners and connections: signals, the handle, the protocol's own.
const OTHER_DESCRIPTORS: usize = 3;

/// Turns of up to so many events are not timed: the budgets keep them short, and looking at the clock is not free.
const SHORT_TURN_EVENTS: usize = 8;

/// How a run of the server ended.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Connections that the server closed although that destroyed bytes: [`Reason::Aborted`]. 0 if every connection ended in order. A peer
    /// that the write timeout cut off is counted as [`Reason::WriteStalled`] instead.
    pub aborted: u64,
    /// The number of the second signal, if there was one, by which all ended at once.
    pub interrupted_by: Option<i32>,
    /// What went on.
    pub statistics: Statistics,
}

/// A server that is listening.
///
/// ```
/// use edgecho::protocol::Echo;
/// use edgecho::server::Server;
///
/// let mut server = Server::builder().listen("127.0.0.1:0".parse()?).signals(false).bind(Echo)?;
/// let handle = server.handle()?;
/// let address = server.local_addresses().next().expect("it listens");
/// let thread = std::thread::spawn(move || server.run());
///
/// let client = std::net::TcpStream::connect(address)?;
/// std::io::Write::write_all(&mut &client, b"hello")?;
/// client.shutdown(std::net::Shutdown::Write)?;
/// assert_eq!(std::io::read_to_string(&client)?, "hello");
/// handle.drain();
/// let summary = thread.join().expect("no panic")?;
/// assert_eq!((summary.aborted, summary.statistics.received_bytes), (0, 5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server<P: Protocol, K: Kernel = Linux> {
    pub(super) protocol: Host<P>,
    pub(super) connections: SlotMap<SessionId, Slot<K::Stream, P::Session>>,
    pub(super) max_connections: usize,
    pub(super) per_source: Option<PerSource>,
    pub(super) pressure: Pressure,
    /// A listener leaves its place empty when it closes.
    pub(super) listeners: Vec<Option<Listener<K::Listener, K::Stream>>>,
    /// The listener that has the first right to the next free place.
    pub(super) next_listener: usize,
    /// Who has more to do than a turn allowed, in the order in which they are to go on.
    pub(super) ready: VecDeque<Token>,
    pub(super) clock: Clock,
    pub(super) horizon: Horizon,
    pub(super) peer_progress: PeerProgress,
    /// The deadlines of the server itself, and of who waits for its rate.
    pub(super) deadlines: Deadlines,
    /// The deadlines of connections.
    pub(super) wheel: Wheel,
    /// Whether each turn begins with a look at the clock, for it has to be known when connections were last active.
    pub(super) reads_clock: bool,
    pub(super) timeouts: Timeouts,
    pub(super) drain: Drain,
    pub(super) busy_poll: Duration,
    pub(super) stats_interval: Option<Duration>,
    /// `SO_LINGER` with no time is set: each close(2) destroys what the peer has not acknowledged.
    pub(super) resets_on_close: bool,
    /// How often everybody is told how many there are, and when next.
    pub(super) status: Option<(Duration, Instant)>,
    pub(super) heartbeats: Heartbeats,
    /// What the protocol has asked for and was not yet done.
    pub(super) post: Post,
    pub(super) timers: Timers,
    pub(super) outbox_limit: usize,
    pub(super) read_buffer: Box<ReadBuffer>,
    /// What was read in this turn of the loop and is still to be answered, and how much of the read buffer it takes.
    pub(super) inputs: Vec<Input>,
    pub(super) input_bytes: usize,
    /// What bytes that nobody looks at go through on their way back. It holds none between two turns.
    pub(super) pipe: Option<Pipe>,
    pub(super) accept_trouble: Throttle,
    pub(super) watch_trouble: Throttle,
    pub(super) statistics: Statistics,
    pub(super) interrupted_by: Option<i32>,
    /// A handle has asked for the end.
    pub(super) is_stopped: bool,
    /// The protocol cannot go on.
    pub(super) failure: Option<String>,
    pub(super) handle_end: HandleEnd,
    pub(super) kernel: K,
}

impl<P: Protocol, K: Kernel> Server<P, K> {
    /// Where it listens, with the ports that the kernel chose where 0 was asked for.
    pub fn local_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.iter().flatten().map(Listener::address)
    }

    /// What has gone on until now.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.statistics.clone();
        statistics.open = self.connections.len() as u64;
        for client in self.connections.values() {
            statistics.received_bytes += client.connection.received_bytes();
            statistics.sent_bytes += client.connection.sent_bytes();
        }
        statistics
    }

    /// Serves until a SIGINT, SIGTERM or SIGHUP and the drain that follows it, or a second signal. A SIGUSR1 has the statistics emitted as a
    /// `tracing` event at level `INFO`, with the target `edgecho::statistics`.
    ///
    /// # Errors
    /// - [`Error::System`] when a call fails that the loop cannot do without. No peer can bring that about.
    /// - [`Error::Protocol`] when the protocol fails or panics. After a panic all connections are closed at once.
    pub fn run(mut self) -> Result<Summary, Error> {
        // Once for the whole run: a message pays nothing for it. Nothing of the server is used after a panic, it is only dropped.
        catch_unwind(AssertUnwindSafe(|| self.run_to_end())).unwrap_or_else(|panic| Err(Error::panicked(&*panic)))
    }

    fn run_to_end(&mut self) -> Result<Summary, Error> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut busy_until = None;
        self.begin()?;
        loop {
            self.resume_queued()?;
            self.do_requests();
            if self.finish_drain() || self.interrupted_by.is_some() || self.is_stopped || self.failure.is_some() {
                return self.end();
            }
            let wait = self.wait(busy_until);
            self.kernel.wait(&mut events, wait).map_err(Error::system("wait for events (epoll_wait)"))?;
            if self.reads_clock {
                self.clock.begin_turn(&self.kernel);
            }
            let start = (events.len() > SHORT_TURN_EVENTS).then(|| self.kernel.now());
            for (token, flags) in events.iter() {
                match token.name() {
                    Name::Key(key) => self.on_connection_event(key, flags),
                    Name::Fixed(SIGNALS) => self.on_signals()?,
                    Name::Fixed(PROTOCOL) => self.on_protocol_event(flags),
                    Name::Fixed(HANDLE) => self.on_handle()?,
                    Name::Fixed(name) => self.on_listener_event(name)?,
                }
            }
            self.answer_inputs();
            self.statistics.turns += 1;
            self.statistics.events += events.len() as u64;
            if let Some(start) = start {
                let turn = self.kernel.now().saturating_duration_since(start);
                self.statistics.longest_turn = self.statistics.longest_turn.max(turn);
            }
            if !self.busy_poll.is_zero() && !events.is_empty() {
                busy_until = Some(self.kernel.now() + self.busy_poll);
            }
            if self.horizon.after_turn(events.len(), EVENTS_PER_TURN) {
                self.keep_time();
            }
        }
    }

    /// What comes before the first turn.
    fn begin(&mut self) -> Result<(), Error> {
        self.clock.read(&self.kernel);
        if let Some(source) = self.protocol.background().and_then(|background| background.descriptor()) {
            let watch = Error::system("watch the descriptor of the protocol (epoll_ctl)");
            self.kernel.watch_source(source, Token::fixed(PROTOCOL)).map_err(watch)?;
        }
        self.protocol.start(&mut self.post);
        Ok(())
    }

    fn on_protocol_event(&mut self, flags: EpollFlags) {
        if let Some(background) = self.protocol.background() {
            background.on_event(flags, &mut self.post);
        }
        self.do_requests();
    }

    /// How long the next wait may take.
    #[inline]
    fn wait(&mut self, busy_until: Option<Instant>) -> Wait {
        let deadline = self.next_deadline();
        if deadline.is_some() {
            let now = self.kernel.now();
            self.horizon.before_wait(now, self.connections.len() + self.listeners.len() + OTHER_DESCRIPTORS);
            if self.reads_clock {
                self.credit_long_turn(now);
            }
        }
        if !self.ready.is_empty() || busy_until.is_some_and(|until| self.kernel.now() < until) {
            return Wait::Poll;
        }
        Wait::until(deadline)
    }

    /// Goes on with those whose last turn was not enough, in the order in which they stand, each once at most and for so many bytes
    /// in all. The kernel is then asked for news first, so that nobody who has little to say waits for more than that.
    fn resume_queued(&mut self) -> Result<(), Error> {
        let mut budget_bytes = QUEUED_BUDGET_BYTES;
        for _ in 0..self.ready.len() {
            if budget_bytes == 0 {
                break;
            }
            let Some(token) = self.ready.pop_front() else { break };
            match token.name() {
                Name::Key(key) => budget_bytes = self.resume_if_queued(key, budget_bytes),
                Name::Fixed(name) => {
                    if let Some(listener) = &mut self.listeners[listener_index(name)] {
                        listener.is_queued = false;
                        self.accept_from(listener_index(name))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends a run: connections that are still open are cut off.
    fn end(&mut self) -> Result<Summary, Error> {
        self.cut_off();
        let aborted = self.statistics.closed_for(Reason::Aborted);
        let ended = self.protocol.background().map_or(Ok(()), |background| background.end());
        if let Some(reason) = self.failure.take().or(ended.err()) {
            if self.interrupted_by.is_none() {
                return Err(Error::Protocol { reason });
            }
            error!("{reason}"); // the signal says how it ended
        }
        let mut statistics = self.statistics();
        statistics.open = 0;
        if aborted > 0 {
            warn!(aborted, "connections were cut off before all of their bytes were delivered");
        }
        if self.interrupted_by.is_none() && !self.is_stopped {
            info!(accepted = statistics.accepted, aborted, "drained");
        }
        Ok(Summary { aborted, interrupted_by: self.interrupted_by, statistics })
    }
}
