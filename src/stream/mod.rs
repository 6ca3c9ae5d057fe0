//! Parts of a connection, for either end: a non-blocking stream, a pending-write buffer, and a pipe for zero-copy transfers. The stream is a
//! trait, so that tests can script it.

mod outbox;
mod pipe;
mod readiness;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

pub use outbox::Outbox;
pub use pipe::Pipe;
pub use readiness::Readiness;

pub use crate::sys::socket::Acknowledged;
use crate::sys::socket::{self, MessageFlags, Shutdown};

/// A non-blocking byte stream, such as a TCP socket. No method blocks.
///
/// The methods with a default implementation are optional. The default returns [`Unsupported`](io::ErrorKind::Unsupported), and the server
/// then does without: it copies instead of splicing, for example.
pub trait Stream {
    /// Receives bytes, up to the length of `buffer`. Returns 0 if the peer has shut down its write side.
    ///
    /// # Errors
    /// Those of recv(2); [`WouldBlock`](io::ErrorKind::WouldBlock) if no input has arrived.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Receives bytes as [`recv`](Self::recv) does, and leaves them in the stream: recv(2) with `MSG_PEEK`.
    ///
    /// # Errors
    /// Those of recv(2).
    fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let _ = buffer;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sends bytes, and returns the number taken from the start of `bytes`.
    ///
    /// # Errors
    /// Those of send(2); [`WouldBlock`](io::ErrorKind::WouldBlock) if the send buffer is full.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Shuts down the write side: a FIN follows the bytes already sent.
    ///
    /// # Errors
    /// Those of shutdown(2).
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Discards up to `most` received bytes, and returns their number: recv(2) with `MSG_TRUNC`.
    ///
    /// # Errors
    /// Those of recv(2).
    fn discard(&mut self, most: usize) -> io::Result<usize> {
        let _ = most;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Moves up to `most` received bytes into `pipe` without copying them, and returns their number: splice(2).
    ///
    /// # Errors
    /// Those of splice(2).
    fn splice_into(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        let _ = (pipe, most);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sends up to `most` bytes out of `pipe` without copying them, and returns their number: splice(2). Called only after
    /// [`splice_into`](Self::splice_into) has succeeded.
    ///
    /// # Errors
    /// Those of splice(2).
    fn splice_from(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        let _ = (pipe, most);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns what the peer's kernel has acknowledged, the only proof that a peer accepts bytes. See [`socket::acknowledged`].
    ///
    /// # Errors
    /// Those of getsockopt(2).
    fn acknowledged(&self) -> io::Result<Acknowledged> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the number of received bytes that have not been read. See [`socket::unread_bytes`].
    ///
    /// # Errors
    /// Those of ioctl(2).
    fn unread_bytes(&self) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the number of sent bytes that the peer has not acknowledged; a FIN counts as one. See [`socket::unacknowledged_bytes`].
    ///
    /// # Errors
    /// Those of ioctl(2).
    fn unacknowledged_bytes(&self) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the error that is pending on the stream, if any, and clears it. See [`socket::take_error`].
    ///
    /// # Errors
    /// Those of getsockopt(2).
    fn take_error(&mut self) -> io::Result<Option<io::Error>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes close(2) send a reset instead of a FIN: socket(7), `SO_LINGER`, with a time of 0.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    fn reset_on_close(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Stream for OwnedFd {
    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        socket::recv(self.as_fd(), buffer, MessageFlags::empty())
    }

    fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        socket::recv(self.as_fd(), buffer, MessageFlags::PEEK)
    }

    #[inline]
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.as_fd(), bytes, MessageFlags::NOSIGNAL)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        socket::shutdown(self.as_fd(), Shutdown::Write)
    }

    fn discard(&mut self, most: usize) -> io::Result<usize> {
        socket::discard(self.as_fd(), most)
    }

    fn splice_into(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        pipe.fill(self.as_fd(), most)
    }

    fn splice_from(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        pipe.pour(self.as_fd(), most)
    }

    fn acknowledged(&self) -> io::Result<Acknowledged> {
        socket::acknowledged(self.as_fd())
    }

    fn unread_bytes(&self) -> io::Result<usize> {
        socket::unread_bytes(self.as_fd())
    }

    fn unacknowledged_bytes(&self) -> io::Result<usize> {
        socket::unacknowledged_bytes(self.as_fd())
    }

    fn take_error(&mut self) -> io::Result<Option<io::Error>> {
        socket::take_error(self.as_fd())
    }

    fn reset_on_close(&self) -> io::Result<()> {
        socket::set_linger(self.as_fd(), Some(0))
    }
}

/// A stream that is connecting.
pub trait Connecting: Stream {
    /// Returns the result of a non-blocking connect(2) after its event, from `SO_ERROR` (connect(2), `EINPROGRESS`).
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
