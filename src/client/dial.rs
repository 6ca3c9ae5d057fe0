//! Starting a connection: the system calls before there is anything to wait for.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::connect_error::ConnectError;
use super::connector::State;
use crate::sys::socket::{self, Domain, SocketFlags, SocketOption};

/// Calls connect(2) without waiting for what comes of it, from `source` if there is one.
pub(super) fn dial(address: &SocketAddr, source: Option<IpAddr>) -> Result<OwnedFd, ConnectError> {
    open(address, source).map_err(|error| ConnectError::of(error, State::Initiated, Duration::ZERO))
}

fn open(address: &SocketAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let fd = socket::socket(Domain::from(address), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    socket::set_option(fd.as_fd(), SocketOption::NODELAY, 1)?;
    if let Some(source) = source {
        // Without it bind(2) would take a port for this connection alone, and 28,000 would be all that one address has.
        socket::set_option(fd.as_fd(), SocketOption::BIND_ADDRESS_NO_PORT, 1)?;
        socket::bind(fd.as_fd(), &SocketAddr::new(source, 0))?;
    }
    match socket::connect(fd.as_fd(), address) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    // Where nobody listens on a port that the kernel may also choose for us, a connection can be made to itself (RFC 9293, 3.5,
    // simultaneous open), and would echo splendidly.
    if address.ip().is_loopback() && !is_other(fd.as_fd(), address)? {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(fd)
}

/// Whether the far end of `fd`, at `address`, is not `fd` itself.
fn is_other(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<bool> {
    Ok(socket::getsockname(fd)? != *address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Binding to the very port that is called is the surest way to call oneself.
    #[test]
    fn a_connection_to_itself_is_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let fd = socket::socket(Domain::from(&address), SocketFlags::CLOEXEC).expect("socket");
        socket::bind(fd.as_fd(), &address).expect("bind");
        socket::connect(fd.as_fd(), &address).expect("the kernel has nothing against it");
        assert_eq!(socket::getsockname(fd.as_fd()).expect("getsockname"), address);
        assert!(!is_other(fd.as_fd(), &address).expect("getsockname"));
    }
}
