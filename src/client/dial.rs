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
    let fd = open(address, source)?;
    connect(&fd, address).map_err(local)?;
    Ok(fd)
}

/// Makes sure that this host has the address `source`.
pub(super) fn check_source(source: IpAddr) -> Result<(), ConnectError> {
    open(&SocketAddr::new(source, 0), Some(source)).map(drop)
}

fn local(error: io::Error) -> ConnectError {
    ConnectError::of(error, State::Initiated, Duration::ZERO)
}

/// A socket for a connection to `address`, from `source` if there is one.
fn open(address: &SocketAddr, source: Option<IpAddr>) -> Result<OwnedFd, ConnectError> {
    let fd = socket::socket(Domain::from(address), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).map_err(local)?;
    socket::set_option(fd.as_fd(), SocketOption::NODELAY, 1).map_err(local)?;
    if let Some(source) = source {
        // Without it bind(2) would take a port for this connection alone, and 28,000 would be all that one address has.
        socket::set_option(fd.as_fd(), SocketOption::BIND_ADDRESS_NO_PORT, 1).map_err(local)?;
        socket::bind(fd.as_fd(), &SocketAddr::new(source, 0)).map_err(|error| match error.raw_os_error() {
            // Of connect(2) the same error says that the ports are used up (ip(7)).
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
    // Where nobody listens on a port that the kernel may also choose for us, a connection can be made to itself (RFC 9293, 3.5,
    // simultaneous open), and would echo splendidly.
    if address.ip().is_loopback() && !is_other(fd.as_fd(), address)? {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(())
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
