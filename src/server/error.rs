//! What can go wrong for the server as a whole, in words that say what to do.

use std::any::Any;
use std::io;
use std::net::SocketAddr;

use super::config::ConfigError;
use super::fault::Fault;

/// Why a server could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", Fault::of(.source).hint())]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },

    /// A socket option cannot be set.
    #[error("cannot set {option} on {address}: {source}")]
    Option {
        /// The option's flag.
        option: &'static str,
        /// The address of the socket.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },

    /// The protocol could not go on or could not finish, or has panicked.
    #[error("{reason}")]
    Protocol {
        /// Why.
        reason: String,
    },

    /// A call failed that nothing can do without.
    #[error("cannot {action}: {source}: {}", Fault::of(.source))]
    System {
        /// What was to be done, and by which call.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// Returns the error of a protocol that has panicked.
    pub(super) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        Self::Protocol { reason: format!("the protocol panicked: {text}") }
    }

    /// For `map_err`: names what was being done.
    pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}
