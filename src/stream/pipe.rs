//! A pipe for zero-copy echo.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::pipe::{self, PipeFlags, SpliceFlags};

/// A pipe through which a stream's bytes are returned to it without being copied: splice(2) passes on the pages in which they arrived.
///
/// One pipe serves many streams in turn. It counts the bytes that it holds, so that the bytes of one stream never reach another.
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::fd::AsFd;
/// use std::os::unix::net::UnixStream;
///
/// use edgecho::stream::Pipe;
///
/// let (mut near, far) = UnixStream::pair()?;
/// near.write_all(b"hello, world")?;
/// let mut pipe = Pipe::new()?;
/// assert_eq!(pipe.fill(far.as_fd(), 1024)?, 12);
/// assert_eq!(pipe.pour(far.as_fd(), 5)?, 5);
///
/// // Bytes that the stream has no room for can be read back.
/// let mut rest = [0; 16];
/// assert_eq!(pipe.take(&mut rest)?, 7);
/// assert_eq!((&rest[..7], pipe.is_empty()), (&b", world"[..], true));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held_bytes: usize,
}

impl Pipe {
    /// Creates an empty pipe.
    ///
    /// # Errors
    /// Those of pipe2(2).
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = pipe::create(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        Ok(Self { reader, writer, held_bytes: 0 })
    }

    /// Returns both ends: the one to read from, and the one to write to.
    pub(crate) fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.reader.as_fd(), self.writer.as_fd()]
    }

    /// Returns whether the pipe is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held_bytes == 0
    }

    /// Moves up to `most` bytes from a socket into the pipe, and returns their number. A pipe holds 16 pieces by default (pipe(7)), so a short
    /// count does not mean that the socket is empty.
    ///
    /// # Errors
    /// Those of splice(2).
    pub fn fill(&mut self, from: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let count = pipe::splice(from, self.writer.as_fd(), most, SpliceFlags::NONBLOCK)?;
        self.held_bytes += count;
        Ok(count)
    }

    /// Moves up to `most` bytes from the pipe into a socket, and returns their number.
    ///
    /// # Errors
    /// Those of splice(2).
    pub fn pour(&mut self, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let count = pipe::splice(self.reader.as_fd(), to, most, SpliceFlags::NONBLOCK)?;
        self.held_bytes -= count;
        Ok(count)
    }

    /// Reads bytes out of the pipe, up to the length of `buffer`, and returns their number.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = pipe::read(self.reader.as_fd(), buffer)?;
        self.held_bytes -= count;
        Ok(count)
    }
}
