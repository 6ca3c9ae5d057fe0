//! TCP sockets: socket(2), ip(7), tcp(7).

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::address::{AddressBuffer, RawAddress};
use super::{check, check_count};

/// An address family: the first argument of socket(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// IPv4.
    Ipv4,
    /// IPv6, and IPv4 through mapped addresses (ipv6(7)).
    Ipv6,
}

impl From<&SocketAddr> for Domain {
    fn from(address: &SocketAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

bitflags::bitflags! {
    /// Flags of a new socket, for [`socket`] and [`accept4`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct SocketFlags: i32 {
        /// No call on it ever blocks.
        const NONBLOCK = libc::SOCK_NONBLOCK;
        /// Close it at execve(2).
        const CLOEXEC = libc::SOCK_CLOEXEC;

        const _ = !0;
    }
}

bitflags::bitflags! {
    /// Flags of one message, for [`recv`] and [`send`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct MessageFlags: i32 {
        /// No SIGPIPE when the peer has gone; `EPIPE` only.
        const NOSIGNAL = libc::MSG_NOSIGNAL;
        /// This call does not block.
        const DONTWAIT = libc::MSG_DONTWAIT;
        /// Urgent data (tcp(7)).
        const OOB = libc::MSG_OOB;

        const _ = !0;
    }
}

/// A switch or number of setsockopt(2) whose value is an `int`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOption {
    level: i32,
    name: i32,
}

impl SocketOption {
    /// Bind to an address that connections of a former process linger on (socket(7)).
    pub const REUSEADDR: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_REUSEADDR };
    /// Keep the urgent byte in the stream, at its place, instead of out of band (socket(7)).
    pub const OOBINLINE: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_OOBINLINE };
    /// Send small segments at once, without Nagle's delay (tcp(7), RFC 896).
    pub const NODELAY: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_NODELAY };
    /// Let several sockets listen on one port (socket(7)).
    pub const REUSEPORT: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_REUSEPORT };
    /// The size of the receive buffer, in bytes; the kernel doubles it (socket(7)).
    pub const RCVBUF: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_RCVBUF };
    /// The size of the send buffer, in bytes; the kernel doubles it (socket(7)).
    pub const SNDBUF: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_SNDBUF };
    /// Ask a silent peer whether it is still there (socket(7)).
    pub const KEEPALIVE: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_KEEPALIVE };
    /// ... after so many seconds (tcp(7)).
    pub const KEEPIDLE: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_KEEPIDLE };
    /// ... and again after so many seconds (tcp(7)).
    pub const KEEPINTVL: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_KEEPINTVL };
    /// ... and so often (tcp(7)).
    pub const KEEPCNT: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_KEEPCNT };
    /// Accept only when bytes are there, or after so many seconds (tcp(7)).
    pub const DEFER_ACCEPT: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_DEFER_ACCEPT };
    /// How many milliseconds sent bytes may stay unacknowledged (tcp(7)).
    pub const USER_TIMEOUT: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_USER_TIMEOUT };
    /// Choose the port of a socket that is bound to port 0 at connect(2) and not at bind(2): then only the pair of both ends has
    /// to be unique (ip(7)).
    pub const BIND_ADDRESS_NO_PORT: Self = Self { level: libc::IPPROTO_IP, name: libc::IP_BIND_ADDRESS_NO_PORT };
    /// Take no IPv4 connections on an IPv6 socket (ipv6(7)).
    pub const V6ONLY: Self = Self { level: libc::IPPROTO_IPV6, name: libc::IPV6_V6ONLY };
}

/// What shutdown(2) ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Shutdown {
    /// Nothing more is read.
    Read = libc::SHUT_RD,
    /// Nothing more is written: the peer is sent a FIN behind what is still on its way.
    Write = libc::SHUT_WR,
    /// Both.
    Both = libc::SHUT_RDWR,
}

