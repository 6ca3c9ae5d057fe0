//! An echo server on mio, with a buffer for pending bytes, after the pattern of mio's own TCP example.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

const LISTENER: Token = Token(0);

struct Connection {
    stream: TcpStream,
    pending: Vec<u8>,
    start: usize,
    is_finished: bool,
}

fn main() -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut listener = TcpListener::bind(std::env::args().nth(1).expect("an address").parse().expect("an address"))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections = HashMap::new();
    let mut next = 1;
    let mut is_waiting = false;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        // Out of descriptors, accept again after a while.
        match poll.poll(&mut events, is_waiting.then_some(Duration::from_millis(50))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        if std::mem::take(&mut is_waiting) {
            is_waiting = accept(&listener, poll.registry(), &mut connections, &mut next)?;
        }
        for event in &events {
            if event.token() == LISTENER {
                is_waiting = accept(&listener, poll.registry(), &mut connections, &mut next)?;
            } else if let Some(connection) = connections.get_mut(&event.token())
                && !connection.advance(&mut buffer)
            {
                connections.remove(&event.token());
            }
        }
    }
}

/// Accepts all waiting connections. Returns whether to accept again later without an event.
fn accept(
    listener: &TcpListener,
    registry: &Registry,
    connections: &mut HashMap<Token, Connection>,
    next: &mut usize,
) -> std::io::Result<bool> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nodelay(true)?;
                let token = Token(*next);
                *next += 1;
                registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                connections.insert(token, Connection { stream, pending: Vec::new(), start: 0, is_finished: false });
            }
            Err(error) => return Ok(error.kind() != ErrorKind::WouldBlock),
        }
    }
}

impl Connection {
    /// Reads and writes until both would block. Returns whether the connection stays open.
    fn advance(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            while self.start < self.pending.len() {
                match self.stream.write(&self.pending[self.start..]) {
                    Ok(count) => self.start += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return false,
                }
            }
            self.pending.clear();
            self.start = 0;
            if self.is_finished {
                return false;
            }
            match self.stream.read(buffer) {
                Ok(0) => self.is_finished = true,
                Ok(count) => match self.stream.write(&buffer[..count]) {
                    Ok(written) => self.pending.extend_from_slice(&buffer[written..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.pending.extend_from_slice(&buffer[..count]),
                    Err(_) => return false,
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}
