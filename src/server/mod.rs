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

mod config;
mod connection;
mod drain;
mod error;
mod listener;
mod outbox;
mod startup;
mod throttle;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use slotmap::SlotMap;
use tracing::{debug, info, warn};

pub use config::{AddressError, Config, ListenAddress};
pub use connection::{Connection, Ending, Progress, Stream};
pub use error::Error;
pub use outbox::Outbox;

use crate::event::{Deadlines, EventLoop, Events, Name, Signals, Token, Wait};
use crate::protocol::Protocol;
use crate::sys::epoll::EpollFlags;
use crate::sys::signal;
use drain::{Drain, Due};
use listener::{Accepted, Listener};
use throttle::Throttle;

/// The read buffer, one for the whole loop: it stays in the CPU's cache. Twice as much no longer would.
const READ_BUFFER_BYTES: usize = 32 * 1024;

/// What one connection may read in a turn; it reads at most one buffer more. With this, a turn with 8 firehoses takes well
/// under a millisecond.
const BYTES_A_TURN: usize = 64 * 1024;

/// What one listener may accept in a turn.
const ACCEPTS_A_TURN: usize = 64;

/// What one call of epoll_wait(2) may tell.
const EVENTS_A_TURN: usize = 256;

/// What every connection is watched for from the start. `RDHUP` makes the FIN an edge of its own, `PRI` the urgent byte.
const INTEREST: EpollFlags = EpollFlags::IN.union(EpollFlags::RDHUP).union(EpollFlags::PRI);

const SIGNALS: u32 = 0;
const DRAIN: u32 = 1;
const FIRST_LISTENER: u32 = 2;

slotmap::new_key_type! {
    struct ClientKey;
}

/// A connection, and what the server keeps about it.
struct Client<T> {
    connection: Connection<OwnedFd, T>,
    peer: SocketAddr,
    since: Instant,
    /// It stands in the ready queue, so that an event need not serve it, too.
    is_queued: bool,
    /// It is watched for room to write, too. That is asked for the first time that it has none, and stays.
    is_watched_for_room: bool,
}

/// Page-aligned, so that the kernel copies from and to whole cache lines.
#[repr(align(4096))]
struct ReadBuffer([u8; READ_BUFFER_BYTES]);

/// How a run of the server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How many connections were accepted.
    pub accepted: u64,
    /// How many connections were cut off before they were sent all that they were owed. 0 says that all left in peace.
    pub aborted: u64,
    /// The number of the second signal, if there was one, by which all ended at once.
    pub interrupted_by: Option<i32>,
}

/// A server that is listening.
pub struct Server<P: Protocol> {
    protocol: P,
    clients: SlotMap<ClientKey, Client<P::Session>>,
    /// A listener leaves its place empty when it closes.
    listeners: Vec<Option<Listener>>,
    /// Who has more to do than a turn allowed, in the order in which they are to go on.
    ready: VecDeque<Token>,
    deadlines: Deadlines,
    drain: Drain,
    read_buffer: Box<ReadBuffer>,
    accept_trouble: Throttle,
    summary: Summary,
    event_loop: EventLoop,
    signals: Signals,
}

