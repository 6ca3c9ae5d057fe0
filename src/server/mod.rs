//! The server: wait, accept, serve what is ready, keep deadlines, drain.
//!
//! ```text
//!            edge                    budget used up
//!   epoll ---------> on_client_event ------------> ready queue
//!     ^                    |                            |
//!     |                 advance  <----- next turn ------+
//!     |                    |
//!     +---- Waiting -------+------ Ended ------> close(2)
//! ```
//!
//! This file has the loop. `startup` leads to it, `accepting` takes connections in, `serving` gives each its turn, `gates` holds
//! back those that have had enough, `timing` keeps the deadlines, `draining` leads to the end.

mod accepting;
mod address;
mod builder;
mod clock;
mod config;
mod connection;
mod drain;
mod draining;
mod error;
mod fault;
mod gates;
mod handle;
mod kernel;
mod listener;
mod peer;
mod per_ip;
mod progress;
mod rate;
mod requests;
mod serving;
mod startup;
mod statistics;
mod timers;
mod timing;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use slotmap::SlotMap;
use tracing::{error, info, warn};

pub use address::{AddressError, ListenAddress};
pub use builder::Builder;
pub use config::{Config, ConfigError, Keepalive, Limits, SocketOptions, Timeouts};
pub use connection::{Connection, Ending, Progress, Turn};
pub use error::Error;
pub use fault::Fault;
pub use handle::Handle;
pub use kernel::{Kernel, Linux};
pub use peer::Peer;
pub use statistics::{Reason, Statistics};

use crate::event::{Deadlines, Events, Name, Token, Wait, Wheel};
use crate::protocol::{Post, Protocol, SessionId};
use crate::stream::Pipe;
use crate::sys::epoll::EpollFlags;
use crate::throttle::Throttle;
use clock::{Clock, Horizon, Ms48};
use drain::Drain;
use gates::Gates;
use handle::HandleEnd;
use listener::Listener;
use per_ip::PerIp;
use progress::PeerProgress;
use serving::{Input, LEFTOVER_BYTES_A_TURN};
use timers::Timers;
use timing::Heartbeats;

/// The read buffer, one for the whole loop: it stays in the CPU's cache. Twice as much no longer would.
const READ_BUFFER_BYTES: usize = 32 * 1024;

/// What one call of epoll_wait(2) may tell.
const EVENTS_A_TURN: usize = 256;

/// Descriptors in the epoll set beside listeners and connections: signals, the handle, the protocol's own.
const OTHER_DESCRIPTORS: usize = 3;

/// Turns of up to so many events are not timed: the budgets keep them short, and looking at the clock is not free.
const SHORT_TURN_EVENTS: usize = 8;

const SIGNALS: u32 = 0;
const DRAIN: u32 = 1;
const STATISTICS: u32 = 2;
const STATUS: u32 = 3;
const HANDLE: u32 = 4;
const SOURCE: u32 = 5;
const MEMORY: u32 = 6;
const TRIM: u32 = 7;
const FIRST_LISTENER: u32 = 8;

/// A connection, and what the server keeps about it. Times are milliseconds of the server's clock.
struct Client<S, T> {
    connection: Connection<S, T>,
    peer: Peer,
    /// Time of opening.
    since_ms: Ms48,
    /// Time of the last activity: bytes from the peer, or acknowledged by it. Read only where a timeout needs it.
    active_ms: u64,
    /// The timer that is meant: a token that comes sooner is stale. [`Ms48::NEVER`] if there is none.
    timer_ms: Ms48,
    /// How much of [`Statistics::pending_bytes`] is this connection's.
    counted_bytes: u32,
    /// Why we are closing it, if we are.
    closing: Option<Reason>,
    place: Place,
}

/// The queue that holds a connection, if any. An event does not serve a connection that is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere: an event serves it.
    Nowhere,
    /// In the ready queue.
    Ready,
    /// In a queue for memory, or for the moment at which its rate lets it go on.
    HeldBack,
}

