//! Pipes, and what moves bytes through them without a copy: pipe(7), splice(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{check, check_count};

bitflags::bitflags! {
    /// Flags of [`create`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct PipeFlags: i32 {
        /// No call on either end ever blocks.
        const NONBLOCK = libc::O_NONBLOCK;
        /// Close both ends at execve(2).
        const CLOEXEC = libc::O_CLOEXEC;

        const _ = !0;
    }
}

bitflags::bitflags! {
    /// Flags of [`splice`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct SpliceFlags: u32 {
        /// Do not wait for the pipe. For the socket at its other end, its own `O_NONBLOCK` says so.
        const NONBLOCK = libc::SPLICE_F_NONBLOCK;

        const _ = !0;
    }
}

/// pipe2(2): a new pipe, as its end to read from and its end to write to.
///
/// # Errors
/// `EMFILE`, `ENFILE`: out of descriptors, or of what pipes of one user may hold (`/proc/sys/fs/pipe-user-pages-hard`).
pub fn create(flags: PipeFlags) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: the kernel writes two descriptors, which `ends` has room for.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), flags.bits()) })?;
    // SAFETY: the kernel has just made both for us, and nobody else knows of them.
    Ok(ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) }).into())
}

/// splice(2): moves up to `count` bytes from a pipe to something else, or the other way, by passing on the pages they are in. 0 means
/// that the peer of a socket has shut down its writing half, or that a pipe has nobody left who could write to it.
///
/// # Errors
/// `EAGAIN`: nothing there yet, or no room. `ECONNRESET`: the peer of a socket has reset the connection. `EPIPE`: it has gone; with it
/// comes SIGPIPE, for there is no `MSG_NOSIGNAL` here. `EINVAL`: one of the two cannot be spliced.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, count: usize, flags: SpliceFlags) -> io::Result<usize> {
    let (none, bits) = (std::ptr::null_mut(), flags.bits());
    // SAFETY: neither offset is given, so the kernel reads and writes no memory of ours.
    check_count(unsafe { libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, count, bits) })
}

/// read(2) on a pipe: takes what it holds, up to the length of `buffer`.
///
/// # Errors
/// `EAGAIN`: it holds nothing.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    check_count(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_goes_in_at_one_end_comes_out_at_the_other() {
        let (reader, writer) = create(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).expect("pipe2");
        let (mut near, far) = UnixStream::pair().expect("a pair of sockets");
        far.set_nonblocking(true).expect("fcntl");
        let flags = SpliceFlags::NONBLOCK;
        let nothing = splice(far.as_fd(), writer.as_fd(), 10, flags).expect_err("nothing has come");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);

        near.write_all(b"hello, world").expect("write");
        assert_eq!(splice(far.as_fd(), writer.as_fd(), 7, flags).expect("splice"), 7);
        assert_eq!(splice(reader.as_fd(), far.as_fd(), 5, flags).expect("splice"), 5);
        let mut buffer = [0; 16];
        assert_eq!(read(reader.as_fd(), &mut buffer).expect("read"), 2);
        assert_eq!(&buffer[..2], b", ");
        assert_eq!(read(reader.as_fd(), &mut buffer).expect_err("it is empty").kind(), io::ErrorKind::WouldBlock);
        near.read_exact(&mut buffer[..5]).expect("read");
        assert_eq!(&buffer[..5], b"hello");

        drop(near);
        assert_eq!(splice(far.as_fd(), writer.as_fd(), 16, flags).expect("splice"), 5);
        assert_eq!(splice(far.as_fd(), writer.as_fd(), 16, flags).expect("the end"), 0);
    }
}
