//! The configuration of a server, the bounds of each field, and the combinations that are refused.

mod address;
mod builder;
#[cfg(feature = "proxy")]
mod proxy;

use std::net::SocketAddr;
use std::time::Duration;

pub use address::{AddressError, ListenAddress};
pub use builder::Builder;
#[cfg(feature = "proxy")]
pub use proxy::{ProxyMode, ProxyOptions};

/// The configuration of a server.
///
/// ```
/// use edgecho::server::Config;
///
/// let mut config = Config::default();
/// config.limits.max_per_ip = Some(10);
/// assert!(config.check().is_ok());
/// config.sockets.ipv6_only = true;
/// assert!(config.check().is_err(), "there is no IPv6 address to listen on");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Addresses to listen on. By default `127.0.0.1:7777`.
    pub listen: Vec<ListenAddress>,
    /// Limits on connections, rate and memory.
    pub limits: Limits,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Options of its sockets.
    pub sockets: SocketOptions,
    /// Busy-poll for this long before blocking, at most 1 s. A round trip is shorter by the time of a wake-up, and a CPU is busy. Zero, the
    /// default, blocks at once.
    pub busy_poll: Duration,
    /// Interval of log lines with statistics, from 100 ms to 20 days; none by default.
    pub stats_interval: Option<Duration>,
    /// Interval at which every connection is sent the number of connections, from 100 ms to 20 days; never by default.
    pub status_interval: Option<Duration>,
    /// Time without a byte either way after which a connection is sent a heartbeat, and again after each further such time, from 100 ms to 20
    /// days; none are sent by default.
    pub heartbeat: Option<Duration>,
    /// Times every turn of the loop, for [`Statistics::turn_times`](super::Statistics::turn_times): two readings of the clock for each turn. Off by
    /// default: only turns of many events are timed.
    pub time_turns: bool,
    /// Copies every byte on its way through the server. By default a stream is returned by splice(2), which hands the sender's own pages
    /// on. A peer on the same host that sends pages of a file (sendfile(2), splice(2), vmsplice(2)) and changes them later changes what
    /// was echoed but not yet read.
    pub copy: bool,
    /// The loop reads SIGINT, SIGTERM, SIGHUP and SIGUSR1. True by default. A program that handles signals itself sets this to false, and uses a [`Handle`](crate::server::Handle).
    pub signals: bool,
    /// The PROXY protocol, for a server behind a load balancer. Off by default.
    #[cfg(feature = "proxy")]
    pub proxy: Option<ProxyOptions>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 7777)).into()],
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            sockets: SocketOptions::default(),
            busy_poll: Duration::ZERO,
            stats_interval: None,
            status_interval: None,
            heartbeat: None,
            time_turns: false,
            copy: false,
            signals: true,
            #[cfg(feature = "proxy")]
            proxy: None,
        }
    }
}

/// Limits of a server. At the limits on connections, rate and memory, clients and connections wait. The other limits say what they do.
///
/// ```
/// use edgecho::server::{Limits, Server};
///
/// let mut limits = Limits::default();
/// limits.max_per_ip = Some(20);
/// limits.rate_limit = Some(1 << 20);
/// let builder = Server::builder().limits(limits);
/// # let _ = builder;
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Open connections, at least 1; at the limit new clients wait in the backlog. By default as many as `RLIMIT_NOFILE` leaves descriptors
    /// for.
    pub max_connections: Option<usize>,
    /// Descriptors that the program opens after the server listens, and that `max_connections` must leave room for, 0 by default. A
    /// [`Handle`](super::Handle) takes one. Without this, the server runs out of descriptors before it reaches its limit.
    pub reserved_descriptors: usize,
    /// Open connections per source address, at least 1: an IPv4 address, or the /64 network of an IPv6 address. A connection over the limit is
    /// closed at once. No limit by default.
    pub max_per_ip: Option<u32>,
    /// Bytes read from each connection per second, on average, from 100 B to 1 TiB; a tenth of that may be read at once. No limit by default.
    pub rate_limit: Option<u64>,
    /// Bytes that all connections may hold together: in outboxes, in unfinished pieces (lines, frames), and in input that a protocol has left. At the limit only connections that
    /// need no memory are read, 4 KiB at a time: those whose peer has acknowledged all that it was sent, so that there is room in the send
    /// buffer. One connection at a time may make its piece whole; if its peer stops sending for as long as the write timeout waits, it
    /// is closed. The limit is passed by one read, by that piece, and by up to 16 KiB for each connection with another piece. No limit by default:
    /// each outbox has its own.
    pub memory_limit: Option<u64>,
    /// Bytes that may be pending for one connection when it is sent bytes that answer no input of it: a message of another connection, a
    /// status, a heartbeat. A message over the limit is skipped as a whole, and counted. By default 256 KiB, at least 1 KiB.
    pub outbox_limit: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: None,
            reserved_descriptors: 0,
            max_per_ip: None,
            rate_limit: None,
            memory_limit: None,
            outbox_limit: 256 * 1024,
        }
    }
}

