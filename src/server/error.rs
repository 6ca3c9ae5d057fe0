//! What can go wrong for the server as a whole, in words that say what to do.

use std::io;
use std::net::SocketAddr;

/// Why a server could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", hint(.source))]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },

    /// A call failed that nothing can do without.
    #[error("cannot {action}: {source}")]
    System {
        /// What was to be done, and by which call.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: names what was being done.
    pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}

/// What a user can do about an error of listening or accepting, to be put behind it.
pub(super) fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "; another socket has this port: choose another port with --listen, or find its owner with 'ss -ltnp'"
        }
        Some(libc::EADDRNOTAVAIL) => "; no interface of this host has that address: 'ip address' lists those that there are",
        Some(libc::EACCES) => {
            "; ports under 1024 need CAP_NET_BIND_SERVICE: choose a higher port, or grant it with setcap(8)"
        }
        Some(libc::EAFNOSUPPORT) => "; this kernel does not have that address family: choose an address of another",
        Some(libc::EMFILE) => "; the limit on open descriptors is reached: raise it with 'ulimit -n'",
        _ => "",
    }
}
