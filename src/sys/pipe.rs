//! Pipes (pipe(7)), and zero-copy transfers through them (splice(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{check, check_count};

bitflags::bitflags! {
    /// Flags for [`create`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct PipeFlags: i32 {
        /// No call on either end blocks.
        const NONBLOCK = libc::O_NONBLOCK;
        /// Close both ends on execve(2).
        const CLOEXEC = libc::O_CLOEXEC;

        const _ = !0;
    }
}

bitflags::bitflags! {
    /// Flags for [`splice`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct SpliceFlags: u32 {
        /// Do not block on the pipe. A socket blocks or not according to its own `O_NONBLOCK`.
        const NONBLOCK = libc::SPLICE_F_NONBLOCK;

        const _ = !0;
    }
}

/// Creates a pipe, and returns its read end and its write end: pipe2(2).
///
/// # Errors
/// `EMFILE`: the process is out of descriptors. `ENFILE`: the system is out of descriptors, or the user's pipes have reached
/// `/proc/sys/fs/pipe-user-pages-hard`.
pub fn create(flags: PipeFlags) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: the kernel writes two descriptors, the size of `ends`.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), flags.bits()) })?;
    // SAFETY: the kernel has just created both, and nothing else owns them.
    Ok(ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) }).into())
}

/// Moves up to `count` bytes between a pipe and another descriptor, by passing on their pages instead of copying: splice(2). Returns the
/// number of bytes moved. 0 means that the peer of a socket has shut down its write side, or that a pipe has no writer left.
///
/// # Errors
/// `EAGAIN`: no input, or no room. `ECONNRESET`: the peer has reset the connection. `EPIPE`: the connection can no longer be written; the
/// kernel also sends SIGPIPE, because splice(2) has no counterpart of `MSG_NOSIGNAL`. `EINVAL`: one of the two does not support splicing.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, count: usize, flags: SpliceFlags) -> io::Result<usize> {
    let (none, bits) = (std::ptr::null_mut(), flags.bits());
    // SAFETY: both offsets are null, so the kernel accesses no memory of this process.
    check_count(unsafe { libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, count, bits) })
}

/// Reads from a pipe, up to the length of `buffer`: read(2).
///
/// # Errors
/// `EAGAIN`: the pipe is empty.
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
    fn bytes_spliced_in_at_one_end_come_out_at_the_other() {
        let (reader, writer) = create(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).expect("pipe2");
        let (mut near, far) = UnixStream::pair().expect("a pair of sockets");
        far.set_nonblocking(true).expect("fcntl");
        let flags = SpliceFlags::NONBLOCK;
        let nothing = splice(far.as_fd(), writer.as_fd(), 10, flags).expect_err("no input yet");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);

        near.write_all(b"hello, world").expect("write");
        assert_eq!(splice(far.as_fd(), writer.as_fd(), 7, flags).expect("splice"), 7);
        assert_eq!(splice(reader.as_fd(), far.as_fd(), 5, flags).expect("splice"), 5);
        let mut buffer = [0; 16];
        assert_eq!(read(reader.as_fd(), &mut buffer).expect("read"), 2);
        assert_eq!(&buffer[..2], b", ");
        assert_eq!(read(reader.as_fd(), &mut buffer).expect_err("the pipe is empty").kind(), io::ErrorKind::WouldBlock);
        near.read_exact(&mut buffer[..5]).expect("read");
        assert_eq!(&buffer[..5], b"hello");

        drop(near);
        assert_eq!(splice(far.as_fd(), writer.as_fd(), 16, flags).expect("splice"), 5);
        assert_eq!(splice(far.as_fd(), writer.as_fd(), 16, flags).expect("the end"), 0);
    }
}
