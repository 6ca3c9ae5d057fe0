//! The system under a server, as a trait, so that a test can drive the whole server with a scripted one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::config::SocketOptions;
use super::error::Error;
use super::socket_options;
use crate::event::{EventLoop, Events, Signals, Token, Wait};
use crate::stream::Stream;
use crate::sys::epoll::EpollFlags;
use crate::sys::socket::{self, SocketFlags};

/// The system under a server. No call blocks but `wait`.
///
/// Time comes from here, too: the server looks at no other clock, so that a test can let months pass.
#[doc(hidden)]
pub trait Kernel {
    /// A connection. Dropping it closes it.
    type Stream: Stream;
    /// A listening socket, watched since before the server began. Dropping it closes it.
    type Listener;

    /// Returns the time of a clock that never goes back (clock_gettime(2), `CLOCK_MONOTONIC`).
    fn now(&self) -> Instant;

    /// Waits for events, as [`EventLoop::wait`].
    ///
    /// # Errors
    /// Returns the errors of epoll_wait(2), but never `EINTR`.
    fn wait(&mut self, events: &mut Events, wait: Wait) -> io::Result<()>;

    /// Watches a connection, as [`EventLoop::watch`].
    ///
    /// # Errors
    /// Returns the errors of epoll_ctl(2).
    fn watch(&mut self, stream: &Self::Stream, token: Token, interest: EpollFlags) -> io::Result<()>;

    /// Changes the events that a connection is watched for, as [`EventLoop::rewatch`].
    ///
    /// # Errors
    /// Returns the errors of epoll_ctl(2).
    fn rewatch(&mut self, stream: &Self::Stream, token: Token, interest: EpollFlags) -> io::Result<()>;

    /// Accepts a non-blocking connection, as accept4(2), and returns it with the address of its peer.
    ///
    /// # Errors
    /// Returns the errors of accept4(2).
    fn accept(&mut self, listener: &Self::Listener) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Stops queueing new clients for a listener, and keeps the queued ones: listen(2) with a backlog of 0. A scripted kernel may do
    /// nothing.
    ///
    /// # Errors
    /// Returns the errors of listen(2).
    fn stop_queueing(&mut self, listener: &Self::Listener) -> io::Result<()> {
        let _ = listener;
        Ok(())
    }

    /// Stops watching a listener whose socket another process shares, before it is closed. A scripted kernel may do nothing.
    ///
    /// # Errors
    /// Returns the errors of epoll_ctl(2).
    fn unwatch(&mut self, listener: &Self::Listener) -> io::Result<()> {
        let _ = listener;
        Ok(())
    }

    /// Makes a listener non-blocking again, whose socket another process shares. A scripted kernel may do nothing.
    ///
    /// # Errors
    /// Returns the errors of ioctl(2).
    fn set_nonblocking(&mut self, listener: &Self::Listener) -> io::Result<()> {
        let _ = listener;
        Ok(())
    }

    /// Sets the options of a connection that was queued before its listener had them. A scripted kernel may do nothing.
    ///
    /// # Errors
    /// Returns the errors of setsockopt(2).
    fn set_options(&mut self, stream: &Self::Stream, peer: &SocketAddr, options: &SocketOptions) -> Result<(), Error> {
        let _ = (stream, peer, options);
        Ok(())
    }

    /// Watches a descriptor of the protocol for reading and writing. A scripted kernel has none.
    ///
    /// # Errors
    /// Returns the errors of epoll_ctl(2).
    fn watch_source(&mut self, source: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        let _ = (source, token);
        Ok(())
    }

    /// Returns the number of the next pending signal, if there is one.
    ///
    /// # Errors
    /// Returns the errors of read(2) on a signalfd.
    fn next_signal(&mut self) -> io::Result<Option<i32>>;
}

/// The real system: epoll(7), accept4(2), signalfd(2).
#[derive(Debug)]
pub struct Linux {
    pub(super) event_loop: EventLoop,
    /// `None` if the server leaves signals to its program.
    pub(super) signals: Option<Signals>,
}

impl Kernel for Linux {
    type Stream = OwnedFd;
    type Listener = OwnedFd;

    #[inline]
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[inline]
    fn wait(&mut self, events: &mut Events, wait: Wait) -> io::Result<()> {
        self.event_loop.wait(events, wait)
    }

    fn watch(&mut self, stream: &OwnedFd, token: Token, interest: EpollFlags) -> io::Result<()> {
        self.event_loop.watch(stream, token, interest)
    }

    fn rewatch(&mut self, stream: &OwnedFd, token: Token, interest: EpollFlags) -> io::Result<()> {
        self.event_loop.rewatch(stream, token, interest)
    }

    fn accept(&mut self, listener: &OwnedFd) -> io::Result<(OwnedFd, SocketAddr)> {
        socket::accept4(listener.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
    }

    fn stop_queueing(&mut self, listener: &OwnedFd) -> io::Result<()> {
        socket::listen(listener.as_fd(), 0)
    }

    fn unwatch(&mut self, listener: &OwnedFd) -> io::Result<()> {
        self.event_loop.unwatch(listener)
    }

    fn set_nonblocking(&mut self, listener: &OwnedFd) -> io::Result<()> {
        socket::set_nonblocking(listener.as_fd())
    }

    fn set_options(&mut self, stream: &OwnedFd, peer: &SocketAddr, options: &SocketOptions) -> Result<(), Error> {
        socket_options::set_on_connection(stream.as_fd(), peer, options)
    }

    fn watch_source(&mut self, source: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        self.event_loop.watch(source, token, EpollFlags::IN | EpollFlags::OUT)
    }

    fn next_signal(&mut self) -> io::Result<Option<i32>> {
        self.signals.as_ref().map_or(Ok(None), Signals::next)
    }
}
