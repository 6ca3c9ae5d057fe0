//! Writes to any descriptor: write(2), poll(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{check, check_count};

/// Writes bytes, and returns the number written, which may be less than `bytes.len()`: write(2).
///
/// # Errors
/// `EAGAIN`: a non-blocking descriptor has no room. `EINTR`: a signal handler ran before the first byte was written. `EPIPE`: a pipe or
/// socket has no reader left; the kernel also sends SIGPIPE. `EFBIG`: the file has reached `RLIMIT_FSIZE`; the kernel also sends SIGXFSZ.
/// `ENOSPC`, `EDQUOT`: the disk or the quota is full. `EIO`: the disk failed.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads at most `bytes.len()` bytes from `bytes`.
    check_count(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// Waits up to `timeout_ms` milliseconds, or without limit if that is negative, until a write(2) would not block: poll(2), `POLLOUT`.
/// Returns `false` at the timeout. A write that would fail does not block either. A writable pipe has room for at least 4,096 bytes
/// (pipe(7), `PIPE_BUF`).
///
/// # Errors
/// `EINTR`: a signal handler ran. `ENOMEM`: out of kernel memory.
pub fn poll_writable(fd: BorrowedFd<'_>, timeout_ms: i32) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the kernel reads and writes one `pollfd`, and `poll` outlives the call.
    let count = check(unsafe { libc::poll(&raw mut poll, 1, timeout_ms) })?;
    Ok(count > 0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::pipe::{self, PipeFlags};

    #[test]
    fn a_pipe_is_writable_until_it_is_full_and_again_without_a_reader() {
        let (reader, writer) = pipe::create(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).expect("pipe2");
        assert!(poll_writable(writer.as_fd(), 0).expect("poll"));
        while poll_writable(writer.as_fd(), 0).expect("poll") {
            assert_eq!(write(writer.as_fd(), &[b'x'; 4096]).expect("write"), 4096);
        }
        assert_eq!(write(writer.as_fd(), b"x").expect_err("the pipe is full").kind(), io::ErrorKind::WouldBlock);
        drop(reader);
        assert!(poll_writable(writer.as_fd(), -1).expect("poll"));
        assert_eq!(write(writer.as_fd(), b"x").expect_err("the reader is closed").kind(), io::ErrorKind::BrokenPipe);
    }
}