impl<P: Protocol> Server<P> {
    /// Where it listens, with the ports that the kernel chose where 0 was asked for.
    pub fn local_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.iter().flatten().map(Listener::address)
    }

    /// Serves until a SIGINT or SIGTERM and the drain that follows it, or a second signal.
    ///
    /// # Errors
    /// [`Error::System`] when a call fails that the loop cannot do without. No peer can bring that about.
    pub fn run(mut self) -> Result<Summary, Error> {
        let mut events = Events::with_capacity(EVENTS_A_TURN);
        loop {
            self.serve_leftovers()?;
            if self.is_drained() {
                info!(accepted = self.summary.accepted, aborted = self.summary.aborted, "drained");
                return Ok(self.summary);
            }
            let wait = if self.ready.is_empty() { Wait::until(self.deadlines.next()) } else { Wait::Poll };
            self.event_loop.wait(&mut events, wait).map_err(Error::system("wait for events (epoll_wait)"))?;
            for (token, flags) in events.iter() {
                match token.name() {
                    Name::Key(key) => self.on_client_event(key, flags),
                    Name::Fixed(SIGNALS) => self.on_signals()?,
                    Name::Fixed(name) => self.on_listener_event(name)?,
                }
            }
            if self.summary.interrupted_by.is_some() {
                self.cut_off();
                return Ok(self.summary);
            }
            self.keep_deadlines();
        }
    }

    /// Whether a drain has come to its end: nobody can come any more, and all have left.
    fn is_drained(&self) -> bool {
        self.drain.has_begun() && self.clients.is_empty() && self.listeners.iter().all(Option::is_none)
    }

    /// Goes on with those whose last turn was not enough, each once, in the order in which they stand.
    fn serve_leftovers(&mut self) -> Result<(), Error> {
        for _ in 0..self.ready.len() {
            let Some(token) = self.ready.pop_front() else { break };
            match token.name() {
                Name::Key(key) => {
                    if let Some(client) = self.clients.get_mut(key) {
                        client.is_queued = false;
                        self.on_client_event(key, EpollFlags::empty());
                    }
                }
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

    fn on_listener_event(&mut self, name: u32) -> Result<(), Error> {
        match &self.listeners[listener_index(name)] {
            // The edge is not lost: who waits in the ready queue or in a pause accepts until there is nobody left.
            Some(listener) if listener.is_queued || listener.paused_until().is_some() => Ok(()),
            Some(_) => self.accept_from(listener_index(name)),
            None => Ok(()),
        }
    }

    /// Accepts until the queue is empty or the budget of this turn is used up.
    fn accept_from(&mut self, index: usize) -> Result<(), Error> {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(listener) = &mut self.listeners[index] else { return Ok(()) };
            match listener.accept().map_err(Error::system("accept connections (accept4)"))? {
                Accepted::Connection(stream, peer) => {
                    if let Err(error) = self.open(stream, peer) {
                        // It is lost, for nothing can tell of it; those that are still in the queue are not.
                        warn!(%peer, "closed at once, for it cannot be watched (epoll_ctl): {error}");
                        self.pause_listener(index, &error);
                        return Ok(());
                    }
                }
                Accepted::Nothing => {
                    if self.drain.has_begun() {
                        self.listeners[index] = None;
                    }
                    return Ok(());
                }
                Accepted::Failed(error) => debug!("a connection was gone before it was accepted: {error}"),
                Accepted::Exhausted(error) => {
                    self.pause_listener(index, &error);
                    return Ok(());
                }
            }
        }
        self.queue_listener(index);
        Ok(())
    }

    /// Something has run out: lets the kernel keep those that come, until something has come free or the pause is over.
    fn pause_listener(&mut self, index: usize, error: &io::Error) {
        let Some(listener) = &mut self.listeners[index] else { return };
        let now = Instant::now();
        self.deadlines.set(listener.pause(now), listener_token(index));
        if let Some(held_back) = self.accept_trouble.admit(now) {
            warn!(open = self.clients.len(), held_back, "new clients wait to be accepted: {error}{}", error::hint(error));
        }
    }

    /// Takes in a connection.
    fn open(&mut self, stream: OwnedFd, peer: SocketAddr) -> io::Result<()> {
        let key = self.clients.insert(Client {
            connection: Connection::new(stream, self.protocol.open()),
            peer,
            since: Instant::now(),
            is_queued: false,
            is_watched_for_room: false,
        });
        let stream = self.clients[key].connection.stream();
        if let Err(error) = self.event_loop.watch(stream, Token::of_key(key), INTEREST) {
            self.clients.remove(key);
            return Err(error);
        }
        self.summary.accepted += 1;
        debug!(%peer, "opened");
        Ok(())
    }

    /// Tells a connection what has happened to it, and gives it its turn.
    #[inline]
    fn on_client_event(&mut self, key: ClientKey, flags: EpollFlags) {
        // An event of this turn may be for a connection that this turn has closed; its key finds nothing.
        let Some(client) = self.clients.get_mut(key) else { return };
        client.connection.on_event(flags);
        if client.is_queued {
            return; // its turn comes
        }
        match client.connection.advance(&self.protocol, &mut self.read_buffer.0, BYTES_A_TURN) {
            Progress::Waiting => {
                if client.connection.needs_room() && !client.is_watched_for_room {
                    self.watch_for_room(key);
                }
            }
            Progress::More => {
                client.is_queued = true;
                self.ready.push_back(Token::of_key(key));
            }
            Progress::Ended(ending) => self.close(key, &ending),
        }
    }

    /// Asks to be told when there is room to write. Most connections never run out of it, and save themselves a wake-up: a
    /// connection that is watched for it from the start is told so as soon as it is open.
    #[cold]
    fn watch_for_room(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.is_watched_for_room = true;
        let stream = client.connection.stream();
        if let Err(error) = self.event_loop.rewatch(stream, Token::of_key(key), INTEREST | EpollFlags::OUT) {
            self.close(key, &Ending::Failed(error));
        }
    }

    /// Closes a connection that has come to its end.
    fn close(&mut self, key: ClientKey, ending: &Ending) {
        let Some(client) = self.clients.remove(key) else { return };
        match ending {
            Ending::ByPeer => client.log_closed("the peer closed"),
            Ending::InOrder => client.log_closed("closed in order"),
            Ending::Failed(error) => client.log_closed(error),
        }
        drop(client); // close(2): before the listeners ask for its descriptor
        self.resume_listeners();
    }

    /// A descriptor has come free: whoever pauses for want of one need not wait any longer.
    fn resume_listeners(&mut self) {
        for index in 0..self.listeners.len() {
            let Some(listener) = &mut self.listeners[index] else { continue };
            if let Some(until) = listener.paused_until() {
                listener.resume();
                self.deadlines.cancel(until, listener_token(index));
                self.queue_listener(index);
            }
        }
    }

    fn queue_listener(&mut self, index: usize) {
        if let Some(listener) = &mut self.listeners[index]
            && !listener.is_queued
        {
            listener.is_queued = true;
            self.ready.push_back(listener_token(index));
        }
    }

    fn on_signals(&mut self) -> Result<(), Error> {
        while let Some(number) = self.signals.next().map_err(Error::system("read signals (read)"))? {
            let name = signal::name(number);
            if let Some(deadline) = self.drain.on_signal(Instant::now()) {
                info!(open = self.clients.len(), "{name}: draining; a second signal ends at once");
                self.deadlines.set(deadline, Token::fixed(DRAIN));
                // Those that the kernel has accepted for us are served, too. The last of them closes the listener.
                for index in 0..self.listeners.len() {
                    self.queue_listener(index);
                }
            } else {
                warn!(open = self.clients.len(), "{name} again: ending at once");
                self.summary.interrupted_by = Some(number);
            }
        }
        Ok(())
    }

    /// Does what is due.
    fn keep_deadlines(&mut self) {
        if self.deadlines.next().is_none() {
            return; // and save the look at the clock
        }
        let now = Instant::now();
        while let Some(token) = self.deadlines.take_due(now) {
            match token.name::<ClientKey>() {
                Name::Fixed(DRAIN) => self.on_drain_deadline(now),
                Name::Fixed(name) => {
                    let index = listener_index(name);
                    if let Some(listener) = &mut self.listeners[index] {
                        listener.resume();
                        self.queue_listener(index);
                    }
                }
                Name::Key(_) => {}
            }
        }
    }

    fn on_drain_deadline(&mut self, now: Instant) {
        match self.drain.on_deadline(now) {
            Due::CloseAll(until) => {
                info!(open = self.clients.len(), "the drain's time is up: closing those that are left");
                self.listeners.fill_with(|| None);
                self.deadlines.set(until, Token::fixed(DRAIN));
                for (key, client) in &mut self.clients {
                    client.connection.close();
                    if !client.is_queued {
                        client.is_queued = true;
                        self.ready.push_back(Token::of_key(key));
                    }
                }
            }
            Due::CutOff => self.cut_off(),
        }
    }

    /// Closes all that are left, as they are.
    fn cut_off(&mut self) {
        let mut unsent_bytes = 0;
        for (_, client) in self.clients.drain() {
            let pending_bytes = client.connection.pending_bytes();
            client.log_closed("cut off");
            if pending_bytes > 0 {
                unsent_bytes += pending_bytes;
                self.summary.aborted += 1;
            }
        }
        if self.summary.aborted > 0 {
            warn!(connections = self.summary.aborted, unsent_bytes, "cut off before they had taken what they were owed");
        }
    }
}

impl<T> Client<T> {
    fn log_closed(&self, reason: impl std::fmt::Display) {
        debug!(
            peer = %self.peer,
            received_bytes = self.connection.received_bytes(),
            sent_bytes = self.connection.sent_bytes(),
            lasted = ?self.since.elapsed(),
            "closed: {reason}"
        );
    }
}

fn listener_token(index: usize) -> Token {
    Token::fixed(FIRST_LISTENER + u32::try_from(index).expect("fewer listeners than ports"))
}

fn listener_index(name: u32) -> usize {
    (name - FIRST_LISTENER) as usize
}
