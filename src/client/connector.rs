//! An outgoing connection, from connect(2) to the proof that the far end is an echo service.

use std::io;
use std::time::{Duration, Instant};

use super::connect_error::{ConnectError, not_echo};
use super::wire::Framing;
use crate::stream::Connecting;
use crate::sys::epoll::EpollFlags;

/// How many bytes a handshake has.
pub const HANDSHAKE_BYTES: usize = 16;

/// What a connector's stream is to be watched for, by whatever comes after it, too.
pub const INTEREST: EpollFlags = EpollFlags::IN.union(EpollFlags::OUT).union(EpollFlags::RDHUP);

/// Bytes that an echo service returns unchanged, and nobody else knows: 14 at random, and a line end, so that a service that waits
/// for a whole line, such as HTTP, answers at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake([u8; HANDSHAKE_BYTES]);

impl Handshake {
    /// A new one. For a far end that takes frames it is one: of its 16 bytes, 4 are the length of the others.
    #[must_use]
    pub fn new(random: &mut fastrand::Rng, framing: Framing) -> Self {
        let mut bytes = [0; HANDSHAKE_BYTES];
        random.fill(&mut bytes);
        match framing {
            Framing::Bytes | Framing::Line => bytes[HANDSHAKE_BYTES - 2..].copy_from_slice(b"\r\n"),
            Framing::Frame => bytes[..4].copy_from_slice(&(HANDSHAKE_BYTES as u32 - 4).to_be_bytes()),
        }
        Self(bytes)
    }
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// connect(2) is under way.
    Initiated,
    /// The far end has accepted, and the handshake is being sent: the kernel has not taken all of it yet.
    SentHandshake,
    /// The handshake is out, and has not all come back.
    AwaitingAck,
    /// It can be used.
    Connected,
}

/// How long each state may last.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// [`State::Initiated`].
    pub connect: Duration,
    /// [`State::SentHandshake`] and [`State::AwaitingAck`], each.
    pub handshake: Duration,
}

impl Default for Timeouts {
    /// 3 seconds each.
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), handshake: Duration::from_secs(3) }
    }
}

/// What became of an event.
#[derive(Debug)]
pub enum Step {
    /// There is nothing to do until the next.
    Waiting,
    /// The connection can be used.
    Connected,
    /// It cannot.
    Failed(ConnectError),
}

/// A connection on its way. Without a [`Handshake`], it is at its end when the far end has accepted.
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
/// let _ = socket::connect(stream.as_fd(), &address); // EINPROGRESS: what becomes of it, an event tells
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
    /// How many bytes of the handshake have been sent, or have come back, in the present state.
    done_bytes: usize,
    started_at: Instant,
    entered_at: Instant,
    connect_time: Duration,
    told: EpollFlags,
}

impl<S: Connecting> Connector<S> {
    /// Begins with a stream for which connect(2) has been called, without blocking.
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
            told: EpollFlags::empty(),
        }
    }

    /// How far it has come.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// How long connect(2) took: the round trip of the TCP handshake.
    #[must_use]
    pub fn connect_time(&self) -> Duration {
        self.connect_time
    }

    /// The stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// When the present state has lasted too long.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let timeout = if self.state == State::Initiated { self.timeouts.connect } else { self.timeouts.handshake };
        self.entered_at + timeout
    }

    /// Why it has failed when the deadline has passed.
    #[must_use]
    pub fn time_out(&self) -> ConnectError {
        let after = self.entered_at.max(self.deadline()) - self.entered_at;
        ConnectError::TimedOut { state: self.state, after, returned_bytes: self.done_bytes }
    }

    /// The stream, and whether the far end has already ended it: what is still to be read, epoll will not tell again.
    pub fn into_stream(self) -> (S, bool) {
        (self.stream, self.told.intersects(EpollFlags::RDHUP | EpollFlags::HUP | EpollFlags::ERR))
    }

    /// Goes on as far as it can, now that epoll has told of `flags`.
    pub fn on_event(&mut self, flags: EpollFlags, now: Instant) -> Step {
        self.told |= flags;
        match self.advance(flags, now) {
            Ok(()) if self.state == State::Connected => Step::Connected,
            Ok(()) => Step::Waiting,
            Err(error) => Step::Failed(error),
        }
    }

    fn advance(&mut self, flags: EpollFlags, now: Instant) -> Result<(), ConnectError> {
        if self.state == State::Initiated {
            if !flags.intersects(EpollFlags::OUT | EpollFlags::ERR | EpollFlags::HUP) {
                return Ok(());
            }
            self.stream.outcome().map_err(|error| ConnectError::of(error, self.state, now - self.entered_at))?;
            self.connect_time = now - self.started_at;
            self.enter(if self.handshake.is_some() { State::SentHandshake } else { State::Connected }, now);
        }
        let Some(Handshake(handshake)) = self.handshake else { return Ok(()) };
        if self.state == State::SentHandshake {
            // Who greets shows what it is, and needs no handshake to be told from an echo service.
            self.done_bytes += self.offer(&handshake, now)?;
            if self.done_bytes < HANDSHAKE_BYTES {
                return self.receive(&handshake, 0, now);
            }
            self.enter(State::AwaitingAck, now);
        }
        self.receive(&handshake, HANDSHAKE_BYTES, now)
    }

    fn offer(&mut self, handshake: &[u8], now: Instant) -> Result<usize, ConnectError> {
        match self.stream.send(&handshake[self.done_bytes..]) {
            Ok(count) => Ok(count),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(ConnectError::of(error, self.state, now - self.entered_at)),
        }
    }

    /// Reads until there is nothing left, or all has come back, of `sent_bytes` that were sent.
    fn receive(&mut self, handshake: &[u8], sent_bytes: usize, now: Instant) -> Result<(), ConnectError> {
        let mut buffer = [0; 256];
        while self.state != State::Connected {
            let returned = if self.state == State::AwaitingAck { self.done_bytes } else { 0 };
            match self.stream.recv(&mut buffer) {
                Ok(0) => return Err(ConnectError::Closed { state: self.state, returned_bytes: returned }),
                Ok(count) => {
                    if !handshake[returned..sent_bytes].starts_with(&buffer[..count]) {
                        return Err(not_echo(&handshake[returned..sent_bytes], &buffer[..count]));
                    }
                    self.done_bytes += count;
                    if self.done_bytes == HANDSHAKE_BYTES {
                        self.enter(State::Connected, now);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(ConnectError::of(error, self.state, now - self.entered_at)),
                },
            }
        }
        Ok(())
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
    use crate::stream::Stream;
    use std::collections::VecDeque;

    /// A stream of which each call does what the next entry says.
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
        let bytes = handshake().0;
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
        assert!(connector.into_stream().1, "the FIN that came with it is not forgotten");
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
        let mut changed = handshake().0.to_vec();
        changed[5] ^= 0x20;
        assert!(of_answer(Ok(changed)).contains("byte 5 of the handshake"));
        let mut longer = handshake().0.to_vec();
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