/// socket(2): a new TCP socket.
///
/// # Errors
/// `EAFNOSUPPORT`: the kernel does not have this family. `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`: out of resources.
pub fn socket(domain: Domain, flags: SocketFlags) -> io::Result<OwnedFd> {
    let family = match domain {
        Domain::Ipv4 => libc::AF_INET,
        Domain::Ipv6 => libc::AF_INET6,
    };
    // SAFETY: the call takes no pointer.
    let fd = check(unsafe { libc::socket(family, libc::SOCK_STREAM | flags.bits(), libc::IPPROTO_TCP) })?;
    // SAFETY: the kernel has just made `fd` for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// setsockopt(2) for an option whose value is an `int`.
///
/// # Errors
/// `ENOPROTOOPT`: the socket has no such option. `EINVAL`: a value out of its bounds.
pub fn set_option(fd: BorrowedFd<'_>, option: SocketOption, value: i32) -> io::Result<()> {
    set(fd, option.level, option.name, &value)
}

/// setsockopt(2), `SO_LINGER`: what close(2) does with bytes that have not been sent. For no time at all, it drops them and sends
/// a reset; otherwise it blocks for up to so many seconds, on a non-blocking socket too (socket(7)).
///
/// # Errors
/// None that a TCP socket could bring about.
pub fn set_linger(fd: BorrowedFd<'_>, seconds: Option<u16>) -> io::Result<()> {
    let value = libc::linger { l_onoff: i32::from(seconds.is_some()), l_linger: seconds.map_or(0, i32::from) };
    set(fd, libc::SOL_SOCKET, libc::SO_LINGER, &value)
}

/// setsockopt(2), `SO_BINDTODEVICE`: only packets of this network interface reach the socket.
///
/// # Errors
/// `ENODEV`: there is no such interface. `EPERM`: bound to another one already, and no `CAP_NET_RAW`.
pub fn bind_to_device(fd: BorrowedFd<'_>, interface: &str) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, interface)
}

/// setsockopt(2). `value` has the layout that the option asks for.
fn set<T: ?Sized>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = size_of_val(value) as libc::socklen_t;
    // SAFETY: the kernel reads at most `length` bytes from `value`, which are all initialised and outlive the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length) })?;
    Ok(())
}

/// getsockopt(2), `SO_ERROR`: the error that is pending on the socket, which is thereby cleared (socket(7)).
///
/// # Errors
/// None that a TCP socket could bring about.
pub fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    let mut number: libc::c_int = 0;
    let mut length = size_of_val(&number) as libc::socklen_t;
    let value = std::ptr::from_mut(&mut number).cast();
    // SAFETY: `length` holds the size of `number`, which `value` points to, and both outlive the call.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, value, &raw mut length) })?;
    Ok((number != 0).then(|| io::Error::from_raw_os_error(number)))
}

/// The acknowledgements of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Bytes that the peer's kernel has acknowledged since the connection was opened. A SYN or a FIN of ours counts as one byte.
    pub bytes: u64,
    /// Time since the last segment with an acknowledgement, in whole milliseconds. It need not have acknowledged anything new.
    pub last_ago: Duration,
}

/// getsockopt(2), `TCP_INFO`: what the peer's kernel has acknowledged (tcp(7)). A kernel before Linux 4.1 does not count the bytes, and
/// leaves them at 0.
///
/// # Errors
/// None that a TCP socket could bring about.
pub fn acknowledged(fd: BorrowedFd<'_>) -> io::Result<Acknowledged> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of_val(&info) as libc::socklen_t;
    let value = info.as_mut_ptr().cast();
    // SAFETY: `length` holds the size of `info`, which `value` points to, and both outlive the call.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, value, &raw mut length) })?;
    // SAFETY: every field is a number, for which zeros are a value; the kernel has written a prefix.
    let info = unsafe { info.assume_init() };
    Ok(Acknowledged { bytes: info.tcpi_bytes_acked, last_ago: Duration::from_millis(info.tcpi_last_ack_recv.into()) })
}

/// ioctl(2), `SIOCINQ`: the number of received bytes that have not been read (tcp(7)).
///
/// # Errors
/// `EINVAL`: a listening socket.
pub fn unread_bytes(fd: BorrowedFd<'_>) -> io::Result<usize> {
    ioctl_count(fd, libc::FIONREAD) // the same request under its older name
}

