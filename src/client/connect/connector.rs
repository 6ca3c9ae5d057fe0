//! An outgoing connection, from connect(2) to the proof that the far end is an echo service.

use std::io;
use std::time::{Duration, Instant};

use super::error::ConnectError;
use super::handshake::{HANDSHAKE_BYTES, Handshake};
use super::proxy::ProxyHeader;
use super::service::not_echo;
use super::state::{State, Timeouts};
use crate::stream::{Connecting, Readiness};
use crate::sys::epoll::EpollFlags;

/// The events to watch a connector's stream for, and later the connection. A read stops in front of an urgent byte (tcp(7)); without
/// `PRI` its short count would look like an empty socket, and no event would report the bytes behind it.
pub const INTEREST: EpollFlags = EpollFlags::IN.union(EpollFlags::OUT).union(EpollFlags::RDHUP).union(EpollFlags::PRI);

/// The result of an event.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step {
    /// Nothing to do until the next event.
    Waiting,
    /// The connection can be used.
    Connected,
    /// Connecting has failed.
    Failed(ConnectError),
}

/// A connection in progress. Without a [`Handshake`] it is connected as soon as the far end has accepted.
///
/// ```
/// use std::net::TcpListener;
/// use std::os::fd::AsFd;
/// use std::time::Instant;
///
/// use edgecho::client::{Connector, INTEREST, Step, Timeouts};
/// use edgecho::event::{EventLoop, Events, Token, Wait};
/// use edgecho::sys::socket::{self, Domain, SocketFlags};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let stream = socket::socket(Domain::from(&address), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
/// let _ = socket::connect(stream.as_fd(), &address); // EINPROGRESS: an event reports the result
///
/// let event_loop = EventLoop::new()?;
/// event_loop.watch(&stream, Token::fixed(1), INTEREST)?;
/// let mut connector = Connector::new(stream, None, Timeouts::default(), Instant::now());
/// let mut events = Events::with_capacity(1);
/// event_loop.wait(&mut events, Wait::Until(connector.deadline()))?;
/// for (_, flags) in events.iter() {
///     assert!(matches!(connector.on_event(flags, Instant::now()), Step::Connected));
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Connector<S> {
    stream: S,
    state: State,
    timeouts: Timeouts,
    handshake: Option<Handshake>,
    /// The PROXY header and the handshake behind it; empty if there is no header.
    opening: Vec<u8>,
    header_bytes: usize,
    /// The number of bytes of the opening that were sent, or of the handshake that came back, in the present state.
    done_bytes: usize,
    started_at: Instant,
    entered_at: Instant,
    connect_time: Duration,
    readiness: Readiness,
}

impl<S: Connecting> Connector<S> {
    /// Begins with a non-blocking stream on which connect(2) was called.
    pub fn new(stream: S, handshake: Option<Handshake>, timeouts: Timeouts, now: Instant) -> Self {
        Self {
            stream,
            state: State::Initiated,
            timeouts,
            handshake,
            opening: Vec::new(),
            header_bytes: 0,
            done_bytes: 0,
            started_at: now,
            entered_at: now,
            connect_time: Duration::ZERO,
            readiness: Readiness::empty(),
        }
    }

    /// Sends a PROXY header first. It goes out in one write with the handshake, or in a write of its own as soon as connect(2) has
    /// succeeded, so that it is no part of the first message and of its time.
    #[must_use]
    pub fn with_header(mut self, header: &ProxyHeader) -> Self {
        let handshake = self.handshake.iter().flat_map(Handshake::bytes);
        self.opening = header.bytes().iter().chain(handshake).copied().collect();
        self.header_bytes = header.bytes().len();
        self
    }

    /// Returns the size of the PROXY header; 0 if there is none.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// Returns the present state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns the time that connect(2) took: the round trip of the TCP handshake.
    #[must_use]
    pub fn connect_time(&self) -> Duration {
        self.connect_time
    }

