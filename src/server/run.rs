//! The loop: resume queued work, wait, dispatch each event, answer, keep time.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::{debug, error, info, warn};

use super::accept::{ACCEPTS_PER_TURN, Acceptor, Arrival};
use super::connection::Host;
use super::connections::Connections;
use super::drain::Drain;
use super::error::Error;
use super::fault::Fault;
use super::handle::HandleEnd;
use super::kernel::{Kernel, Linux};
use super::observer::Watch;
use super::pressure::Pressure;
#[cfg(feature = "proxy")]
use super::proxy::Waiting;
use super::statistics::{Reason, Statistics};
use super::time::Time;
use super::tokens::{self, FIRST_WAITING, HANDLE, PROTOCOL, SIGNALS, listener_index};
use super::turn::{QUEUED_BUDGET_BYTES, TurnBuffers};
use crate::event::{Events, Name, Token, Wait};
use crate::protocol::{Post, Protocol};
use crate::sys::epoll::EpollFlags;
use crate::sys::signal::{self, Signal};

/// Events that one call of epoll_wait(2) may return.
pub(super) const EVENTS_PER_TURN: usize = 256;

/// Descriptors in the epoll set besides listeners and connections: signals, the handle, the protocol's own.
pub(super) const OTHER_DESCRIPTORS: usize = 3;

/// The result of a run of the server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Summary {
    /// Connections that the server closed although that destroyed bytes: [`Reason::Aborted`]. 0 if every connection ended in order. A peer
    /// that the write timeout cut off is counted as [`Reason::WriteStalled`] instead.
    pub aborted: u64,
    /// The number of the second signal, if one ended the server at once.
    pub interrupted_by: Option<i32>,
    /// The statistics of the run.
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
    pub(super) connections: Connections<K::Stream, P::Session>,
    pub(super) acceptor: Acceptor<K::Listener, K::Stream>,
    pub(super) pressure: Pressure,
    pub(super) time: Time,
    pub(super) drain: Drain,
    pub(super) buffers: TurnBuffers,
    /// Requests of the protocol that are not done yet.
    pub(super) post: Post,
    pub(super) statistics: Statistics,
    pub(super) handle_end: HandleEnd,
    pub(super) options: Options,
    /// The reason why the server is about to end, other than a drain.
    pub(super) end: Option<End>,
    pub(super) watch: Option<Box<Watch>>,
    /// Descriptors in the epoll set besides listeners and connections: [`OTHER_DESCRIPTORS`], and connections that wait for their header.
    pub(super) others: usize,
    /// The connections that wait for their header, with the PROXY protocol.
    #[cfg(feature = "proxy")]
    pub(super) proxy: Option<Box<Waiting<K::Stream>>>,
    /// The last field: epoll is closed after everything that it watches.
    pub(super) kernel: K,
}

/// Options that belong to no part of the server.
#[derive(Debug)]
pub(super) struct Options {
    /// [`Limits::outbox_limit`](super::Limits::outbox_limit).
    pub(super) outbox_limit: usize,
    /// [`SocketOptions::reset_on_close`](super::SocketOptions::reset_on_close): each close(2) destroys what the peer has not acknowledged.
    pub(super) resets_on_close: bool,
}

/// The reason why a server ends at once.
#[derive(Debug)]
pub(super) enum End {
    /// A handle has asked for it.
    Stopped,
    /// The protocol cannot go on, for this reason.
    Failed(String),
    /// A second signal, with this number.
    Interrupted(i32),
}

