//! TCP sockets: socket(2), ip(7), tcp(7).

mod address;
mod delivery;
mod option;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use address::{AddressBuffer, RawAddress};
pub use delivery::{Acknowledged, acknowledged, unacknowledged_bytes, unread_bytes};
pub use option::{
    SocketOption, bind_to_device, get_option, set_linger, set_nonblocking, set_option, set_receive_timeout, take_error,
};

use super::{check, check_count};

/// An address family, the first argument of socket(2).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// IPv4.
    Ipv4,
    /// IPv6, and IPv4 as mapped addresses (ipv6(7)).
    Ipv6,
}

impl From<&SocketAddr> for Domain {
    fn from(address: &SocketAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

bitflags::bitflags! {
    /// Flags for a new socket: for [`socket`] and [`accept4`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct SocketFlags: i32 {
        /// No call on the socket blocks.
        const NONBLOCK = libc::SOCK_NONBLOCK;
        /// Close the descriptor on execve(2).
        const CLOEXEC = libc::SOCK_CLOEXEC;

        const _ = !0;
    }
}

bitflags::bitflags! {
    /// Flags for one call of [`recv`] or [`send`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct MessageFlags: i32 {
        /// Return `EPIPE` without sending SIGPIPE.
        const NOSIGNAL = libc::MSG_NOSIGNAL;
        /// Do not block in this call.
        const DONTWAIT = libc::MSG_DONTWAIT;
        /// Receive bytes, and leave them in the socket.
        const PEEK = libc::MSG_PEEK;
        /// Send or receive urgent data (tcp(7)).
        const OOB = libc::MSG_OOB;

        const _ = !0;
    }
}

/// The direction that [`shutdown`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Shutdown {
    /// Reading.
    Read = libc::SHUT_RD,
    /// Writing: the kernel sends a FIN after the bytes it still holds.
    Write = libc::SHUT_WR,
    /// Both directions.
    Both = libc::SHUT_RDWR,
}

/// Creates a TCP socket: socket(2).
///
/// # Errors
/// `EAFNOSUPPORT`: the kernel does not support the family. `EMFILE`, `ENFILE`: the process or the system is out of descriptors. `ENOBUFS`,
/// `ENOMEM`: out of kernel memory.
pub fn socket(domain: Domain, flags: SocketFlags) -> io::Result<OwnedFd> {
    let family = match domain {
        Domain::Ipv4 => libc::AF_INET,
        Domain::Ipv6 => libc::AF_INET6,
    };
    // SAFETY: the call takes no pointer.
    let fd = check(unsafe { libc::socket(family, libc::SOCK_STREAM | flags.bits(), libc::IPPROTO_TCP) })?;
    // SAFETY: the kernel has just created `fd`, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds the socket to a local address: bind(2). With port 0 the kernel chooses a port.
///
/// # Errors
/// `EADDRINUSE`: another socket uses the address. `EADDRNOTAVAIL`: no interface has the address. `EACCES`: the port is below 1024, and the
/// process lacks `CAP_NET_BIND_SERVICE` (ip(7)).
pub fn bind(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<()> {
    let raw = RawAddress::from(address);
    let (pointer, length) = raw.as_parts();
    // SAFETY: `pointer` and `length` describe `raw`, which outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), pointer, length) })?;
    Ok(())
}

/// Starts to listen: listen(2). The kernel completes handshakes and queues up to `backlog` connections, at most
/// `/proc/sys/net/core/somaxconn`, until they are accepted.
///
/// # Errors
/// `EADDRINUSE`: another socket listens on the port.
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(())
}

/// Returns the local address of the socket, with the port that the kernel chose: getsockname(2).
///
/// # Errors
/// `ENOBUFS`: out of kernel memory. `InvalidData`: not an internet address.
pub fn getsockname(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let mut address = AddressBuffer::new();
    let (pointer, length) = address.as_mut_parts();
    // SAFETY: `length` holds the size of what `pointer` points to, and both outlive the call.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), pointer, length) })?;
    address.decode()
}

/// Accepts the first connection in the backlog of a listening socket: accept4(2). Returns the connection and the address of its peer.
///
/// # Errors
/// `EAGAIN`: the backlog is empty. `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`: out of resources; the connection stays queued. Errors that are
/// pending on the new connection, such as `ECONNABORTED` or `EPROTO`; the kernel discards it (accept(2)).
pub fn accept4(fd: BorrowedFd<'_>, flags: SocketFlags) -> io::Result<(OwnedFd, SocketAddr)> {
    let mut address = AddressBuffer::new();
    let (pointer, length) = address.as_mut_parts();
    // SAFETY: `length` holds the size of what `pointer` points to, and both outlive the call.
    let accepted = check(unsafe { libc::accept4(fd.as_raw_fd(), pointer, length, flags.bits()) })?;
    // SAFETY: the kernel has just created `accepted`, and nothing else owns it.
    let accepted = unsafe { OwnedFd::from_raw_fd(accepted) };
    Ok((accepted, address.decode()?))
}

/// Starts to connect: connect(2).
///
/// # Errors
/// `EINPROGRESS`: a non-blocking socket is still connecting. `ECONNREFUSED`, `ETIMEDOUT`, `ENETUNREACH`, `EHOSTUNREACH`: the attempt
/// failed. `EADDRNOTAVAIL`: out of local ports.
pub fn connect(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<()> {
    let raw = RawAddress::from(address);
    let (pointer, length) = raw.as_parts();
    // SAFETY: `pointer` and `length` describe `raw`, which outlives the call.
    check(unsafe { libc::connect(fd.as_raw_fd(), pointer, length) })?;
    Ok(())
}

/// Receives bytes, up to the length of `buffer`: recv(2). Returns 0 if the peer has shut down its write side and everything before that has
/// been read, or if `buffer` is empty.
///
/// # Errors
/// `EAGAIN`: no input yet. `ECONNRESET`: the peer has reset the connection. `ETIMEDOUT`: the peer has stopped acknowledging.
#[inline]
pub fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: MessageFlags) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    check_count(unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags.bits()) })
}