/// Timeouts of a server.
///
/// ```
/// use std::time::Duration;
///
/// use edgecho::server::{Server, Timeouts};
///
/// let mut timeouts = Timeouts::default();
/// timeouts.idle = Some(Duration::from_secs(60));
/// assert!(Server::builder().timeouts(timeouts).config().check().is_ok());
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Timeouts {
    /// Time without bytes from or to the peer after which a connection is closed in order, from 10 ms to 20 days. A peer takes bytes when its
    /// kernel acknowledges them. A connection whose input the server itself holds back is not idle. No timeout by default.
    pub idle: Option<Duration>,
    /// Time in which a peer must acknowledge some of its pending bytes, from 10 ms to 20 days. The peer is cut off after a fifth more than this,
    /// and at most half as much again. A kernel whose receive buffer is full acknowledges nothing until up to a sixteenth of the
    /// buffer, or a whole segment, has been read. With the default of 30 seconds, a peer that reads less than about 3.5 KB/s over loopback, where
    /// segments are large, looks stalled. The buffer of a peer that has read fast grows (tcp(7), `tcp_rmem`): a peer that has taken more than
    /// 15 MiB has proportionally longer, at 32 MiB 2.1 times as long, so that it may go on at 32 KB/s.
    pub write: Option<Duration>,
    /// Time after which a connection is closed in order, from 10 ms to 20 days. No limit by default.
    pub lifetime: Option<Duration>,
    /// Time for which open connections are still served in a drain, before they are closed in order. By default 5 seconds, at most a day.
    pub drain: Duration,
    /// Time between the first signal and the drain, in which new clients are still accepted and served: a load balancer needs it to see that
    /// the server is no longer ready ([`Stage::Leaving`](super::Stage::Leaving)). By default 0, at most a day. If the process was
    /// stopped at the end of this time (SIGSTOP), the time begins again.
    pub drain_delay: Duration,
}

impl Timeouts {
    /// The shortest idle, write or lifetime timeout.
    pub const MIN: Duration = Duration::from_millis(10);
    /// The longest idle, write or lifetime timeout: 20 days.
    pub const MAX: Duration = Duration::from_secs(20 * 24 * 60 * 60);
    /// The longest drain timeout, and the longest drain delay: a day.
    pub const MAX_DRAIN: Duration = Duration::from_secs(24 * 60 * 60);
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: None,
            write: Some(Duration::from_secs(30)),
            lifetime: None,
            drain: Duration::from_secs(5),
            drain_delay: Duration::ZERO,
        }
    }
}