    /// Returns the stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Returns when the present state exceeds its timeout.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let timeout = if self.state == State::Initiated { self.timeouts.connect } else { self.timeouts.handshake };
        self.entered_at + timeout
    }

    /// Returns the error for a deadline that has passed.
    #[must_use]
    pub fn time_out(&self) -> ConnectError {
        let after = self.entered_at.max(self.deadline()) - self.entered_at;
        ConnectError::TimedOut { state: self.state, after, returned_bytes: self.done_bytes }
    }

    /// Returns the stream and its readiness: epoll does not report again what it has reported already.
    pub fn into_stream(self) -> (S, Readiness) {
        (self.stream, self.readiness)
    }

    /// Continues after an event.
    pub fn on_event(&mut self, flags: EpollFlags, now: Instant) -> Step {
        self.readiness.tell(flags);
        match self.advance(now) {
            Ok(()) if self.state == State::Connected => Step::Connected,
            Ok(()) => Step::Waiting,
            Err(error) => Step::Failed(error),
        }
    }

    fn advance(&mut self, now: Instant) -> Result<(), ConnectError> {
        if self.state == State::Initiated {
            if !self.readiness.contains(Readiness::WRITABLE) {
                return Ok(());
            }
            self.stream.outcome().map_err(|error| self.failed(error, now))?;
            self.connect_time = now - self.started_at;
            let is_silent = self.handshake.is_none() && self.header_bytes == 0;
            self.enter(if is_silent { State::Connected } else { State::SentHandshake }, now);
        }
        let handshake = self.handshake;
        let handshake = handshake.as_ref().map(Handshake::bytes);
        if self.state == State::SentHandshake {
            let opening = handshake.map_or(&self.opening[..], |handshake| match self.header_bytes {
                0 => handshake,
                _ => &self.opening,
            });
            let opening_bytes = opening.len();
            if self.readiness.contains(Readiness::WRITABLE) {
                let sent = self.readiness.offer(&mut self.stream, &opening[self.done_bytes..]);
                self.done_bytes += sent.map_err(|error| self.failed(error, now))?;
            }
            if self.done_bytes < opening_bytes {
                // A service that greets is recognised even if the handshake finds no room.
                return handshake.map_or(Ok(()), |handshake| self.receive(handshake, 0, now));
            }
            self.enter(if handshake.is_some() { State::AwaitingAck } else { State::Connected }, now);
        }
        handshake.map_or(Ok(()), |handshake| self.receive(handshake, HANDSHAKE_BYTES, now))
    }

    /// Reads until the socket is empty or the handshake is complete. `sent_bytes` of it were sent.
    fn receive(&mut self, handshake: &[u8], sent_bytes: usize, now: Instant) -> Result<(), ConnectError> {
        let mut buffer = [0; 256];
        while self.state != State::Connected && self.readiness.contains(Readiness::READABLE) {
            let returned = if self.state == State::AwaitingAck { self.done_bytes } else { 0 };
            let received = self.readiness.note_received(self.stream.recv(&mut buffer), buffer.len());
            match received.map_err(|error| self.failed(error, now))? {
                Some(0) => return Err(ConnectError::Closed { state: self.state, returned_bytes: returned }),
                Some(count) => {
                    if !handshake[returned..sent_bytes].starts_with(&buffer[..count]) {
                        if self.is_echoed_header(&handshake[..returned], &buffer[..count]) {
                            return Err(ConnectError::ProxyEchoed);
                        }
                        return Err(not_echo(&handshake[returned..sent_bytes], &buffer[..count]));
                    }
                    self.done_bytes += count;
                    if self.done_bytes == HANDSHAKE_BYTES {
                        self.enter(State::Connected, now);
                    }
                }
                None => {} // EAGAIN, or a signal
            }
        }
        Ok(())
    }

    /// Returns whether what has come, in two parts, is the PROXY header or its beginning. The first part may be the beginning of the
    /// handshake, too.
    fn is_echoed_header(&self, first: &[u8], rest: &[u8]) -> bool {
        let header = &self.opening[..self.header_bytes];
        !header.is_empty() && header.iter().zip(first.iter().chain(rest)).all(|(sent, received)| sent == received)
    }

    fn failed(&self, error: io::Error, now: Instant) -> ConnectError {
        ConnectError::of(error, self.state, now - self.entered_at)
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.done_bytes = 0;
        self.entered_at = now;
    }
}

#[cfg(test)]
mod tests;
