//! Delivery of bytes on a TCP connection: what the peer has acknowledged, and what the socket still holds (tcp(7)).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::sys::check;

/// Acknowledgements that a connection has received from the peer's kernel.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Bytes acknowledged since the connection was opened. Our SYN and our FIN count as one byte each.
    pub bytes: u64,
    /// Time since the last segment with an acknowledgement, in whole milliseconds. That segment may have acknowledged nothing new.
    pub last_ago: Duration,
}

impl Acknowledged {
    /// Creates a value, for a [`Stream`](crate::stream::Stream) that is not a socket.
    #[must_use]
    pub const fn new(bytes: u64, last_ago: Duration) -> Self {
        Self { bytes, last_ago }
    }
}

/// Returns what the peer's kernel has acknowledged: getsockopt(2), `TCP_INFO` (tcp(7)). Before Linux 4.1 the kernel does not count bytes,
/// and `bytes` is 0.
///
/// # Errors
/// None are known for a TCP socket.
pub fn acknowledged(fd: BorrowedFd<'_>) -> io::Result<Acknowledged> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of_val(&info) as libc::socklen_t;
    let value = info.as_mut_ptr().cast();
    // SAFETY: `length` holds the size of `info`, which `value` points to, and both outlive the call.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, value, &raw mut length) })?;
    // SAFETY: every field is an integer, for which zero is valid; the kernel has overwritten a prefix.
    let info = unsafe { info.assume_init() };
    Ok(Acknowledged { bytes: info.tcpi_bytes_acked, last_ago: Duration::from_millis(info.tcpi_last_ack_recv.into()) })
}

/// Returns the number of received bytes that have not been read: ioctl(2), `SIOCINQ` (tcp(7)).
///
/// # Errors
/// `EINVAL`: the socket is listening.
pub fn unread_bytes(fd: BorrowedFd<'_>) -> io::Result<usize> {
    ioctl_count(fd, libc::FIONREAD) // SIOCINQ under its older name
}

/// Returns the number of sent bytes that the peer has not acknowledged: ioctl(2), `SIOCOUTQ` (tcp(7)). A FIN counts as one byte.
///
/// # Errors
/// `EINVAL`: the socket is listening.
pub fn unacknowledged_bytes(fd: BorrowedFd<'_>) -> io::Result<usize> {
    ioctl_count(fd, libc::TIOCOUTQ) // SIOCOUTQ under its older name
}

fn ioctl_count(fd: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: both requests write one `int`, and `count` outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn the_queues_of_a_socket_and_the_acknowledgements_of_its_peer_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let near = TcpStream::connect(listener.local_addr().expect("getsockname")).expect("connect");
        let (mut far, _) = listener.accept().expect("accept4");
        let before = acknowledged(far.as_fd()).expect("TCP_INFO");
        far.write_all(b"hello").expect("send");
        while unacknowledged_bytes(far.as_fd()).expect("SIOCOUTQ") > 0 {
            std::thread::yield_now();
        }
        let after = acknowledged(far.as_fd()).expect("TCP_INFO");
        assert_eq!(after.bytes, before.bytes + 5);
        assert!(after.last_ago < Duration::from_secs(20), "{after:?}");
        assert_eq!(unread_bytes(near.as_fd()).expect("SIOCINQ"), 5);
        assert_eq!(unread_bytes(far.as_fd()).expect("SIOCINQ"), 0);
    }
}
