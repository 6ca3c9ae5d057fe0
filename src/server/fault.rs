//! The causes of errors: the errno of each, its meaning, and what the server does about it.

use std::{fmt, io};

/// The cause of a failed call, or of a connection that ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// `ETIMEDOUT`: the peer no longer acknowledges bytes. The connection is closed.
    TimedOut,
    /// `ECONNRESET`, `ECONNABORTED`: the peer has reset the connection. It is closed; no other connection is affected.
    Reset,
    /// `EPIPE`, `ENOTCONN`: the peer is gone. The connection is closed.
    BrokenPipe,
    /// `ECONNREFUSED`: no socket listens on that address.
    Refused,
    /// `EHOSTUNREACH`, `ENETUNREACH`, `ENETDOWN`, `EHOSTDOWN`: no route leads to the peer. The connection is closed.
    Unreachable,
    /// `EADDRINUSE`: another socket has the address. The server does not start.
    AddressInUse,
    /// `EADDRNOTAVAIL`: no interface has the address. The server does not start.
    AddressNotAvailable,
    /// `EAFNOSUPPORT`: the kernel does not support the address family. The server does not start.
    FamilyNotSupported,
    /// `EACCES`, `EPERM`: the process lacks a permission. The server does not start; while accepting, a firewall has refused one connection.
    NotPermitted,
    /// `EINTR`: a signal interrupted the call. It is made again.
    Interrupted,
    /// `EMFILE`, `ENFILE`: descriptors have run out, of the process or of the system. New clients wait in the backlog.
    OutOfDescriptors,
    /// `ENOMEM`, `ENOBUFS`, `ENOSPC`: memory of the kernel or of the process, or a limit on it, has run out. New clients wait in the backlog.
    OutOfMemory,
    /// Any other error. A connection is closed; a call that the server cannot do without ends it.
    Other,
}

impl Fault {
    /// Returns the cause of an error.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ETIMEDOUT) => Self::TimedOut,
            Some(libc::ECONNRESET | libc::ECONNABORTED) => Self::Reset,
            Some(libc::EPIPE | libc::ENOTCONN) => Self::BrokenPipe,
            Some(libc::ECONNREFUSED) => Self::Refused,
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => Self::Unreachable,
            Some(libc::EADDRINUSE) => Self::AddressInUse,
            Some(libc::EADDRNOTAVAIL) => Self::AddressNotAvailable,
            Some(libc::EAFNOSUPPORT) => Self::FamilyNotSupported,
            Some(libc::EACCES | libc::EPERM) => Self::NotPermitted,
            Some(libc::EINTR) => Self::Interrupted,
            Some(libc::EMFILE | libc::ENFILE) => Self::OutOfDescriptors,
            Some(libc::ENOMEM | libc::ENOBUFS | libc::ENOSPC) => Self::OutOfMemory,
            None if error.kind() == io::ErrorKind::OutOfMemory => Self::OutOfMemory,
            _ => Self::Other,
        }
    }

    /// Returns advice for a server that cannot listen on an address, to follow the kernel's message; empty if there is none.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::AddressInUse => "; another socket has this port: choose another port, or find its owner with 'ss -ltnp'",
            Self::AddressNotAvailable => "; no interface of this host has that address: 'ip address' lists the addresses",
            Self::NotPermitted => {
                "; ports under 1024 need CAP_NET_BIND_SERVICE: choose a higher port, or grant it with setcap(8)"
            }
            Self::FamilyNotSupported => {
                "; this kernel does not support that address family: choose an address of another one"
            }
            Self::OutOfDescriptors => "; the limit on open descriptors is reached: raise it with 'ulimit -n'",
            Self::OutOfMemory => "; the system is short of memory, or of what its limits allow",
            Self::TimedOut | Self::Reset | Self::BrokenPipe | Self::Refused | Self::Unreachable => "",
            Self::Interrupted | Self::Other => "",
        }
    }
}

/// The meaning of the error, to follow the kernel's message in a log line.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "the peer no longer acknowledges",
            Self::Reset => "the peer reset the connection",
            Self::BrokenPipe => "the peer is gone",
            Self::Refused => "no socket listens on that address",
            Self::Unreachable => "no route leads to the peer",
            Self::AddressInUse => "another socket has the address",
            Self::AddressNotAvailable => "no interface has the address",
            Self::FamilyNotSupported => "the kernel does not support the address family",
            Self::NotPermitted => "the process lacks the permission",
            Self::Interrupted => "a signal interrupted the call",
            Self::OutOfDescriptors => "descriptors have run out, and 'ulimit -n' may allow more",
            Self::OutOfMemory => "the system is short of memory, or of what its limits allow",
            Self::Other => "no advice is known",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_errno_has_its_cause() {
        for (errno, fault) in [
            (libc::ECONNRESET, Fault::Reset),
            (libc::EPIPE, Fault::BrokenPipe),
            (libc::EADDRINUSE, Fault::AddressInUse),
            (libc::EMFILE, Fault::OutOfDescriptors),
            (libc::EXDEV, Fault::Other),
        ] {
            assert_eq!(Fault::of(&io::Error::from_raw_os_error(errno)), fault);
        }
        assert_eq!(Fault::of(&io::ErrorKind::OutOfMemory.into()), Fault::OutOfMemory);
        assert_eq!(Fault::of(&io::Error::other("not the kernel's")), Fault::Other);
    }
}
