//! The taxonomy of what goes wrong: a cause each, what it means, and what is done about it.

use std::{fmt, io};

/// Why a call failed, or a connection ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// `ETIMEDOUT`: the peer no longer acknowledges what it is sent. The connection is closed.
    TimedOut,
    /// `ECONNRESET`, `ECONNABORTED`: the peer has ended the connection with a reset. It is closed; nobody else is concerned.
    Reset,
    /// `EPIPE`, `ENOTCONN`: there is nobody to write to any more. The connection is closed.
    BrokenPipe,
    /// `ECONNREFUSED`: nobody listens at that address.
    Refused,
    /// `EHOSTUNREACH`, `ENETUNREACH`, `ENETDOWN`, `EHOSTDOWN`: there is no way to the peer. The connection is closed.
    Unreachable,
    /// `EADDRINUSE`: another socket has the address. The server does not start.
    AddressInUse,
    /// `EADDRNOTAVAIL`: no interface has the address. The server does not start.
    AddressNotAvailable,
    /// `EAFNOSUPPORT`: the kernel does not have the family of the address. The server does not start.
    FamilyNotSupported,
    /// `EACCES`, `EPERM`: the process may not. The server does not start; while accepting, one connection is lost to a firewall.
    NotPermitted,
    /// `EINTR`: a signal came first. The call is made again.
    Interrupted,
    /// `EMFILE`, `ENFILE`: descriptors have run out, of the process or of the system. New clients wait in the kernel's queue.
    OutOfDescriptors,
    /// `ENOMEM`, `ENOBUFS`, `ENOSPC`: the kernel's memory, or a limit on it, has run out. New clients wait in the kernel's queue.
    OutOfMemory,
    /// `ECANCELED`, and what the drain or a second signal cuts off: its time was up. Counted as [`Reason::Aborted`](super::Reason).
    Cancelled,
    /// Any other error. A connection is closed; a call without which nothing goes on ends the server.
    Other,
}

impl Fault {
    /// The cause of an error.
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
            Some(libc::ECANCELED) => Self::Cancelled,
            _ => Self::Other,
        }
    }

    /// What a user can do about it where an address was to be listened on, to be put behind the kernel's words; empty where there
    /// is nothing to do.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::AddressInUse => "; another socket has this port: choose another port, or find its owner with 'ss -ltnp'",
            Self::AddressNotAvailable => {
                "; no interface of this host has that address: 'ip address' lists those that there are"
            }
            Self::NotPermitted => {
                "; ports under 1024 need CAP_NET_BIND_SERVICE: choose a higher port, or grant it with setcap(8)"
            }
            Self::FamilyNotSupported => "; this kernel does not have that address family: choose an address of another",
            Self::OutOfDescriptors => "; the limit on open descriptors is reached: raise it with 'ulimit -n'",
            Self::OutOfMemory => "; the kernel is short of memory, or of what its limits allow",
            Self::TimedOut | Self::Reset | Self::BrokenPipe | Self::Refused | Self::Unreachable => "",
            Self::Interrupted | Self::Cancelled | Self::Other => "",
        }
    }
}

/// What it means, to be put behind the kernel's words in a log line.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "the peer no longer acknowledges",
            Self::Reset => "the peer ended it with a reset",
            Self::BrokenPipe => "there is nobody to write to any more",
            Self::Refused => "nobody listens there",
            Self::Unreachable => "there is no way to the peer",
            Self::AddressInUse => "another socket has the address",
            Self::AddressNotAvailable => "no interface has the address",
            Self::FamilyNotSupported => "the kernel does not have the address's family",
            Self::NotPermitted => "the process may not",
            Self::Interrupted => "a signal came first",
            Self::OutOfDescriptors => "descriptors have run out, and 'ulimit -n' may allow more",
            Self::OutOfMemory => "the kernel is short of memory, or of what its limits allow",
            Self::Cancelled => "its time was up",
            Self::Other => "nothing is known to be done about it",
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
            (libc::ECANCELED, Fault::Cancelled),
            (libc::EXDEV, Fault::Other),
        ] {
            assert_eq!(Fault::of(&io::Error::from_raw_os_error(errno)), fault);
        }
        assert_eq!(Fault::of(&io::Error::other("not the kernel's")), Fault::Other);
    }
}