/// Page-aligned, so that the kernel copies from and to whole cache lines.
#[repr(align(4096))]
struct ReadBuffer([u8; READ_BUFFER_BYTES]);

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
    protocol: P,
    clients: SlotMap<SessionId, Client<K::Stream, P::Session>>,
    max_connections: usize,
    per_ip: Option<PerIp>,
    gates: Gates,
    /// A listener leaves its place empty when it closes.
    listeners: Vec<Option<Listener<K::Listener, K::Stream>>>,
    /// The listener that has the first right to the next free place.
    next_listener: usize,
    /// Who has more to do than a turn allowed, in the order in which they are to go on.
    ready: VecDeque<Token>,
    clock: Clock,
    horizon: Horizon,
    peer_progress: PeerProgress,
    /// The deadlines of the server itself, and of who waits for its rate.
    deadlines: Deadlines,
    /// The deadlines of connections.
    wheel: Wheel,
    /// Whether each turn begins with a look at the clock, for it has to be known when connections were last active.
    reads_clock: bool,
    timeouts: Timeouts,
    drain: Drain,
    busy_poll: Duration,
    stats_interval: Option<Duration>,
    /// `SO_LINGER` with no time is set: each close(2) destroys what the peer has not acknowledged.
    resets_on_close: bool,
    /// How often everybody is told how many there are, and when next.
    status: Option<(Duration, Instant)>,
    heartbeats: Heartbeats,
    /// What the protocol has asked for and was not yet done.
    post: Post,
    timers: Timers,
    outbox_limit: usize,
    read_buffer: Box<ReadBuffer>,
    /// What was read in this turn of the loop and is still to be answered, and how much of the read buffer it takes.
    inputs: Vec<Input>,
    input_bytes: usize,
    /// What bytes that nobody looks at go through on their way back. It holds none between two turns.
    pipe: Option<Pipe>,
    accept_trouble: Throttle,
    watch_trouble: Throttle,
    statistics: Statistics,
    interrupted_by: Option<i32>,
    /// A handle has asked for the end.
    is_stopped: bool,
    /// The protocol cannot go on.
    failure: Option<String>,
    handle_end: HandleEnd,
    kernel: K,
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
        statistics.open = self.clients.len() as u64;
        for client in self.clients.values() {
            statistics.received_bytes += client.connection.received_bytes();
            statistics.sent_bytes += client.connection.sent_bytes();
        }
        statistics
    }

    /// Serves until a SIGINT, SIGTERM or SIGHUP and the drain that follows it, or a second signal. A SIGUSR1 has the statistics emitted as a
    /// `tracing` event at level `INFO`, with the target `edgecho::statistics`.
    ///
    /// # Errors
    /// [`Error::System`] when a call fails that the loop cannot do without. No peer can bring that about.
    pub fn run(mut self) -> Result<Summary, Error> {
        let mut events = Events::with_capacity(EVENTS_A_TURN);
        let mut busy_until = None;
        self.begin()?;
        loop {
            self.serve_leftovers()?;
            if !P::ONLY_ANSWERS && !self.post.is_empty() {
                self.do_requests();
            }
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
                    Name::Key(key) => self.on_client_event(key, flags),
                    Name::Fixed(SIGNALS) => self.on_signals()?,
                    Name::Fixed(SOURCE) => self.on_source(flags),
                    Name::Fixed(HANDLE) => self.on_handle()?,
                    Name::Fixed(name) => self.on_listener_event(name)?,
                }
            }
            self.respond_to_all();
            self.statistics.turns += 1;
            self.statistics.events += events.len() as u64;
            if let Some(start) = start {
                let turn = self.kernel.now().saturating_duration_since(start);
                self.statistics.longest_turn = self.statistics.longest_turn.max(turn);
            }
            if !self.busy_poll.is_zero() && !events.is_empty() {
                busy_until = Some(self.kernel.now() + self.busy_poll);
            }
            if self.horizon.after_turn(events.len(), EVENTS_A_TURN) {
                self.keep_deadlines();
            }
        }
    }

    /// What comes before the first turn.
    fn begin(&mut self) -> Result<(), Error> {
        self.clock.read(&self.kernel);
        if let Some(source) = self.protocol.source() {
            let watch = Error::system("watch what the protocol writes to (epoll_ctl)");
            self.kernel.watch_source(source, Token::fixed(SOURCE)).map_err(watch)?;
        }
        self.protocol.start(&mut self.post);
        Ok(())
    }

    fn on_source(&mut self, flags: EpollFlags) {
        self.protocol.on_source(flags, &mut self.post);
        if !self.post.is_empty() {
            self.do_requests();
        }
    }

    /// How long the next wait may take.
    #[inline]
    fn wait(&mut self, busy_until: Option<Instant>) -> Wait {
        let deadline = self.next_deadline();
        if deadline.is_some() {
            let now = self.kernel.now();
            self.horizon.before_wait(now, self.clients.len() + self.listeners.len() + OTHER_DESCRIPTORS);
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
    fn serve_leftovers(&mut self) -> Result<(), Error> {
        let mut budget_bytes = LEFTOVER_BYTES_A_TURN;
        for _ in 0..self.ready.len() {
            if budget_bytes == 0 {
                break;
            }
            let Some(token) = self.ready.pop_front() else { break };
            match token.name() {
                Name::Key(key) => budget_bytes = self.resume_queued(key, budget_bytes),
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
    fn end(mut self) -> Result<Summary, Error> {
        self.cut_off();
        let aborted = self.statistics.closed_for(Reason::Aborted);
        let ended = self.protocol.end();
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

fn listener_token(index: usize) -> Token {
    Token::fixed(FIRST_LISTENER + u32::try_from(index).expect("fewer listeners than ports"))
}

fn listener_index(name: u32) -> usize {
    (name - FIRST_LISTENER) as usize
}