/// Options of the listening sockets, inherited by the connections that they accept.
///
/// ```
/// use std::time::Duration;
///
/// use edgecho::server::{Keepalive, Server, SocketOptions};
///
/// let mut sockets = SocketOptions::default();
/// sockets.keepalive = Some(Keepalive::new(Duration::from_secs(60)));
/// sockets.backlog = 128;
/// assert!(Server::builder().sockets(sockets).config().check().is_ok());
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Connections that may wait in the kernel to be accepted (listen(2)), at least 1; `net.core.somaxconn` may cut it. By default 4,096.
    pub backlog: i32,
    /// `TCP_NODELAY`: send small segments at once. On by default.
    pub nodelay: bool,
    /// `SO_KEEPALIVE`. Off by default.
    pub keepalive: Option<Keepalive>,
    /// `SO_LINGER` with a time of 0: close with a reset. Off by default.
    pub reset_on_close: bool,
    /// `SO_RCVBUF`, in bytes, which the kernel doubles for its own bookkeeping (socket(7)). A buffer with a set size does not grow.
    pub recv_buffer: Option<u32>,
    /// `SO_SNDBUF`, in bytes, doubled in the same way.
    pub send_buffer: Option<u32>,
    /// `SO_REUSEPORT`: share the port with other processes that also set it. Off by default.
    pub reuse_port: bool,
    /// `TCP_DEFER_ACCEPT`: accept a connection only when its first bytes have come, or after this time (tcp(7); whole seconds).
    pub defer_accept: Option<Duration>,
    /// `TCP_USER_TIMEOUT`: time that sent bytes may stay unacknowledged (tcp(7); milliseconds).
    pub user_timeout: Option<Duration>,
    /// `IPV6_V6ONLY`: accept no IPv4 connections on IPv6 addresses. Off by default.
    pub ipv6_only: bool,
    /// `SO_BINDTODEVICE`: accept connections from this network interface only.
    pub bind_device: Option<String>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            nodelay: true,
            keepalive: None,
            reset_on_close: false,
            recv_buffer: None,
            send_buffer: None,
            reuse_port: false,
            defer_accept: None,
            user_timeout: None,
            ipv6_only: false,
            bind_device: None,
        }
    }
}

/// Keepalive probes to a silent peer (tcp(7)). Whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keepalive {
    /// `TCP_KEEPIDLE`: time without a segment before the first probe, from 1 s to 32,767 s.
    pub idle: Duration,
    /// `TCP_KEEPINTVL`: time between two probes, from 1 s to 32,767 s. The system's by default.
    pub interval: Option<Duration>,
    /// `TCP_KEEPCNT`: probes before the connection is given up, from 1 to 127. The system's by default.
    pub count: Option<u32>,
}

impl Keepalive {
    /// Returns probes after `idle`, with the system's interval and count.
    #[must_use]
    pub fn new(idle: Duration) -> Self {
        Self { idle, interval: None, count: None }
    }
}

/// An error in a configuration. Fields are named by their path in [`Config`], such as `timeouts.idle`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number or a duration is out of its bounds.
    #[error("{field} must be {bounds}")]
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// Its bounds, such as `at least 1`.
        bounds: &'static str,
    },
    /// `limits.max_connections` is more than the process may have descriptors.
    #[error(
        "limits.max_connections ({wanted}) is more than the {possible} that the limit on open descriptors leaves room for (RLIMIT_NOFILE is {limit}): raise it with 'ulimit -Hn'"
    )]
    TooManyConnections {
        /// The value of the field, or 1 if it has none.
        wanted: usize,
        /// Connections that there are descriptors for.
        possible: usize,
        /// The limit on descriptors.
        limit: u64,
    },
    /// A field has no effect, because another one takes effect first.
    #[error("{field} is more than {smaller}, so it can never be reached")]
    NeverReached {
        /// The field without an effect.
        field: &'static str,
        /// The field that takes effect first.
        smaller: &'static str,
    },
    /// `sockets.ipv6_only` is set, but no address to listen on is an IPv6 address.
    #[error("sockets.ipv6_only has no effect: there is no IPv6 address to listen on")]
    NoIpv6Address,
}

