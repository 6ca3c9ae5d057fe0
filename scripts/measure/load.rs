//! Load from one thread, on the crate's own event loop: round trips, or streams with a ping at the same time.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use edgecho::client::{ProxyHeader, ProxyVersion};
use edgecho::event::{EventLoop, Events, Name, Token, Wait};
use edgecho::sys::epoll::EpollFlags;
use edgecho::sys::socket::{self, MessageFlags};

use crate::support::PATIENCE;
use crate::support::client::pattern;

const EVENTS_PER_TURN: usize = 256;

/// Connects, and sends a PROXY header if one is wanted.
pub fn open(address: SocketAddr, header: Option<ProxyVersion>) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    if let Some(version) = header {
        stream.write_all(ProxyHeader::new(version, stream.local_addr()?, address).bytes())?;
    }
    Ok(stream)
}

fn connect(
    address: SocketAddr,
    header: Option<ProxyVersion>,
    event_loop: &EventLoop,
    index: usize,
    interest: EpollFlags,
) -> io::Result<OwnedFd> {
    let stream = open(address, header)?;
    stream.set_nonblocking(true)?;
    event_loop.watch(&stream, Token::fixed(index as u32), interest)?;
    Ok(stream.into())
}

/// Returns the index of a connection. All tokens here are fixed names.
fn index(token: Token) -> usize {
    match token.name::<slotmap::DefaultKey>() {
        Name::Fixed(index) => index as usize,
        Name::Key(_) => unreachable!("no keys are used here"),
    }
}

/// Receives available bytes, and returns 0 if there are none. A FIN is an error, because no server here should send one.
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

/// Connections that each send a message as soon as the previous one has come back.
pub struct RoundTrips {
    event_loop: EventLoop,
    events: Events,
    streams: Vec<OwnedFd>,
    received: Vec<usize>,
    message: Vec<u8>,
    buffer: Vec<u8>,
}

impl RoundTrips {
    /// Connects, and sends the first message on each connection.
    pub fn start(address: SocketAddr, connections: usize, message_bytes: usize) -> io::Result<Self> {
        Self::start_with(address, connections, message_bytes, None)
    }

    /// Does the same as [`start`](Self::start), with a PROXY header at the beginning of each connection.
    pub fn start_with(
        address: SocketAddr,
        connections: usize,
        message_bytes: usize,
        header: Option<ProxyVersion>,
    ) -> io::Result<Self> {
        let event_loop = EventLoop::new()?;
        let mut streams = Vec::new();
        for index in 0..connections {
            streams.push(connect(address, header, &event_loop, index, EpollFlags::IN)?);
        }
        let message = pattern(64, message_bytes);
        for stream in &streams {
            assert_eq!(send(stream, &message)?, message_bytes, "an empty send buffer takes a message");
        }
        let events = Events::with_capacity(EVENTS_PER_TURN);
        let (received, buffer) = (vec![0; connections], vec![0; message_bytes]);
        Ok(Self { event_loop, events, streams, received, message, buffer })
    }

    /// Runs until `enough`, called once per turn with the number of returned messages, returns `true`. Compares every byte. Returns the number
    /// of returned messages.
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

    /// Runs for `duration`, and returns the number of returned messages.
    pub fn run_for(&mut self, duration: Duration) -> io::Result<u64> {
        let end = Instant::now() + duration;
        self.run(|_| Instant::now() >= end)
    }
}

/// Connections that send and receive as fast as they can, and one more that pings.
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
    /// Connects `connections` streams and the pinging connection.
    pub fn start(address: SocketAddr, connections: usize) -> io::Result<Self> {
        let event_loop = EventLoop::new()?;
        let mut streams = Vec::new();
        for index in 0..connections {
            streams.push(connect(address, None, &event_loop, index, EpollFlags::IN | EpollFlags::OUT)?);
        }
        streams.push(connect(address, None, &event_loop, connections, EpollFlags::IN)?);
        let events = Events::with_capacity(EVENTS_PER_TURN);
        let (chunk, buffer) = (pattern(1, 64 * 1024), vec![0; 64 * 1024]);
        Ok(Self { event_loop, events, streams, chunk, buffer, ping_sent_at: Instant::now() })
    }

    /// Streams for `duration`, and returns the number of returned bytes. With `pings`, one ping is always in flight, and the round-trip time of
    /// each is appended.
    ///
    /// Each stream receives and sends one chunk per turn. This keeps the driver's own turns short, so that a ping waits for the server only.
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
            let is_any_ready = ready.iter().any(|&(can_read, can_write)| can_read || can_write);
            let wait = if is_any_ready { Wait::Poll } else { Wait::Until(end) };
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
