//! What a connection is made of, whichever end of the wire it is: a stream that never blocks, and the bytes that it was not ready
//! to take. The stream is a trait, so that a test can script it.

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

    /// As recv(2) with `MSG_TRUNC`: drops up to `most` bytes that have come, and gives how many. A stream need not be able to.
    ///
    /// # Errors
    /// Those of recv(2).
    fn discard(&mut self, most: usize) -> io::Result<usize> {
        let _ = most;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// As splice(2): moves up to `most` bytes that have come into `pipe`, without a copy. A stream need not be able to.
    ///
    /// # Errors
    /// Those of splice(2).
    fn splice_into(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        let _ = (pipe, most);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// As splice(2): moves up to `most` bytes out of `pipe`, without a copy. Asked only of a stream that could be spliced from.
    ///
    /// # Errors
    /// Those of splice(2).
    fn splice_from(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        let _ = (pipe, most);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns what the peer's kernel has acknowledged: the only proof that a peer takes bytes. As [`socket::acknowledged`].
    ///
    /// # Errors
    /// Those of getsockopt(2); `Unsupported` for a stream that cannot tell.
    fn acknowledged(&self) -> io::Result<Acknowledged> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the number of received bytes that have not been read. As [`socket::unread_bytes`].
    ///
    /// # Errors
    /// Those of ioctl(2); `Unsupported` for a stream that cannot tell.
    fn unread_bytes(&self) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the number of sent bytes that the peer has not acknowledged; a FIN counts as one. As
    /// [`socket::unacknowledged_bytes`].
    ///
    /// # Errors
    /// Those of ioctl(2); `Unsupported` for a stream that cannot tell.
    fn unacknowledged_bytes(&self) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes the error that is pending on the stream, if there is one. As [`socket::take_error`].
    ///
    /// # Errors
    /// Those of getsockopt(2); `Unsupported` for a stream that cannot tell.
    fn take_error(&mut self) -> io::Result<Option<io::Error>> {
        Err(io::ErrorKind::Unsupported.into())
    }
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
