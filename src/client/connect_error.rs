//! Why there is no connection that could be used, in words that tell one reason from another.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::connector::{HANDSHAKE_BYTES, State};
use super::diagnosis::Quoted;

/// Why there is no connection that could be used.
#[derive(Debug)]
pub enum ConnectError {
    /// Nobody listens there.
    Refused,
    /// The far end reset the connection.
    Reset {
        /// When it did.
        state: State,
    },
    /// The far end closed the connection before it had returned the handshake.
    Closed {
        /// When it did.
        state: State,
        /// How much of the handshake had come back.
        returned_bytes: usize,
    },
    /// A state lasted too long.
    TimedOut {
        /// Which.
        state: State,
        /// How long it might.
        after: Duration,
        /// How much of the handshake had come back.
        returned_bytes: usize,
    },
    /// There is no way there.
    Unreachable(io::Error),
    /// The far end returned the handshake changed.
    Mangled {
        /// The first byte that is different, counted from 0.
        at: usize,
        /// Its value as it was sent.
        sent: u8,
        /// Its value as it came back.
        received: u8,
    },
    /// The far end said something that nobody had sent to it.
    NotEcho {
        /// What.
        bytes: Vec<u8>,
        /// What it looks like, if that is known.
        looks_like: Option<&'static str>,
    },
    /// No interface of this host has the address that the connection was to come from.
    NoSuchSource {
        /// That address.
        source: IpAddr,
    },
    /// It was no longer wanted.
    Stopped,
    /// This host could not do it.
    Local(io::Error),
}

impl ConnectError {
    /// What an error of a system call means, in a state that has lasted for so long.
    #[must_use]
    pub fn of(error: io::Error, state: State, lasted: Duration) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Self::Refused,
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Self::Reset { state },
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN | libc::EACCES | libc::EPERM) => {
                Self::Unreachable(error)
            }
            // The kernel's own patience, by the number of its SYNs (tcp(7), tcp_syn_retries).
            Some(libc::ETIMEDOUT) => Self::TimedOut { state, after: lasted, returned_bytes: 0 },
            _ => Self::Local(error),
        }
    }

    /// In a word.
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
            Self::Stopped => "stopped",
            Self::NoSuchSource { .. } | Self::Local(_) => "not started",
        }
    }
}

impl std::error::Error for ConnectError {}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DURING: &str = "while it was being told from other services";
        match self {
            Self::Refused => write!(f, "connection refused: nobody listens there"),
            Self::Reset { state: State::Initiated } => write!(f, "connection reset while it was being made"),
            Self::Reset { .. } => write!(f, "connection reset by the peer {DURING}"),
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
            Self::TimedOut { returned_bytes: 0, after, .. } => write!(
                f,
                "not an echo service, or one that is stuck: it returned nothing of the handshake within {after:?} (--no-handshake goes \
                on without)"
            ),
            Self::TimedOut { returned_bytes, after, .. } => {
                write!(f, "only {returned_bytes} of {HANDSHAKE_BYTES} bytes of the handshake came back within {after:?}")
            }
            Self::Unreachable(error) => write!(f, "host unreachable: {error}"),
            Self::Mangled { at, sent, received } => write!(
                f,
                "not an echo service: byte {at} of the handshake came back as {received:#04x} instead of {sent:#04x} (--no-handshake \
                goes on all the same)"
            ),
            Self::NotEcho { bytes, looks_like: Some(service) } => {
                write!(f, "not an echo service: this is {service}, it said {}", Quoted(bytes))
            }
            Self::NotEcho { bytes, looks_like: None } => {
                write!(f, "not an echo service: it said {}, which nobody had sent to it", Quoted(bytes))
            }
            Self::NoSuchSource { source } => write!(
                f,
                "no interface of this host has the address {source} that the connections are to come from (bind: EADDRNOTAVAIL); \
                 'ip address' lists those that there are"
            ),
            Self::Stopped => write!(f, "stopped before there was a connection"),
            Self::Local(error) => match error.raw_os_error() {
                Some(libc::EADDRNOTAVAIL) => write!(
                    f,
                    "no free local port: {error}; spread the connections over more source addresses (--source 127.0.0.1-127.0.0.8)"
                ),
                Some(libc::EMFILE) => {
                    write!(
                        f,
                        "out of descriptors: {error}; raise the limit with 'ulimit -n', or use more threads (--threads)"
                    )
                }
                _ => write!(f, "cannot connect: {error}"),
            },
        }
    }
}

/// What the first bytes of some services look like.
const SERVICES: [(&[u8], &str); 13] = [
    (b"HTTP/", "an HTTP server"),
    (b"<!DOCTYPE", "an HTTP server"),
    (b"<html", "an HTTP server"),
    (b"SSH-", "an SSH server (RFC 4253)"),
    (b"220", "an SMTP or FTP server (RFC 5321, RFC 959)"),
    (b"+OK", "a POP3 server (RFC 1939)"),
    (b"* OK", "an IMAP server (RFC 9051)"),
    (b"-ERR", "a Redis server"),
    (b"ERROR\r\n", "a memcached server"),
    (b"RFB ", "a VNC server (RFC 6143)"),
    (b"\x15\x03", "a TLS server (RFC 8446)"),
    (b"\xff\xfb", "a Telnet server (RFC 854)"),
    (b"\xff\xfd", "a Telnet server (RFC 854)"),
];

/// Tells an echo that changes bytes from a service that is something else.
pub(super) fn not_echo(expected: &[u8], received: &[u8]) -> ConnectError {
    let looks_like = SERVICES.iter().find(|(first, _)| received.starts_with(first)).map(|&(_, service)| service);
    let same = expected.iter().zip(received).filter(|(sent, received)| sent == received).count();
    match expected.iter().zip(received).enumerate().find(|(_, (sent, received))| sent != received) {
        // Of 16 random bytes, chance makes 4 the same once in 2 million times.
        Some((at, (&sent, &received))) if looks_like.is_none() && same >= 4 => ConnectError::Mangled { at, sent, received },
        _ => ConnectError::NotEcho { bytes: received.to_vec(), looks_like },
    }
}