/// Discards up to `count` received bytes without copying them: recv(2) with `MSG_TRUNC` (tcp(7)). Returns the number discarded.
///
/// # Errors
/// As for [`recv`].
pub fn discard(fd: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
    // SAFETY: with this flag the kernel does not write to the buffer (tcp(7)).
    check_count(unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), count, libc::MSG_TRUNC) })
}

/// Sends bytes: send(2). Returns the number that the send buffer has taken, from the start of `bytes`.
///
/// # Errors
/// `EAGAIN`: the send buffer is full. `EPIPE`: the write side is shut down. `ECONNRESET`: the peer has reset the connection.
#[inline]
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8], flags: MessageFlags) -> io::Result<usize> {
    // SAFETY: the kernel reads at most `bytes.len()` bytes from `bytes`.
    check_count(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags.bits()) })
}

/// Ends one direction of a connection, or both: shutdown(2). Bytes already sent are still delivered.
///
/// # Errors
/// `ENOTCONN`: the socket is not, or no longer, connected.
pub fn shutdown(fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    check(unsafe { libc::shutdown(fd.as_raw_fd(), how as i32) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::os::fd::AsFd;

    fn listener(address: &str) -> OwnedFd {
        let address = address.parse().expect("an address");
        let fd = socket(Domain::from(&address), SocketFlags::CLOEXEC).expect("socket");
        bind(fd.as_fd(), &address).expect("bind");
        listen(fd.as_fd(), 8).expect("listen");
        fd
    }

    #[test]
    fn bytes_travel_both_ways_and_a_fin_reads_as_nothing() {
        for any_port in ["127.0.0.1:0", "[::1]:0"] {
            let listener = listener(any_port);
            let address = getsockname(listener.as_fd()).expect("getsockname");
            let near = socket(Domain::from(&address), SocketFlags::CLOEXEC).expect("socket");
            connect(near.as_fd(), &address).expect("connect");
            let (far, peer) = accept4(listener.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).expect("accept4");
            assert_eq!(peer, getsockname(near.as_fd()).expect("getsockname"));

            let mut buffer = [0; 8];
            let nothing_yet = recv(far.as_fd(), &mut buffer, MessageFlags::empty()).expect_err("no input yet");
            assert_eq!(nothing_yet.kind(), ErrorKind::WouldBlock);
            assert_eq!(send(far.as_fd(), b"hello", MessageFlags::NOSIGNAL).expect("send"), 5);
            assert_eq!(recv(near.as_fd(), &mut buffer, MessageFlags::empty()).expect("recv"), 5);
            assert_eq!(&buffer[..5], b"hello");
            send(far.as_fd(), b"bytes to discard: end", MessageFlags::NOSIGNAL).expect("send");
            assert_eq!(discard(near.as_fd(), 16).expect("recv"), 16);
            assert_eq!(recv(near.as_fd(), &mut buffer, MessageFlags::empty()).expect("recv"), 5);
            assert_eq!(&buffer[..5], b": end");
            shutdown(far.as_fd(), Shutdown::Write).expect("shutdown");
            assert_eq!(recv(near.as_fd(), &mut buffer, MessageFlags::empty()).expect("recv"), 0);
        }
    }

    #[test]
    fn sending_after_a_shutdown_is_an_error_and_not_a_signal() {
        let listener = listener("127.0.0.1:0");
        let near = socket(Domain::Ipv4, SocketFlags::CLOEXEC).expect("socket");
        connect(near.as_fd(), &getsockname(listener.as_fd()).expect("getsockname")).expect("connect");
        shutdown(near.as_fd(), Shutdown::Write).expect("shutdown");
        let error = send(near.as_fd(), b"too late", MessageFlags::NOSIGNAL).expect_err("the write side is shut down");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_address_in_use_and_a_port_without_a_listener_are_named() {
        let listener = listener("127.0.0.1:0");
        let address = getsockname(listener.as_fd()).expect("getsockname");
        let other = socket(Domain::Ipv4, SocketFlags::CLOEXEC).expect("socket");
        assert_eq!(bind(other.as_fd(), &address).expect_err("the address is taken").kind(), ErrorKind::AddrInUse);
        drop(listener);
        let refused = connect(other.as_fd(), &address).expect_err("no listener");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}
