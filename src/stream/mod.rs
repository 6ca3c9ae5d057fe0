//! What a connection is made of, whichever end of the wire it is: a stream that never blocks, and the bytes that it was not ready
//! to take. The stream is a trait, so that a test can script it.

mod outbox;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

pub use outbox::Outbox;

use crate::sys::socket::{self, MessageFlags, Shutdown};

/// The stream that a connection works on. No call blocks.
pub trait Stream {
    /// As recv(2).
    ///
    /// # Errors
    /// Those of recv(2).
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// As send(2).
    ///
    /// # Errors
    /// Those of send(2).
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// As shutdown(2) of the writing half.
    ///
    /// # Errors
    /// Those of shutdown(2).
    fn shutdown_write(&mut self) -> io::Result<()>;
}

impl Stream for OwnedFd {
    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        socket::recv(self.as_fd(), buffer, MessageFlags::empty())
    }

    #[inline]
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.as_fd(), bytes, MessageFlags::NOSIGNAL)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        socket::shutdown(self.as_fd(), Shutdown::Write)
    }
}

/// A stream that is being connected.
pub trait Connecting: Stream {
    /// What has become of connect(2), once there is an event: `SO_ERROR` (connect(2), `EINPROGRESS`).
    ///
    /// # Errors
    /// Those of connect(2).
    fn outcome(&mut self) -> io::Result<()>;
}

impl Connecting for OwnedFd {
    fn outcome(&mut self) -> io::Result<()> {
        match socket::take_error(self.as_fd())? {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }
}
