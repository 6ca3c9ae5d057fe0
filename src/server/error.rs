//! The errors of a server as a whole, with a hint at what to do.

use std::any::Any;
use std::io;
use std::net::SocketAddr;

use super::config::ConfigError;
use super::fault::Fault;

/// An error that keeps a server from starting, or ends it. Its message contains the kernel's error, which is therefore not its
/// [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// The server cannot listen on an address.
    #[error("cannot listen on {address}: {error}{}", Fault::of(.error).hint())]
    Listen {
        /// The address in the configuration.
        address: SocketAddr,
        /// The kernel's error.
        error: io::Error,
    },

    /// A socket option cannot be set.
    #[error("cannot set {option} on {address}: {error}")]
    Option {
        /// The field of the configuration, such as `sockets.keepalive`; or the kernel's name of an option that is always set, such as
        /// `SO_REUSEADDR`.
        option: &'static str,
        /// The address of the socket.
        address: SocketAddr,
        /// The kernel's error.
        error: io::Error,
    },

    /// A descriptor that was passed on is not a listening TCP socket.
    #[error("cannot serve the inherited {descriptor}: {reason}")]
    Inherited {
        /// The descriptor: its number, and its name, if it has one.
        descriptor: String,
        /// The reason, and what to do.
        reason: String,
    },

    /// An option takes effect only before bind(2), and an inherited socket was bound without it.
    #[error(
        "cannot set {option} on the inherited socket {address}, which is bound already; in systemd.socket(5), use {setting}"
    )]
    TooLate {
        /// The field of the configuration, such as `sockets.reuse_port`.
        option: &'static str,
        /// The address of the socket.
        address: SocketAddr,
        /// The setting of the socket unit that has the same effect.
        setting: &'static str,
    },

    /// The protocol could not go on or could not finish, or has panicked.
    #[error("{reason}")]
    Protocol {
        /// The description that the protocol gave.
        reason: String,
    },

    /// A system call failed that the server cannot do without.
    #[error("cannot {action}: {error}: {}", Fault::of(.error))]
    System {
        /// The attempt and its system call, such as `wait for events (epoll_wait)`.
        action: &'static str,
        /// The kernel's error.
        error: io::Error,
    },
}

impl Error {
    /// Returns the error of a protocol that has panicked.
    pub(super) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        Self::Protocol { reason: format!("the protocol panicked: {text}") }
    }

    /// Returns a converter for `map_err` that names the attempt.
    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { action, error }
    }
}
