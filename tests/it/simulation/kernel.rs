//! The simulated world, as the server sees it: a kernel, connections, and listeners.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use edgecho::event::{Events, Token, Wait};
use edgecho::server::Kernel;
use edgecho::stream::{Acknowledged, Pipe, Stream};
use edgecho::sys::epoll::EpollFlags;

use super::world::World;

/// The port of the first connection's peer.
const FIRST_PORT: usize = 1_000;

/// The own address of the peer of a connection.
pub fn own_address(number: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], (FIRST_PORT + number) as u16))
}

/// The most connections that a schedule may have: each has a port.
pub const MOST_CONNECTIONS: usize = 64_000;

/// The connection with a peer's address.
pub fn number_of(peer: SocketAddr) -> usize {
    usize::from(peer.port()) - FIRST_PORT
}

/// The kernel under a server.
#[derive(Clone)]
pub struct Scripted(pub Rc<RefCell<World>>);

/// A connection as the server has it.
pub struct Connected {
    world: Rc<RefCell<World>>,
    number: usize,
}

/// A listener as the server has it.
pub struct Listening {
    world: Rc<RefCell<World>>,
    index: usize,
}

impl Drop for Connected {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.world.borrow_mut().drop_connection(self.number);
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.world.borrow_mut().drop_listener(self.index);
        }
    }
}

impl Scripted {
    /// The listeners of these indexes.
    pub fn listeners(&self, indexes: Range<usize>) -> impl Iterator<Item = (Listening, SocketAddr)> + '_ {
        indexes.map(|index| {
            (Listening { world: Rc::clone(&self.0), index }, SocketAddr::from(([127, 0, 0, 1], index as u16 + 1)))
        })
    }
}

impl Stream for Connected {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.world.borrow_mut().recv(self.number, buffer)
    }

    fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.world.borrow_mut().peek(self.number, buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.world.borrow_mut().send(self.number, bytes)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.world.borrow_mut().shutdown(self.number)
    }

    fn splice_into(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        self.world.borrow_mut().splice_into(self.number, pipe, most)
    }

    fn splice_from(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        self.world.borrow_mut().splice_from(self.number, pipe, most)
    }

    fn acknowledged(&self) -> io::Result<Acknowledged> {
        Ok(self.world.borrow_mut().acknowledged(self.number))
    }

    fn unread_bytes(&self) -> io::Result<usize> {
        Ok(self.world.borrow_mut().socket(self.number).unread() as usize)
    }

    fn unacknowledged_bytes(&self) -> io::Result<usize> {
        Ok(self.world.borrow_mut().socket(self.number).unacknowledged() as usize)
    }

    fn take_error(&mut self) -> io::Result<Option<io::Error>> {
        Ok(self.world.borrow_mut().socket(self.number).take_error())
    }
}

impl Kernel for Scripted {
    type Stream = Connected;
    type Listener = Listening;

    fn now(&self) -> Instant {
        self.0.borrow_mut().now()
    }

    fn wait(&mut self, events: &mut Events, wait: Wait) -> io::Result<()> {
        self.0.borrow_mut().wait(events, wait);
        Ok(())
    }

    fn watch(&mut self, stream: &Connected, token: Token, interest: EpollFlags) -> io::Result<()> {
        self.0.borrow_mut().watch(stream.number, token, interest);
        Ok(())
    }

    fn rewatch(&mut self, stream: &Connected, token: Token, interest: EpollFlags) -> io::Result<()> {
        self.watch(stream, token, interest)
    }

    fn accept(&mut self, listener: &Listening) -> io::Result<(Connected, SocketAddr)> {
        let number = self.0.borrow_mut().accept(listener.index)?;
        Ok((Connected { world: Rc::clone(&self.0), number }, own_address(number)))
    }

    fn unwatch(&mut self, listener: &Listening) -> io::Result<()> {
        self.0.borrow_mut().unwatch_listener(listener.index);
        Ok(())
    }

    fn stop_queueing(&mut self, listener: &Listening) -> io::Result<()> {
        self.0.borrow_mut().stop_queueing(listener.index);
        Ok(())
    }

    fn next_signal(&mut self) -> io::Result<Option<i32>> {
        Ok(self.0.borrow_mut().next_signal())
    }
}