impl<P: Protocol, K: Kernel> Server<P, K> {
    /// Returns the addresses of the listeners, with the ports that the kernel chose where 0 was asked for.
    pub fn local_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.acceptor.addresses()
    }

    /// Returns the statistics up to now.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.statistics.clone();
        self.connections.add_to(&mut statistics);
        statistics.stage = self.drain.stage();
        statistics.proxy_waiting = self.waiting() as u64;
        statistics
    }

    /// Serves until a SIGINT, SIGTERM or SIGHUP and the drain that follows it, or a second signal. At a SIGUSR1 the statistics are emitted as a
    /// `tracing` event at level `INFO`, with the target `edgecho::statistics`.
    ///
    /// # Errors
    /// - [`Error::System`] when a call fails that the loop cannot do without. No peer can bring that about.
    /// - [`Error::Protocol`] when the protocol fails or panics. After a panic all connections are closed at once. If several sessions
    ///   panic when they are dropped, the process aborts, as Rust has it for a panic during a panic.
    pub fn run(mut self) -> Result<Summary, Error> {
        // Once for the whole run: a message pays nothing for it. Nothing of the server is used after a panic, it is only dropped.
        let result = catch_unwind(AssertUnwindSafe(|| self.run_to_end()));
        // Before the protocol is dropped: its Drop may wait for a thread that waits for an answer.
        self.handle_end = HandleEnd::default();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(self)));
        match (result, dropped) {
            (Ok(result), Ok(())) => result,
            (Err(panic), _) | (_, Err(panic)) => Err(Error::panicked(&*panic)),
        }
    }

    fn run_to_end(&mut self) -> Result<Summary, Error> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        self.begin()?;
        loop {
            self.resume_queued()?;
            self.do_requests();
            if self.finish_drain() || self.end.is_some() {
                return self.end();
            }
            let wait = self.wait();
            self.kernel.wait(&mut events, wait).map_err(Error::system("wait for events (epoll_wait)"))?;
            self.time.begin_turn(&self.kernel, events.len());
            for (token, flags) in events.iter() {
                self.dispatch(token, flags)?;
            }
            self.answer_inputs();
            self.keep_time(events.len());
        }
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.time.read(&self.kernel);
        if let Some(source) = self.protocol.background().and_then(|background| background.descriptor()) {
            let watch = Error::system("watch the descriptor of the protocol (epoll_ctl)");
            self.kernel.watch_source(source, Token::fixed(PROTOCOL)).map_err(watch)?;
        }
        self.protocol.start(&mut self.post);
        self.observe();
        Ok(())
    }

    /// Resumes queued connections and listeners, each once, within a shared budget. Epoll is asked for events after that, so that no connection
    /// with little to say waits for more.
    fn resume_queued(&mut self) -> Result<(), Error> {
        if self.connections.ready_len() == 0 {
            return Ok(());
        }
        let start = self.time.begin_queued_work(&self.kernel);
        let mut budget_bytes = QUEUED_BUDGET_BYTES;
        for _ in 0..self.connections.ready_len() {
            if budget_bytes == 0 {
                break;
            }
            let Some(token) = self.connections.pop_ready() else { break };
            match token.name() {
                Name::Key(key) if self.connections.is_queued(key) => budget_bytes = self.resume(key, budget_bytes),
                Name::Key(_) => {} // closed, or it has had its turn
                Name::Fixed(name) => {
                    self.acceptor.unqueue(listener_index(name));
                    self.accept_from(listener_index(name))?;
                }
            }
        }
        self.time.end_queued_work(start, &self.kernel);
        Ok(())
    }

    /// Returns how long the next wait may take.
    #[inline]
    fn wait(&mut self) -> Wait {
        let watched = self.connections.len() + self.acceptor.len() + self.others;
        let has_work = self.connections.ready_len() > 0;
        let (wait, long_turn) = self.time.before_wait(&self.kernel, watched, has_work);
        if let Some(turn) = long_turn {
            self.connections.credit(turn);
        }
        wait
    }

    #[inline]
    fn dispatch(&mut self, token: Token, flags: EpollFlags) -> Result<(), Error> {
        match token.name() {
            Name::Key(key) => self.on_connection_event(key, flags),
            Name::Fixed(SIGNALS) => self.on_signals()?,
            Name::Fixed(PROTOCOL) => self.on_protocol_event(flags),
            Name::Fixed(HANDLE) => self.on_handle()?,
            Name::Fixed(name) if name >= FIRST_WAITING => self.on_waiting_event(name, flags),
            Name::Fixed(name) => self.on_listener_event(listener_index(name))?,
        }
        Ok(())
    }

    /// Counts a turn of `events` events, does what is due now that they have been processed, and lets the observer
    /// see the result.
    #[inline]
    fn keep_time(&mut self, events: usize) {
        let took = self.time.end_turn(&self.kernel, events);
        self.statistics.count_turn(events, took);
        if self.time.after_events(events, EVENTS_PER_TURN) {
            self.do_due();
        }
        if self.watch.is_some() {
            self.observe();
        }
    }

    fn on_protocol_event(&mut self, flags: EpollFlags) {
        if let Some(background) = self.protocol.background() {
            background.on_event(flags, &mut self.post);
        }
        self.do_requests();
    }

    fn on_signals(&mut self) -> Result<(), Error> {
        while let Some(number) = self.kernel.next_signal().map_err(Error::system("read signals (read)"))? {
            let name = signal::name(number);
            if number == Signal::SIGUSR1 as i32 {
                info!(target: "edgecho::statistics", "{}", self.statistics());
            } else if self.drain.is_signalled() {
                warn!(open = self.connections.len(), "{name} again: ending at once");
                self.end_with(End::Interrupted(number));
            } else {
                self.begin_drain(name);
            }
        }
        Ok(())
    }

    fn on_listener_event(&mut self, index: usize) -> Result<(), Error> {
        if self.acceptor.accepts_now(index) { self.accept_from(index) } else { Ok(()) }
    }

    /// Accepts until the backlog is empty, the connection limit is reached, or the listener has had its turn.
    fn accept_from(&mut self, index: usize) -> Result<(), Error> {
        for _ in 0..ACCEPTS_PER_TURN {
            let (open, is_draining) = (self.connections.len() + self.waiting(), self.drain.has_begun());
            let arrival = self.acceptor.accept(index, &mut self.kernel, open, is_draining);
            match arrival.map_err(Error::system("accept connections (accept4)"))? {
                Arrival::Connection(stream, peer) => match self.receive(stream, peer) {
                    Ok(()) => self.acceptor.note_opened(index),
                    Err((stream, error)) => {
                        self.acceptor.keep(index, stream, peer);
                        let fault = Fault::of(&error);
                        self.pause_listener(index, format_args!("epoll cannot watch more (epoll_ctl): {error}: {fault}"));
                        return Ok(());
                    }
                },
                Arrival::OverLimit(peer) => {
                    self.statistics.accepted += 1;
                    self.statistics.count_closed(Reason::Limit);
                    debug!(%peer, "closed at once: its source address is at the connection limit");
                }
                Arrival::Failed(error) => {
                    self.statistics.count_accept_error(&error);
                    debug!("a connection was gone before it was accepted: {error}");
                }
                Arrival::Exhausted(error) => {
                    self.statistics.count_accept_error(&error);
                    self.pause_listener(index, format_args!("{error}: {}", Fault::of(&error)));
                    return Ok(());
                }
                Arrival::Full | Arrival::None => return Ok(()),
            }
        }
        self.queue_listener(index);
        Ok(())
    }

    /// Pauses a listener: clients wait in its backlog until a connection has closed, or the pause is over.
    fn pause_listener(&mut self, index: usize, reason: std::fmt::Arguments<'_>) {
        let (open, is_draining) = (self.connections.len(), self.drain.has_begun());
        if let Some(until) = self.acceptor.pause(index, &mut self.kernel, open, is_draining, reason) {
            self.time.set_deadline(until, tokens::of_listener(index));
        }
    }

    /// Resumes the listeners that are paused: a connection has closed.
    pub(super) fn resume_listeners(&mut self) {
        for index in self.acceptor.in_turn() {
            if self.acceptor.is_paused(index) {
                self.queue_listener(index);
            }
        }
    }

    /// Queues all listeners for the next turn.
    pub(super) fn queue_listeners(&mut self) {
        for index in 0..self.acceptor.len() {
            self.queue_listener(index);
        }
    }

    /// Queues a listener for the next turn. Ends its pause and the deadline of the pause.
    pub(super) fn queue_listener(&mut self, index: usize) {
        let token = tokens::of_listener(index);
        if let Some(until) = self.acceptor.resume(index) {
            self.time.cancel_deadline(until, token);
        }
        if self.acceptor.queue(index) {
            self.connections.queue_listener(token);
        }
    }

    /// Finishes a drain as far as it goes, and returns whether it is over: no client can come any more, all have left, and the protocol has
    /// nothing left to do.
    fn finish_drain(&mut self) -> bool {
        self.drain.has_begun()
            && self.connections.len() == 0
            && self.waiting() == 0
            && self.acceptor.is_closed()
            && (P::ONLY_ANSWERS || self.drain.is_closing() || self.drain.is_over() || self.finish_work())
    }

    fn finish_work(&mut self) -> bool {
        self.protocol.background().is_none_or(|background| background.finish_work())
    }

    /// Ends the server after this turn. A signal takes precedence over a failure, which is then logged; both take precedence over a handle.
    pub(super) fn end_with(&mut self, end: End) {
        // A client that was accepted now would be cut off; the next process can serve it.
        self.acceptor.leave_inherited(&mut self.kernel);
        self.end = Some(match (self.end.take(), end) {
            (Some(End::Failed(reason)), End::Interrupted(number))
            | (Some(End::Interrupted(number)), End::Failed(reason)) => {
                error!("{reason}");
                End::Interrupted(number)
            }
            (Some(earlier), End::Stopped) => earlier,
            (_, end) => end,
        });
    }

    /// Ends a run: connections that are still open are cut off.
    fn end(&mut self) -> Result<Summary, Error> {
        if self.end.is_some() {
            self.drain.end_at_once();
        }
        self.observe();
        self.handle_end = HandleEnd::default(); // the protocol's last calls may wait for a thread that waits for an answer
        self.cut_off();
        self.do_requests(); // of Protocol::close, which may fail the server
        if let Some(Err(reason)) = self.protocol.background().map(|background| background.end())
            && !matches!(self.end, Some(End::Failed(_)))
        {
            self.end_with(End::Failed(reason));
        }
        let statistics = self.statistics();
        let aborted = statistics.closed_for(Reason::Aborted);
        let end = self.end.take();
        if let Some(End::Failed(reason)) = end {
            return Err(Error::Protocol { reason });
        }
        if aborted > 0 {
            warn!(aborted, "connections were cut off before all of their bytes were delivered");
        }
        if end.is_none() {
            info!(accepted = statistics.accepted, aborted, "drained");
        }
        let interrupted_by = if let Some(End::Interrupted(number)) = end { Some(number) } else { None };
        Ok(Summary { aborted, interrupted_by, statistics })
    }
}
