//! Starts a connection: the system calls up to connect(2).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::error::ConnectError;
use super::state::State;
use crate::sys::socket::{self, Domain, SocketFlags, SocketOption};

/// Starts connecting to `address`, from `source` if given, and does not wait for the result.
pub(crate) fn dial(address: &SocketAddr, source: Option<IpAddr>) -> Result<OwnedFd, ConnectError> {
    let fd = open(address, source)?;
    connect(&fd, address).map_err(local)?;
    Ok(fd)
}

/// Checks that this host has the address `source`.
pub(crate) fn check_source(source: IpAddr) -> Result<(), ConnectError> {
    open(&SocketAddr::new(source, 0), Some(source)).map(drop)
}

fn local(error: io::Error) -> ConnectError {
    ConnectError::of(error, State::Initiated, Duration::ZERO)
}

/// Returns a non-blocking socket for a connection to `address`, bound to `source` if given.
fn open(address: &SocketAddr, source: Option<IpAddr>) -> Result<OwnedFd, ConnectError> {
    let fd = socket::socket(Domain::from(address), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).map_err(local)?;
    socket::set_option(fd.as_fd(), SocketOption::NODELAY, 1).map_err(local)?;
    if let Some(source) = source {
        // Otherwise bind(2) reserves a port for this connection alone, and one address has about 28,000 (ip(7)).
        socket::set_option(fd.as_fd(), SocketOption::BIND_ADDRESS_NO_PORT, 1).map_err(local)?;
        socket::bind(fd.as_fd(), &SocketAddr::new(source, 0)).map_err(|error| match error.raw_os_error() {
            // From connect(2), the same error means that no port is free (ip(7)).
            Some(libc::EADDRNOTAVAIL) => ConnectError::NoSuchSource { source },
            _ => local(error),
        })?;
    }
    Ok(fd)
}

fn connect(fd: &OwnedFd, address: &SocketAddr) -> io::Result<()> {
    match socket::connect(fd.as_fd(), address) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    // If nothing listens on a port that the kernel may also choose for this socket, the socket can connect to itself (RFC 9293,
    // 3.5, simultaneous open). It would then echo perfectly.
    if address.ip().is_loopback() && !is_other(fd.as_fd(), address)? {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(())
}

/// Returns whether the far end of `fd`, at `address`, is another socket than `fd` itself.
fn is_other(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<bool> {
    Ok(socket::getsockname(fd)? != *address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Binding to the port that is called makes a socket connect to itself.
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
