//! The options of the PROXY protocol.

use std::time::Duration;

use ipnet::IpNet;

/// The PROXY protocol: load balancers send a header with the address of the client in front of each connection's first byte.
///
/// ```
/// use std::time::Duration;
///
/// use edgecho::server::{ProxyMode, ProxyOptions, Server};
///
/// let mut options = ProxyOptions::new(ProxyMode::Require, vec!["10.0.0.0/8".parse()?]);
/// options.timeout = Duration::from_secs(3);
/// let builder = Server::builder().configure(|config| config.proxy = Some(options));
/// assert!(builder.config().check().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProxyOptions {
    /// The connections that must begin with a header.
    pub mode: ProxyMode,
    /// The networks of trusted peers, at least one: only they may send a header, for it can name any address as the client's. Peers of all
    /// networks are in `0.0.0.0/0` and `::/0`. An IPv4 client of an IPv6 listener is matched by its IPv4 address.
    pub from: Vec<IpNet>,
    /// Time in which the header must be whole, from 10 ms to 1 hour. By default 5 seconds. The specification recommends at least 3 seconds, to
    /// cover a retransmission.
    pub timeout: Duration,
}

/// The connections that must begin with a header, with [`ProxyOptions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyMode {
    /// Each connection begins with a header. Connections of peers that are not trusted are closed.
    Require,
    /// A trusted peer may send a header. As soon as its first bytes cannot be a header, or if none comes in time, it is a client itself. Other
    /// peers are clients, and all their bytes are data.
    Optional,
}

impl ProxyOptions {
    /// The shortest timeout.
    pub const MIN_TIMEOUT: Duration = Duration::from_millis(10);
    /// The longest timeout.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(60 * 60);

    /// Returns options with the default timeout.
    #[must_use]
    pub fn new(mode: ProxyMode, from: Vec<IpNet>) -> Self {
        Self { mode, from, timeout: Duration::from_secs(5) }
    }

    /// Returns for each field whether it is within its bounds, its name, and the bounds.
    pub(super) fn checks(&self) -> [(bool, &'static str, &'static str); 2] {
        let is_timeout = (Self::MIN_TIMEOUT..=Self::MAX_TIMEOUT).contains(&self.timeout);
        [
            (!self.from.is_empty(), "proxy.from", "at least one network; 0.0.0.0/0 and ::/0 hold all peers"),
            (is_timeout, "proxy.timeout", "from 10ms to 1h"),
        ]
    }
}