impl Config {
    /// Checks the bounds of all fields, and that no field makes another one pointless.
    ///
    /// # Errors
    /// Returns the first error found.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_with([])
    }

    /// Checks the fields of a server that also listens on `inherited` addresses.
    pub(super) fn check_with(&self, inherited: impl IntoIterator<Item = SocketAddr>) -> Result<(), ConfigError> {
        self.check_limits()?;
        self.check_times()?;
        self.check_sockets()?;
        #[cfg(feature = "proxy")]
        for (is_good, field, range) in self.proxy.iter().flat_map(ProxyOptions::checks) {
            bounds(is_good, field, range)?;
        }
        self.check_combinations(inherited)
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        let Limits { max_connections, max_per_ip, rate_limit, memory_limit, outbox_limit, reserved_descriptors: _ } =
            self.limits;
        bounds(max_connections != Some(0), "limits.max_connections", "at least 1")?;
        bounds(max_per_ip != Some(0), "limits.max_per_ip", "at least 1")?;
        let is_rate = |rate: u64| (100..=1 << 40).contains(&rate);
        bounds(rate_limit.is_none_or(is_rate), "limits.rate_limit", "from 100 B to 1 TiB a second")?;
        bounds(memory_limit.is_none_or(|bytes| bytes >= 65_536), "limits.memory_limit", "at least 64KiB, two read buffers")?;
        bounds(outbox_limit >= 1024, "limits.outbox_limit", "at least 1KiB")
    }

    fn check_times(&self) -> Result<(), ConfigError> {
        const BOUNDS: &str = "from 10ms to 20days";
        const INTERVAL_BOUNDS: &str = "from 100ms to 20days";
        let Timeouts { idle, write, lifetime, drain, drain_delay } = self.timeouts;
        let is_timeout = |time: Duration| (Timeouts::MIN..=Timeouts::MAX).contains(&time);
        bounds(idle.is_none_or(is_timeout), "timeouts.idle", BOUNDS)?;
        bounds(write.is_none_or(is_timeout), "timeouts.write", BOUNDS)?;
        bounds(lifetime.is_none_or(is_timeout), "timeouts.lifetime", BOUNDS)?;
        bounds(drain <= Timeouts::MAX_DRAIN, "timeouts.drain", "from 0s to 1day")?;
        bounds(drain_delay <= Timeouts::MAX_DRAIN, "timeouts.drain_delay", "from 0s to 1day")?;
        bounds(self.busy_poll <= Duration::from_secs(1), "busy_poll", "from 0s to 1s")?;
        let is_interval = |time: Duration| (Duration::from_millis(100)..=Timeouts::MAX).contains(&time);
        bounds(self.stats_interval.is_none_or(is_interval), "stats_interval", INTERVAL_BOUNDS)?;
        bounds(self.status_interval.is_none_or(is_interval), "status_interval", INTERVAL_BOUNDS)?;
        bounds(self.heartbeat.is_none_or(is_interval), "heartbeat", INTERVAL_BOUNDS)
    }

    fn check_sockets(&self) -> Result<(), ConfigError> {
        let SocketOptions { backlog, keepalive, defer_accept, user_timeout, .. } = self.sockets;
        bounds(backlog >= 1, "sockets.backlog", "at least 1")?;
        let whole_seconds = |time: Duration| (1..=32_767).contains(&time.as_secs()) && time.subsec_nanos() == 0;
        bounds(defer_accept.is_none_or(whole_seconds), "sockets.defer_accept", "whole seconds, from 1s to 32767s")?;
        if let Some(Keepalive { idle, interval, count }) = keepalive {
            let are_good =
                whole_seconds(idle) && interval.is_none_or(whole_seconds) && count.is_none_or(|n| (1..=127).contains(&n));
            bounds(are_good, "sockets.keepalive", "whole seconds from 1s to 32767s, and a count from 1 to 127")?;
        }
        let is_user_timeout = |time: Duration| (1..=i32::MAX as u128).contains(&time.as_millis());
        bounds(user_timeout.is_none_or(is_user_timeout), "sockets.user_timeout", "from 1ms to 24days")
    }

    fn check_combinations(&self, inherited: impl IntoIterator<Item = SocketAddr>) -> Result<(), ConfigError> {
        let Self { limits, timeouts, sockets, .. } = self;
        let never_reached = |field, smaller| Err(ConfigError::NeverReached { field, smaller });
        if let (Some(idle), Some(lifetime)) = (timeouts.idle, timeouts.lifetime)
            && idle > lifetime
        {
            return never_reached("timeouts.idle", "timeouts.lifetime");
        }
        if let (Some(each), Some(all)) = (limits.max_per_ip, limits.max_connections)
            && each as usize > all
        {
            return never_reached("limits.max_per_ip", "limits.max_connections");
        }
        let mut addresses = self.listen.iter().flat_map(ListenAddress::addresses).copied().chain(inherited);
        if sockets.ipv6_only && addresses.all(|address| address.is_ipv4()) {
            return Err(ConfigError::NoIpv6Address);
        }
        Ok(())
    }
}

fn bounds(is_good: bool, field: &'static str, bounds: &'static str) -> Result<(), ConfigError> {
    if is_good { Ok(()) } else { Err(ConfigError::OutOfBounds { field, bounds }) }
}

#[cfg(test)]
mod tests;