/// ioctl(2), `SIOCOUTQ`: the number of sent bytes that the peer has not acknowledged (tcp(7)). A FIN counts as one.
///
/// # Errors
/// `EINVAL`: a listening socket.
pub fn unacknowledged_bytes(fd: BorrowedFd<'_>) -> io::Result<usize> {
    ioctl_count(fd, libc::TIOCOUTQ) // the same request under its older name
}

fn ioctl_count(fd: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: both requests write one `int`, and `count` outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// bind(2): gives the socket its own address. Port 0 lets the kernel choose a port, here or at [`listen`].
///
/// # Errors
/// `EADDRINUSE`: another socket has it. `EADDRNOTAVAIL`: no interface has it. `EACCES`: a port under 1024 without
/// `CAP_NET_BIND_SERVICE`.
pub fn bind(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<()> {
    let raw = RawAddress::from(address);
    let (pointer, length) = raw.as_parts();
    // SAFETY: `pointer` and `length` describe `raw`, which outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), pointer, length) })?;
    Ok(())
}

/// listen(2): the kernel completes handshakes from now on, and keeps up to `backlog` connections until they are accepted
/// (at most `/proc/sys/net/core/somaxconn`).
///
/// # Errors
/// `EADDRINUSE`: another socket listens on the same port.
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(())
}

/// getsockname(2): the socket's own address, with the port that the kernel chose.
///
/// # Errors
/// `ENOBUFS`: out of kernel memory.
pub fn getsockname(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let mut address = AddressBuffer::new();
    let (pointer, length) = address.as_mut_parts();
    // SAFETY: `length` holds the size of what `pointer` points to, and both outlive the call.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), pointer, length) })?;
    address.decode()
}

/// accept4(2): takes the first connection from the queue of a listening socket. Gives it and the peer's address.
///
/// # Errors
/// Many, of three kinds; `server::listener` has the table.
pub fn accept4(fd: BorrowedFd<'_>, flags: SocketFlags) -> io::Result<(OwnedFd, SocketAddr)> {
    let mut address = AddressBuffer::new();
    let (pointer, length) = address.as_mut_parts();
    // SAFETY: `length` holds the size of what `pointer` points to, and both outlive the call.
    let accepted = check(unsafe { libc::accept4(fd.as_raw_fd(), pointer, length, flags.bits()) })?;
    // SAFETY: the kernel has just made `accepted` for us, and nobody else knows of it.
    let accepted = unsafe { OwnedFd::from_raw_fd(accepted) };
    Ok((accepted, address.decode()?))
}

/// connect(2): starts a connection.
///
/// # Errors
/// `EINPROGRESS`: under way, on a non-blocking socket. `ECONNREFUSED`, `ETIMEDOUT`, `ENETUNREACH`, `EHOSTUNREACH`: what became
/// of it. `EADDRNOTAVAIL`: out of local ports.
pub fn connect(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<()> {
    let raw = RawAddress::from(address);
    let (pointer, length) = raw.as_parts();
    // SAFETY: `pointer` and `length` describe `raw`, which outlives the call.
    check(unsafe { libc::connect(fd.as_raw_fd(), pointer, length) })?;
    Ok(())
}

/// recv(2): reads what is there, up to the length of `buffer`. 0 means that the peer has shut down its writing half and
/// everything before that has been read (or that `buffer` is empty).
///
/// # Errors
/// `EAGAIN`: nothing there yet. `ECONNRESET`: the peer has reset the connection. `ETIMEDOUT`: it no longer acknowledges.
#[inline]
pub fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: MessageFlags) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    check_count(unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags.bits()) })
}

/// recv(2) with `MSG_TRUNC`, which on TCP drops what is there, up to `count` bytes, instead of copying it (tcp(7)). Gives how much that was.
///
/// # Errors
/// As those of [`recv`].
pub fn discard(fd: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
    // SAFETY: with this flag the kernel writes nothing, wherever the pointer points (tcp(7)).
    check_count(unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), count, libc::MSG_TRUNC) })
}

