//! A pipe through which the kernel passes bytes on that nobody looks at.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::pipe::{self, PipeFlags, SpliceFlags};

/// A pipe that bytes go through on their way from a stream back to it, without being copied: splice(2) hands on the pages that
/// they came in. It knows how many it holds, for it serves many streams in turn, and what belongs to one must not reach another.
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
/// // What a stream has no room for can still be had.
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
    /// A pipe that holds nothing.
    ///
    /// # Errors
    /// Those of pipe2(2).
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = pipe::create(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        Ok(Self { reader, writer, held_bytes: 0 })
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held_bytes == 0
    }

    /// Moves up to `most` bytes from a socket into the pipe. It takes as many as come in 16 pieces (pipe(7)), so a short count does not
    /// show that the socket is empty.
    ///
    /// # Errors
    /// Those of splice(2).
    pub fn fill(&mut self, from: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let count = pipe::splice(from, self.writer.as_fd(), most, SpliceFlags::NONBLOCK)?;
        self.held_bytes += count;
        Ok(count)
    }

    /// Moves up to `most` bytes from the pipe into a socket.
    ///
    /// # Errors
    /// Those of splice(2).
    pub fn pour(&mut self, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let count = pipe::splice(self.reader.as_fd(), to, most, SpliceFlags::NONBLOCK)?;
        self.held_bytes -= count;
        Ok(count)
    }

    /// Reads what it holds, up to the length of `buffer`.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = pipe::read(self.reader.as_fd(), buffer)?;
        self.held_bytes -= count;
        Ok(count)
    }
}
