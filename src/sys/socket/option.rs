//! Socket options: setsockopt(2), getsockopt(2), socket(7), tcp(7).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::check;

/// A socket option whose value is an `int`, for [`set_option`] and [`get_option`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOption {
    level: i32,
    name: i32,
}

impl SocketOption {
    /// Bind to an address on which old connections linger in TIME-WAIT (socket(7)).
    pub const REUSEADDR: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_REUSEADDR };
    /// Keep urgent data in the stream, at its place, instead of delivering it out of band (socket(7)).
    pub const OOBINLINE: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_OOBINLINE };
    /// Send small segments at once, without Nagle's delay (tcp(7), RFC 896).
    pub const NODELAY: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_NODELAY };
    /// Let several sockets listen on one port (socket(7)).
    pub const REUSEPORT: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_REUSEPORT };
    /// Size of the receive buffer in bytes. The kernel doubles the value (socket(7)).
    pub const RCVBUF: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_RCVBUF };
    /// Size of the send buffer in bytes. The kernel doubles the value (socket(7)).
    pub const SNDBUF: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_SNDBUF };
    /// Probe a silent peer (socket(7)).
    pub const KEEPALIVE: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_KEEPALIVE };
    /// Idle time before the first keepalive probe, in seconds (tcp(7)).
    pub const KEEPIDLE: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_KEEPIDLE };
    /// Time between keepalive probes, in seconds (tcp(7)).
    pub const KEEPINTVL: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_KEEPINTVL };
    /// Number of unanswered keepalive probes after which the connection fails (tcp(7)).
    pub const KEEPCNT: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_KEEPCNT };
    /// Accept a connection only when its first bytes have arrived, or after this many seconds (tcp(7)).
    pub const DEFER_ACCEPT: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_DEFER_ACCEPT };
    /// Time for which sent bytes may stay unacknowledged before the connection fails, in milliseconds (tcp(7)).
    pub const USER_TIMEOUT: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_USER_TIMEOUT };
    /// Choose the port of a socket bound to port 0 at connect(2) instead of bind(2). Then only the pair of both addresses has to be unique
    /// (ip(7)).
    pub const BIND_ADDRESS_NO_PORT: Self = Self { level: libc::IPPROTO_IP, name: libc::IP_BIND_ADDRESS_NO_PORT };
    /// Accept no IPv4 connections on an IPv6 socket (ipv6(7)).
    pub const V6ONLY: Self = Self { level: libc::IPPROTO_IPV6, name: libc::IPV6_V6ONLY };
    /// The address family, such as `AF_INET`; cannot be set (socket(7)).
    pub const DOMAIN: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_DOMAIN };
    /// The type, such as `SOCK_STREAM`; cannot be set (socket(7)).
    pub const TYPE: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_TYPE };
    /// The protocol, such as `IPPROTO_TCP`; cannot be set (socket(7)).
    pub const PROTOCOL: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_PROTOCOL };
    /// 1 if the socket listens; cannot be set (socket(7)).
    pub const ACCEPTCONN: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_ACCEPTCONN };
}

/// Sets an option whose value is an `int`: setsockopt(2).
///
/// # Errors
/// `ENOPROTOOPT`: the socket does not have the option. `EINVAL`: the value is out of bounds.
pub fn set_option(fd: BorrowedFd<'_>, option: SocketOption, value: i32) -> io::Result<()> {
    set(fd, option.level, option.name, &value)
}

/// Sets the fate of unsent bytes at close(2): setsockopt(2), `SO_LINGER`.
///
/// `None` sends them in the background. `Some(0)` discards them and sends a reset. `Some(seconds)` makes close(2) block for up to that
/// time, on a non-blocking socket as well (socket(7)).
///
/// # Errors
/// None are known for a TCP socket.
pub fn set_linger(fd: BorrowedFd<'_>, seconds: Option<u16>) -> io::Result<()> {
    let value = libc::linger { l_onoff: i32::from(seconds.is_some()), l_linger: seconds.map_or(0, i32::from) };
    set(fd, libc::SOL_SOCKET, libc::SO_LINGER, &value)
}

/// Makes the socket non-blocking, for all processes that have it open: ioctl(2), `FIONBIO` (open(2), `O_NONBLOCK`).
///
/// # Errors
/// None are known for a socket.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut is_on: libc::c_int = 1;
    // SAFETY: FIONBIO reads an int, and `is_on` outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw mut is_on) })?;
    Ok(())
}

/// Limits the time for which a call that receives or accepts blocks: setsockopt(2), `SO_RCVTIMEO`. The kernel rounds it up to a step of its clock, at
/// most 10 ms (socket(7), time(7)). A non-blocking call does not wait at all.
///
/// # Errors
/// `EDOM`: the time is too long.
pub fn set_receive_timeout(fd: BorrowedFd<'_>, microseconds: u16) -> io::Result<()> {
    let value = libc::timeval { tv_sec: 0, tv_usec: microseconds.into() };
    set(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &value)
}

/// Restricts the socket to packets of one network interface: setsockopt(2), `SO_BINDTODEVICE`.
///
/// # Errors
/// `ENODEV`: there is no such interface. `EPERM`: the socket is bound to another interface, and the process lacks `CAP_NET_RAW`.
pub fn bind_to_device(fd: BorrowedFd<'_>, interface: &str) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, interface)
}

/// setsockopt(2). `value` has the layout that the option requires.
fn set<T: ?Sized>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = size_of_val(value) as libc::socklen_t;
    // SAFETY: the kernel reads at most `length` bytes from `value`, which are all initialised and outlive the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length) })?;
    Ok(())
}

/// Returns the value of an option whose value is an `int`: getsockopt(2).
///
/// # Errors
/// `ENOTSOCK`: the descriptor is not a socket. `ENOPROTOOPT`, `EOPNOTSUPP`: the socket does not have the option.
pub fn get_option(fd: BorrowedFd<'_>, option: SocketOption) -> io::Result<i32> {
    let mut number: libc::c_int = 0;
    let mut length = size_of_val(&number) as libc::socklen_t;
    let value = std::ptr::from_mut(&mut number).cast();
    // SAFETY: `length` holds the size of `number`, which `value` points to, and both outlive the call.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), option.level, option.name, value, &raw mut length) })?;
    Ok(number)
}

/// Returns the error that is pending on the socket, and clears it: getsockopt(2), `SO_ERROR` (socket(7)).
///
/// # Errors
/// None are known for a TCP socket.
pub fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    let number = get_option(fd, SocketOption { level: libc::SOL_SOCKET, name: libc::SO_ERROR })?;
    Ok((number != 0).then(|| io::Error::from_raw_os_error(number)))
}