/// send(2): hands over as many of `bytes`, from the first on, as the socket's send buffer has room for.
///
/// # Errors
/// `EAGAIN`: no room for any. `EPIPE`, `ECONNRESET`: the connection is gone.
#[inline]
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8], flags: MessageFlags) -> io::Result<usize> {
    // SAFETY: the kernel reads at most `bytes.len()` bytes from `bytes`.
    check_count(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags.bits()) })
}

/// shutdown(2): ends one direction of a connection, or both. What has been handed to [`send`] is still delivered.
///
/// # Errors
/// `ENOTCONN`: there is no connection, or no longer.
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
            let nothing_yet = recv(far.as_fd(), &mut buffer, MessageFlags::empty()).expect_err("nothing was sent");
            assert_eq!(nothing_yet.kind(), ErrorKind::WouldBlock);
            assert_eq!(send(far.as_fd(), b"hello", MessageFlags::NOSIGNAL).expect("send"), 5);
            assert_eq!(recv(near.as_fd(), &mut buffer, MessageFlags::empty()).expect("recv"), 5);
            assert_eq!(&buffer[..5], b"hello");
            send(far.as_fd(), b"nobody looks at this", MessageFlags::NOSIGNAL).expect("send");
            assert_eq!(discard(near.as_fd(), 15).expect("recv"), 15);
            assert_eq!(recv(near.as_fd(), &mut buffer, MessageFlags::empty()).expect("recv"), 5);
            assert_eq!(&buffer[..5], b" this");
            shutdown(far.as_fd(), Shutdown::Write).expect("shutdown");
            assert_eq!(recv(near.as_fd(), &mut buffer, MessageFlags::empty()).expect("recv"), 0);
        }
    }

    #[test]
    fn the_queues_of_a_socket_and_the_acknowledgements_of_its_peer_are_counted() {
        let listener = listener("127.0.0.1:0");
        let near = socket(Domain::Ipv4, SocketFlags::CLOEXEC).expect("socket");
        connect(near.as_fd(), &getsockname(listener.as_fd()).expect("getsockname")).expect("connect");
        let (far, _) = accept4(listener.as_fd(), SocketFlags::CLOEXEC).expect("accept4");
        let before = acknowledged(far.as_fd()).expect("TCP_INFO");
        send(far.as_fd(), b"hello", MessageFlags::NOSIGNAL).expect("send");
        while unacknowledged_bytes(far.as_fd()).expect("SIOCOUTQ") > 0 {
            std::thread::yield_now();
        }
        let after = acknowledged(far.as_fd()).expect("TCP_INFO");
        assert_eq!(after.bytes, before.bytes + 5);
        assert!(after.last_ago < Duration::from_secs(20), "{after:?}");
        assert_eq!(unread_bytes(near.as_fd()).expect("SIOCINQ"), 5);
        assert_eq!(unread_bytes(far.as_fd()).expect("SIOCINQ"), 0);
    }

    #[test]
    fn a_peer_that_has_gone_is_an_error_and_not_a_signal() {
        let listener = listener("127.0.0.1:0");
        let near = socket(Domain::Ipv4, SocketFlags::CLOEXEC).expect("socket");
        connect(near.as_fd(), &getsockname(listener.as_fd()).expect("getsockname")).expect("connect");
        shutdown(near.as_fd(), Shutdown::Write).expect("shutdown");
        let error = send(near.as_fd(), b"too late", MessageFlags::NOSIGNAL).expect_err("there is nowhere to send to");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_address_in_use_and_a_port_without_a_listener_are_named() {
        let listener = listener("127.0.0.1:0");
        let address = getsockname(listener.as_fd()).expect("getsockname");
        let other = socket(Domain::Ipv4, SocketFlags::CLOEXEC).expect("socket");
        assert_eq!(bind(other.as_fd(), &address).expect_err("it is taken").kind(), ErrorKind::AddrInUse);
        drop(listener);
        let refused = connect(other.as_fd(), &address).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}
