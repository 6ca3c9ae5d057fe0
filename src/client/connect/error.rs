//! The reasons why there is no usable connection, each with its own message.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::handshake::HANDSHAKE_BYTES;
use super::state::State;
use crate::client::bytes::{ECHOED_HEADER, Quoted};

/// The reason why there is no usable connection. Its text includes the system's error, if there is one.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing listens at the address.
    Refused,
    /// The far end reset the connection.
    Reset {
        /// The state in which the reset came.
        state: State,
    },
    /// The far end closed the connection before it had returned the handshake.
    Closed {
        /// The state in which the FIN came.
        state: State,
        /// The number of bytes of the handshake that had come back.
        returned_bytes: usize,
    },
    /// A state exceeded its timeout.
    TimedOut {
        /// The state.
        state: State,
        /// The timeout, or how long the kernel tried.
        after: Duration,
        /// The number of bytes of the handshake that had come back.
        returned_bytes: usize,
    },
    /// No route to the far end, or a firewall forbids it.
    Unreachable(io::Error),
    /// The far end returned the handshake changed.
    Mangled {
        /// The index of the first changed byte.
        at: usize,
        /// Its value as it was sent.
        sent: u8,
        /// Its value as it came back.
        received: u8,
    },
    /// The far end sent bytes that it had not received.
    NotEcho {
        /// The bytes.
        bytes: Vec<u8>,
        /// The service that they look like, if known.
        looks_like: Option<&'static str>,
    },
    /// The far end returned the PROXY header, which was meant for itself.
    ProxyEchoed,
    /// No interface of this host has the source address.
    NoSuchSource {
        /// The source address.
        source: IpAddr,
    },
    /// The caller stopped connecting.
    Stopped,
    /// This host failed, for example because it ran out of ports or descriptors.
    Local(io::Error),
}

impl ConnectError {
    /// Returns the reason for the error of a system call, in a state that has lasted for `lasted`.
    #[must_use]
    pub fn of(error: io::Error, state: State, lasted: Duration) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Self::Refused,
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Self::Reset { state },
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN | libc::EACCES | libc::EPERM) => {
                Self::Unreachable(error)
            }
            // The kernel gave up after its number of SYNs (tcp(7), tcp_syn_retries).
            Some(libc::ETIMEDOUT) => Self::TimedOut { state, after: lasted, returned_bytes: 0 },
            _ => Self::Local(error),
        }
    }

    /// Returns the reason in a few words.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset { .. } => "reset",
            Self::Closed { .. } => "closed",
            Self::TimedOut { .. } => "timed out",
            Self::Unreachable(_) => "unreachable",
            Self::Mangled { .. } => "mangled",
            Self::NotEcho { .. } => "not an echo service",
            Self::ProxyEchoed => ECHOED_HEADER,
            Self::Stopped => "stopped",
            Self::NoSuchSource { .. } | Self::Local(_) => "not started",
        }
    }
}

impl std::error::Error for ConnectError {}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => write!(f, "connection refused: nothing listens there"),
            Self::Reset { state: State::Initiated } => write!(f, "connection reset while connecting"),
            Self::Reset { .. } => write!(f, "connection reset by the peer during the handshake"),
            Self::Closed { returned_bytes: 0, .. } => {
                write!(f, "not an echo service: it closed the connection without returning anything of the handshake")
            }
            Self::Closed { returned_bytes, .. } => {
                write!(
                    f,
                    "the peer closed the connection after {returned_bytes} of {HANDSHAKE_BYTES} bytes of the handshake"
                )
            }
            Self::TimedOut { state: State::Initiated, after, .. } => {
                write!(f, "connection timed out: no answer within {after:?}")
            }
            Self::TimedOut { returned_bytes: 0, after, .. } => {
                write!(f, "not an echo service, or a stuck one: it returned nothing of the handshake within {after:?}")
            }
            Self::TimedOut { returned_bytes, after, .. } => {
                write!(f, "only {returned_bytes} of {HANDSHAKE_BYTES} bytes of the handshake came back within {after:?}")
            }
            Self::Unreachable(error) => write!(f, "host unreachable: {error}"),
            Self::Mangled { at, sent, received } => write!(
                f,
                "not an echo service: byte {at} of the handshake came back as {received:#04x} instead of {sent:#04x}"
            ),
            Self::NotEcho { bytes, looks_like: Some(service) } => {
                write!(f, "not an echo service: this is {service}, it said {}", Quoted(bytes))
            }
            Self::NotEcho { bytes, looks_like: None } => {
                write!(f, "not an echo service: it said {}, which it had not received", Quoted(bytes))
            }
            Self::ProxyEchoed => write!(f, "the far end echoed the PROXY header: it does not accept the PROXY protocol"),
            Self::NoSuchSource { source } => write!(
                f,
                "no interface of this host has the address {source} (bind: EADDRNOTAVAIL); 'ip address' lists the addresses"
            ),
            Self::Stopped => write!(f, "stopped before a connection was open"),
            Self::Local(error) => match error.raw_os_error() {
                Some(libc::EADDRNOTAVAIL) => {
                    write!(f, "no free local port: {error}; spread the connections over more source addresses")
                }
                Some(libc::EMFILE) => {
                    write!(f, "out of descriptors: {error}; raise the limit with 'ulimit -n', or use more threads")
                }
                _ => write!(f, "cannot connect: {error}"),
            },
        }
    }
}
