//! Writing to any descriptor: write(2), poll(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{check, check_count};

/// write(2): returns how many of the bytes were taken.
///
/// # Errors
/// `EAGAIN`: no room, and the descriptor does not block. `EINTR`: a signal came first. `EPIPE`: nobody can read it any more; with it comes
/// SIGPIPE. `EFBIG`: the file is as large as `RLIMIT_FSIZE` allows; with it comes SIGXFSZ. `ENOSPC`, `EDQUOT`, `EIO`: the disk is full, or
/// fails.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads at most `bytes.len()` bytes from `bytes`.
    check_count(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// poll(2), `POLLOUT`, for up to `timeout_ms`, or without a limit if that is negative: returns whether a write(2) would not block, or would
/// fail. A pipe then has room for at least 4,096 bytes (pipe(7), `PIPE_BUF`).
///
/// # Errors
/// `EINTR`: a signal came first. `ENOMEM`: out of kernel memory.
pub fn poll_writable(fd: BorrowedFd<'_>, timeout_ms: i32) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the kernel reads and writes one `pollfd`, which `poll` is.
    let count = check(unsafe { libc::poll(&raw mut poll, 1, timeout_ms) })?;
    Ok(count > 0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::pipe::{self, PipeFlags};

    #[test]
    fn a_pipe_is_writable_until_it_is_full_and_once_nobody_reads_it_again() {
        let (reader, writer) = pipe::create(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).expect("pipe2");
        assert!(poll_writable(writer.as_fd(), 0).expect("poll"));
        while poll_writable(writer.as_fd(), 0).expect("poll") {
            assert_eq!(write(writer.as_fd(), &[b'x'; 4096]).expect("write"), 4096);
        }
        assert_eq!(write(writer.as_fd(), b"x").expect_err("it is full").kind(), io::ErrorKind::WouldBlock);
        drop(reader);
        assert!(poll_writable(writer.as_fd(), -1).expect("poll"));
        assert_eq!(write(writer.as_fd(), b"x").expect_err("nobody reads").kind(), io::ErrorKind::BrokenPipe);
    }
}
