//! An outgoing connection, from connect(2) to the proof that the far end is an echo service.

use std::io;
use std::time::{Duration, Instant};

use super::error::ConnectError;
use super::handshake::{HANDSHAKE_BYTES, Handshake};
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
    /// The number of bytes of the handshake that were sent, or that came back, in the present state.
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
            done_bytes: 0,
            started_at: now,
            entered_at: now,
            connect_time: Duration::ZERO,
            readiness: Readiness::empty(),
        }
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
            self.enter(if self.handshake.is_some() { State::SentHandshake } else { State::Connected }, now);
        }
        let Some(handshake) = self.handshake else { return Ok(()) };
        let handshake = handshake.bytes();
        if self.state == State::SentHandshake {
            if self.readiness.contains(Readiness::WRITABLE) {
                let sent = self.readiness.offer(&mut self.stream, &handshake[self.done_bytes..]);
                self.done_bytes += sent.map_err(|error| self.failed(error, now))?;
            }
            if self.done_bytes < HANDSHAKE_BYTES {
                // A service that greets is recognised even if the handshake finds no room.
                return self.receive(handshake, 0, now);
            }
            self.enter(State::AwaitingAck, now);
        }
        self.receive(handshake, HANDSHAKE_BYTES, now)
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
mod tests {
    use super::*;
    use crate::client::bytes::Framing;
    use crate::stream::Stream;
    use std::collections::VecDeque;

    /// A stream on which each call returns the next scripted result.
    #[derive(Default)]
    struct Script {
        outcome: Option<i32>,
        sends: VecDeque<Result<usize, i32>>,
        recvs: VecDeque<Result<Vec<u8>, i32>>,
        sent: Vec<u8>,
    }

    impl Stream for Script {
        fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = self.recvs.pop_front().unwrap_or(Err(libc::EAGAIN)).map_err(io::Error::from_raw_os_error)?;
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }

        fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.sends.pop_front().unwrap_or(Ok(bytes.len())).map_err(io::Error::from_raw_os_error)?;
            self.sent.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn shutdown_write(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Connecting for Script {
        fn outcome(&mut self) -> io::Result<()> {
            self.outcome.map_or(Ok(()), |number| Err(io::Error::from_raw_os_error(number)))
        }
    }

    fn handshake() -> Handshake {
        Handshake::new(&mut fastrand::Rng::with_seed(1), Framing::Bytes)
    }

    fn connector(script: Script) -> Connector<Script> {
        Connector::new(script, Some(handshake()), Timeouts::default(), Instant::now())
    }

    fn failure(step: Step) -> String {
        match step {
            Step::Failed(error) => error.to_string(),
            step => panic!("{step:?}"),
        }
    }

    #[test]
    fn it_goes_through_its_states_one_by_one_whatever_the_kernel_cuts() {
        let bytes = *handshake().bytes();
        let mut script = Script::default();
        script.sends.extend([Err(libc::EAGAIN), Ok(3), Err(libc::EINTR), Ok(13)]);
        let mut connector = connector(script);
        let now = Instant::now();
        assert!(matches!(connector.on_event(EpollFlags::IN, now), Step::Waiting));
        assert_eq!(connector.state(), State::Initiated);
        for _ in 0..3 {
            assert!(matches!(connector.on_event(EpollFlags::OUT, now), Step::Waiting));
            assert_eq!(connector.state(), State::SentHandshake);
        }
        assert!(matches!(connector.on_event(EpollFlags::OUT, now), Step::Waiting));
        assert_eq!(connector.state(), State::AwaitingAck);
        assert_eq!(connector.stream.sent, bytes);
        connector.stream.recvs.extend([Ok(bytes[..1].to_vec()), Err(libc::EINTR), Ok(bytes[1..9].to_vec())]);
        assert!(matches!(connector.on_event(EpollFlags::IN, now), Step::Waiting));
        connector.stream.recvs.push_back(Ok(bytes[9..].to_vec()));
        assert!(matches!(connector.on_event(EpollFlags::IN | EpollFlags::RDHUP, now), Step::Connected));
        assert!(
            connector.into_stream().1.contains(Readiness::FIN | Readiness::READABLE),
            "the FIN that came with it is remembered"
        );
    }

    #[test]
    fn without_a_handshake_it_is_connected_when_the_far_end_has_accepted() {
        let mut connector = Connector::new(Script::default(), None, Timeouts::default(), Instant::now());
        let now = Instant::now();
        assert!(matches!(connector.on_event(EpollFlags::OUT, now), Step::Connected));
        assert!(connector.stream.sent.is_empty());
    }

    #[test]
    fn each_way_to_fail_has_its_own_message() {
        let of_connect = |number| {
            let mut connector = connector(Script { outcome: Some(number), ..Script::default() });
            failure(connector.on_event(EpollFlags::OUT | EpollFlags::ERR | EpollFlags::HUP, Instant::now()))
        };
        assert!(of_connect(libc::ECONNREFUSED).starts_with("connection refused"));
        assert!(of_connect(libc::EHOSTUNREACH).starts_with("host unreachable"));
        assert!(of_connect(libc::ENETUNREACH).starts_with("host unreachable"));
        assert!(of_connect(libc::ETIMEDOUT).starts_with("connection timed out"));
        assert!(of_connect(libc::ECONNRESET).starts_with("connection reset"));
        let of_answer = |answer: Result<Vec<u8>, i32>| {
            let mut script = Script::default();
            script.recvs.push_back(answer);
            failure(connector(script).on_event(EpollFlags::IN | EpollFlags::OUT, Instant::now()))
        };
        assert!(of_answer(Err(libc::ECONNRESET)).contains("reset by the peer"));
        assert!(of_answer(Ok(vec![])).contains("closed the connection without returning anything"));
        assert!(of_answer(Ok(b"HTTP/1.1 400 Bad Request\r\n".to_vec())).contains("an HTTP server"));
        assert!(of_answer(Ok(b"220 mail.example ESMTP\r\n".to_vec())).contains("SMTP"));
        assert!(of_answer(Ok(b"who are you?".to_vec())).contains("\"who are you?\""));
        let mut changed = handshake().bytes().to_vec();
        changed[5] ^= 0x20;
        assert!(of_answer(Ok(changed)).contains("byte 5 of the handshake"));
        let mut longer = handshake().bytes().to_vec();
        longer.push(b'!');
        assert!(of_answer(Ok(longer)).contains("not an echo service"));
    }

    #[test]
    fn a_greeting_is_named_even_when_our_bytes_find_no_room() {
        let mut script = Script::default();
        script.sends.push_back(Err(libc::EAGAIN));
        script.recvs.push_back(Ok(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()));
        assert!(failure(connector(script).on_event(EpollFlags::IN | EpollFlags::OUT, Instant::now())).contains("SSH"));
    }

    #[test]
    fn each_state_has_its_deadline() {
        let start = Instant::now();
        let timeouts = Timeouts { connect: Duration::from_secs(1), handshake: Duration::from_secs(5) };
        let mut connector = Connector::new(Script::default(), Some(handshake()), timeouts, start);
        assert_eq!(connector.deadline(), start + Duration::from_secs(1));
        assert!(connector.time_out().to_string().starts_with("connection timed out: no answer within 1s"));
        let later = start + Duration::from_millis(500);
        assert!(matches!(connector.on_event(EpollFlags::OUT, later), Step::Waiting));
        assert_eq!(connector.connect_time(), Duration::from_millis(500));
        assert_eq!(connector.deadline(), later + Duration::from_secs(5));
        assert!(connector.time_out().to_string().contains("returned nothing of the handshake within 5s"));
    }
}
