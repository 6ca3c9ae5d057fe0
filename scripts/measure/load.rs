//! Load from one thread: round trips, and streams with a ping beside them. On the crate's own event loop.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use edgecho::event::{EventLoop, Events, Name, Token, Wait};
use edgecho::sys::epoll::EpollFlags;
use edgecho::sys::socket::{self, MessageFlags};

use crate::support::PATIENCE;
use crate::support::client::pattern;

const EVENTS_A_TURN: usize = 256;

fn connect(address: SocketAddr, event_loop: &EventLoop, index: usize, interest: EpollFlags) -> io::Result<OwnedFd> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    event_loop.watch(&stream, Token::fixed(index as u32), interest)?;
    Ok(stream.into())
}

/// The index under which a connection is watched. All of them are fixed names.
fn index(token: Token) -> usize {
    match token.name::<slotmap::DefaultKey>() {
        Name::Fixed(index) => index as usize,
        Name::Key(_) => unreachable!("no keys are used here"),
    }
}

/// Takes what is there; 0 when nothing is. A FIN is an error: no server here has a reason for one.
fn receive(stream: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    match socket::recv(stream.as_fd(), buffer, MessageFlags::empty()) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        result => result,
    }
}

fn send(stream: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    match socket::send(stream.as_fd(), bytes, MessageFlags::NOSIGNAL) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        result => result,
    }
}

/// Connections of which each sends a message when the one before has come back.
pub struct RoundTrips {
    event_loop: EventLoop,
    events: Events,
    streams: Vec<OwnedFd>,
    received: Vec<usize>,
    message: Vec<u8>,
    buffer: Vec<u8>,
}

impl RoundTrips {
    /// Connects, and has each connection send its first message.
    pub fn start(address: SocketAddr, connections: usize, message_bytes: usize) -> io::Result<Self> {
        let event_loop = EventLoop::new()?;
        let mut streams = Vec::new();
        for index in 0..connections {
            streams.push(connect(address, &event_loop, index, EpollFlags::IN)?);
        }
        let message = pattern(64, message_bytes);
        for stream in &streams {
            assert_eq!(send(stream, &message)?, message_bytes, "an empty send buffer takes a message");
        }
        let events = Events::with_capacity(EVENTS_A_TURN);
        let (received, buffer) = (vec![0; connections], vec![0; message_bytes]);
        Ok(Self { event_loop, events, streams, received, message, buffer })
    }

    /// Goes on until `enough` says so, which is asked once a turn with the number of messages that have come back. Every byte
    /// is compared. Gives that number.
    pub fn run(&mut self, mut enough: impl FnMut(u64) -> bool) -> io::Result<u64> {
        let mut messages = 0;
        while !enough(messages) {
            self.event_loop.wait(&mut self.events, Wait::Until(Instant::now() + PATIENCE))?;
            for (token, _) in self.events.iter() {
                let index = index(token);
                let (stream, done) = (&self.streams[index], &mut self.received[index]);
                let count = receive(stream, &mut self.buffer[*done..])?;
                assert_eq!(self.buffer[*done..*done + count], self.message[*done..*done + count], "a byte is wrong");
                *done += count;
                if *done == self.message.len() {
                    *done = 0;
                    messages += 1;
                    assert_eq!(send(stream, &self.message)?, self.message.len(), "an empty send buffer takes a message");
                }
            }
        }
        Ok(messages)
    }

    /// Goes on for a time.
    pub fn run_for(&mut self, duration: Duration) -> io::Result<u64> {
        let end = Instant::now() + duration;
        self.run(|_| Instant::now() >= end)
    }
}

/// Connections that send and take as fast as they can, and one more that pings beside them.
pub struct Streams {
    event_loop: EventLoop,
    events: Events,
    streams: Vec<OwnedFd>,
    chunk: Vec<u8>,
    buffer: Vec<u8>,
    ping_sent_at: Instant,
}

const PING: &[u8] = b"ping";

impl Streams {
    /// Connects `connections` streams, and the ping.
    pub fn start(address: SocketAddr, connections: usize) -> io::Result<Self> {
        let event_loop = EventLoop::new()?;
        let mut streams = Vec::new();
        for index in 0..connections {
            streams.push(connect(address, &event_loop, index, EpollFlags::IN | EpollFlags::OUT)?);
        }
        streams.push(connect(address, &event_loop, connections, EpollFlags::IN)?);
        let events = Events::with_capacity(EVENTS_A_TURN);
        let (chunk, buffer) = (pattern(1, 64 * 1024), vec![0; 64 * 1024]);
        Ok(Self { event_loop, events, streams, chunk, buffer, ping_sent_at: Instant::now() })
    }

    /// Streams for a time. With `pings`, a ping is under way at any time, and how long each took is added. Gives how many bytes
    /// have come back.
    ///
    /// Each stream takes and sends one chunk a turn, so that the driver's own turns stay short: a ping is to wait for the server.
    pub fn run_for(&mut self, duration: Duration, mut pings: Option<&mut Vec<Duration>>) -> io::Result<u64> {
        let end = Instant::now() + duration;
        let (streams, pinger) = (&self.streams, self.streams.len() - 1);
        let mut ready = vec![(true, true); pinger];
        let mut bytes = 0;
        if pings.is_some() {
            self.ping_sent_at = Instant::now();
            send(&streams[pinger], PING)?;
        }
        while Instant::now() < end {
            let is_anybody_ready = ready.iter().any(|&(can_read, can_write)| can_read || can_write);
            let wait = if is_anybody_ready { Wait::Poll } else { Wait::Until(end) };
            self.event_loop.wait(&mut self.events, wait)?;
            for (token, flags) in self.events.iter() {
                let index = index(token);
                if index < pinger {
                    ready[index].0 |= flags.contains(EpollFlags::IN);
                    ready[index].1 |= flags.contains(EpollFlags::OUT);
                } else if receive(&streams[pinger], &mut self.buffer)? > 0
                    && let Some(pings) = &mut pings
                {
                    pings.push(self.ping_sent_at.elapsed());
                    self.ping_sent_at = Instant::now();
                    send(&streams[pinger], PING)?;
                }
            }
            for (stream, (can_read, can_write)) in streams.iter().zip(&mut ready) {
                if *can_read {
                    let count = receive(stream, &mut self.buffer)?;
                    *can_read = count == self.buffer.len();
                    bytes += count as u64;
                }
                if *can_write {
                    *can_write = send(stream, &self.chunk)? == self.chunk.len();
                }
            }
        }
        Ok(bytes)
    }
}
