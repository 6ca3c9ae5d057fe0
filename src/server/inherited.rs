//! Listening sockets that another process has opened and passes on.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::error::Error;
use crate::sys::socket::{self, SocketOption};

/// The time for which accept4(2) may block. `O_NONBLOCK` belongs to the socket, so that another process that has it open can clear the flag: systemd
/// does when it starts another service with the socket. One client would then block the loop until the next one comes.
const LONGEST_ACCEPT_US: u16 = 1;

/// A listening TCP socket that another process has opened, for [`Server::bind_with`](super::Server::bind_with).
///
/// The other process keeps the socket open, or opens it for the next server, as a service manager does. So this server never shuts the socket down
/// and never discards its queue. When a drain begins, the server stops accepting at once and closes its descriptor; the next server accepts
/// the clients in the queue.
#[derive(Debug)]
pub struct Inherited {
    fd: OwnedFd,
    name: String,
}

impl Inherited {
    /// Returns a socket with a name for error messages, which may be empty.
    #[must_use]
    pub fn new(fd: OwnedFd, name: impl Into<String>) -> Self {
        Self { fd, name: name.into() }
    }

    /// Checks that this is a listening TCP socket, makes it non-blocking, as the edge-triggered loop requires, and returns it with its address.
    ///
    /// # Errors
    /// Returns [`Error::Inherited`] for any other descriptor.
    pub(super) fn into_listener(self) -> Result<(OwnedFd, SocketAddr), Error> {
        let Self { fd, name } = self;
        let label = Label { number: fd.as_raw_fd(), name }.to_string();
        let refused = |reason: String| Error::Inherited { descriptor: label.clone(), reason };
        check_kind(fd.as_fd()).map_err(refused)?;
        socket::set_nonblocking(fd.as_fd())
            .map_err(|error| refused(format!("it cannot be made non-blocking (ioctl): {error}")))?;
        socket::set_receive_timeout(fd.as_fd(), LONGEST_ACCEPT_US)
            .map_err(|error| refused(format!("accepting has no time limit (setsockopt): {error}")))?;
        let address = socket::getsockname(fd.as_fd());
        let address = address.map_err(|error| refused(format!("its address is unknown (getsockname): {error}")))?;
        Ok((fd, address))
    }
}

/// A socket without a name.
impl From<TcpListener> for Inherited {
    fn from(listener: TcpListener) -> Self {
        Self::new(listener.into(), "")
    }
}

/// The name of a descriptor in an error.
struct Label {
    number: i32,
    name: String,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "descriptor {}", self.number),
            name => write!(f, "descriptor {} ({name:?})", self.number),
        }
    }
}

/// Checks that a descriptor is a listening TCP socket (socket(7)). Otherwise returns the reason, and what to do.
fn check_kind(fd: BorrowedFd<'_>) -> Result<(), String> {
    let get = |option| {
        socket::get_option(fd, option).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTSOCK) => "it is not a socket; in systemd.socket(5), use ListenStream=".to_owned(),
            _ => format!("its kind is unknown (getsockopt): {error}"),
        })
    };
    let wrong = |what: String| Err(format!("it is {what}; in systemd.socket(5), use ListenStream= with a port"));
    match get(SocketOption::DOMAIN)? {
        libc::AF_INET | libc::AF_INET6 => {}
        libc::AF_UNIX => return wrong("a UNIX socket".to_owned()),
        family => return wrong(format!("a socket of the address family {family}")),
    }
    match (get(SocketOption::TYPE)?, get(SocketOption::PROTOCOL)?) {
        (libc::SOCK_STREAM, libc::IPPROTO_TCP) => {}
        (libc::SOCK_DGRAM, libc::IPPROTO_UDP) => return wrong("a UDP socket".to_owned()),
        (_, protocol) => return wrong(format!("a socket of the IP protocol {protocol}")),
    }
    if get(SocketOption::ACCEPTCONN)? == 0 {
        return Err("it is a TCP socket that does not listen; in systemd.socket(5), use Accept=no".to_owned());
    }
    Ok(())
}

/// Returns the error for an option that only the opener of a socket can set, unless the socket has it.
///
/// # Errors
/// Returns [`Error::TooLate`] if the socket does not have the option, and [`Error::Option`] if the kernel does not tell.
pub(super) fn require(
    fd: BorrowedFd<'_>,
    address: &SocketAddr,
    (option, setting): (&'static str, &'static str),
    kernel_option: SocketOption,
) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Option { option, address: *address, error };
    match socket::get_option(fd, kernel_option).map_err(failed)? {
        0 => Err(Error::TooLate { option, address: *address, setting }),
        _ => Ok(()),
    }
}
