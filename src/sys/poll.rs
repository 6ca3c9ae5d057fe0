//! poll(2): waiting for one descriptor, where a thread has nothing else to do.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// poll(2), `POLLOUT`, without a timeout: waits until `fd` can be written to, or has an error for write(2) to tell.
///
/// # Errors
/// `EINTR`: a signal came first. `ENOMEM`: out of kernel memory.
pub fn wait_until_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the kernel reads and writes one entry, which outlives the call.
    check(unsafe { libc::poll(&raw mut entry, 1, -1) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn it_returns_when_there_is_room() {
        let (mut near, mut far) = UnixStream::pair().expect("a pair of sockets");
        near.set_nonblocking(true).expect("fcntl");
        wait_until_writable(near.as_fd()).expect("there is room");
        while near.write(&[0; 4096]).is_ok() {}
        std::thread::scope(|scope| {
            scope.spawn(|| wait_until_writable(near.as_fd()).expect("there will be room"));
            far.set_nonblocking(true).expect("fcntl");
            while far.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        });
        assert!(near.write(b"x").is_ok());
    }
}
