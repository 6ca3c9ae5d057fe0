//! The options of a flood, and their bounds.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::sizes::Sizes;
use crate::client::bytes::Framing;
use crate::client::connect::{ProxyVersion, Timeouts};
use crate::client::target::Target;

/// The load on each connection.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Load {
    /// Sends the next message when one has come back.
    Closed {
        /// The maximum number of messages in flight per connection, from 1 to [`Options::MAX_PIPELINE`].
        pipeline: usize,
    },
    /// Sends on a schedule that does not depend on what comes back. A message that is due waits only for the pipeline of its connection.
    Open {
        /// Messages per second over all connections, from 0.001 to [`Options::MAX_RATE`].
        rate: f64,
        /// The maximum number of messages in flight per connection, from 1 to [`Options::MAX_PIPELINE`].
        pipeline: usize,
    },
    /// Streams without waiting.
    Bulk,
    /// Connects, echoes one message and closes, over and over.
    Churn,
}

impl Load {
    pub(super) fn is_open_loop(&self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

/// The part of the echo that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// None; flood only checks that no more comes back than was sent. A stream then repeats the same bytes, and large pieces of the
    /// echo are not even copied from the kernel.
    Off,
    /// The first and the last 8 bytes of each read. This finds a shift of the stream, but no change in the middle of a read.
    Sample,
    /// Every byte.
    Full,
}

impl Verify {
    /// Returns the name: `off`, `sample` or `full`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Sample => "sample",
            Self::Full => "full",
        }
    }
}

/// The options of a flood.
///
/// ```
/// use edgecho::client::flood::{Load, Options};
///
/// let mut options = Options::new("127.0.0.1".parse()?);
/// options.connections = 8;
/// options.load = Load::Bulk;
/// assert!(options.check().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The far end. The first of its addresses that accepts a connection is used.
    pub target: Target,
    /// The number of connections that are open at the same time, from 1 to [`Options::MAX_CONNECTIONS`].
    pub connections: usize,
    /// The number of threads that share the connections, each with its own descriptor table; from 1 to [`Options::MAX_THREADS`], and
    /// at most the number of connections.
    pub threads: usize,
    /// The load on each connection.
    pub load: Load,
    /// The time to measure, from 1 ms to 1 day. Without it, [`messages`](Self::messages) ends the flood.
    pub duration: Option<Duration>,
    /// The number of messages to send over all connections, at least 1.
    pub messages: Option<u64>,
    /// The sizes of messages, without their framing.
    pub sizes: Sizes,
    /// The message boundaries that the far end expects. Lines and frames must all have one size.
    pub framing: Framing,
    /// The time to run before anything counts, at most 1 day.
    pub warmup: Duration,
    /// The time over which the opening of the connections is spread, at most 1 day.
    pub ramp_up: Duration,
    /// The source addresses of the connections, used in turn; empty for the system's choice. At most [`Options::MAX_SOURCES`].
    pub sources: Vec<IpAddr>,
    /// End each connection with a FIN, and count what has not come back before the peer's FIN as lost.
    pub half_close: bool,
    /// The seed of the byte patterns and of the random sizes.
    pub seed: u64,
    /// The part of the echo to compare.
    pub verify: Verify,
    /// The time from 1 ms to 1 hour after which a message is late. After twice that time it is lost.
    pub timeout: Duration,
    /// The time to busy-poll before blocking, at most 1 second.
    pub busy_poll: Duration,
    /// Begin each connection with a handshake; with [`Load::Churn`] only one connection before all others.
    pub handshake: bool,
    /// Begin each connection with a PROXY header of this version, before everything else. It holds the addresses of the connection.
    pub send_proxy: Option<ProxyVersion>,
    /// The time limits for connecting.
    pub connect: Timeouts,
    /// The number of retries when a first connection is refused.
    pub retry: u32,
}

/// An option, or a combination of options, that is invalid.
///
/// ```
/// use edgecho::client::flood::Options;
///
/// let mut options = Options::new("127.0.0.1".parse()?);
/// options.connections = 0;
/// let error = options.check().expect_err("no connections");
/// assert_eq!(error.field(), "connections");
/// assert_eq!(error.to_string(), "connections must be from 1 to 1000000");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionsError {
    field: &'static str,
    problem: String,
}

impl OptionsError {
    /// Returns an error whose text is the field and the problem.
    pub(super) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }

    /// Returns the name of the field: of [`Options`], or `pipeline` or `rate` of its [`Load`].
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// Returns the problem, to be read after the name of the field: `must be from 1 to 1000000`.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.problem)
    }
}

impl std::error::Error for OptionsError {}

impl Options {
    /// The maximum number of connections.
    pub const MAX_CONNECTIONS: usize = 1_000_000;
    /// The maximum number of threads.
    pub const MAX_THREADS: usize = 256;
    /// The maximum number of messages in flight per connection.
    pub const MAX_PIPELINE: usize = 4096;
    /// The maximum rate in messages per second.
    pub const MAX_RATE: f64 = 1e8;
    /// The maximum number of source addresses.
    pub const MAX_SOURCES: usize = 65_536;

    /// Returns the defaults: 50 connections, one thread, a closed loop, 64 bytes, 10 seconds, every byte compared.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            connections: 50,
            threads: 1,
            load: Load::Closed { pipeline: 1 },
            duration: Some(Duration::from_secs(10)),
            messages: None,
            sizes: Sizes::List(vec![64]),
            framing: Framing::Bytes,
            warmup: Duration::ZERO,
            ramp_up: Duration::ZERO,
            sources: Vec::new(),
            half_close: false,
            seed: 0,
            verify: Verify::Full,
            timeout: Duration::from_secs(5),
            busy_poll: Duration::ZERO,
            handshake: true,
            send_proxy: None,
            connect: Timeouts::default(),
            retry: 0,
        }
    }

    /// Checks the bounds, and that the options go together.
    ///
    /// # Errors
    /// The first invalid option.
    pub fn check(&self) -> Result<(), OptionsError> {
        let bounds = |is_good: bool, field, bounds: &str| {
            if is_good { Ok(()) } else { Err(OptionsError::new(field, format!("must be {bounds}"))) }
        };
        let times = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
        bounds((1..=Self::MAX_CONNECTIONS).contains(&self.connections), "connections", "from 1 to 1000000")?;
        bounds((1..=Self::MAX_THREADS).contains(&self.threads), "threads", "from 1 to 256")?;
        bounds(self.threads <= self.connections, "threads", "at most the number of connections")?;
        bounds(self.duration.is_none_or(|time| times.contains(&time)), "duration", "from 1ms to 1day")?;
        bounds(self.messages != Some(0), "messages", "at least 1")?;
        bounds(self.warmup <= *times.end(), "warmup", "from 0s to 1day")?;
        bounds(self.ramp_up <= *times.end(), "ramp_up", "from 0s to 1day")?;
        bounds((times.start()..=&Duration::from_secs(3600)).contains(&&self.timeout), "timeout", "from 1ms to 1h")?;
        bounds(self.busy_poll <= Duration::from_secs(1), "busy_poll", "from 0s to 1s")?;
        bounds(self.sources.len() <= Self::MAX_SOURCES, "sources", "at most 65536 addresses")?;
        bounds(!matches!(&self.sizes, Sizes::List(sizes) if sizes.is_empty()), "sizes", "at least one size")?;
        if let Load::Closed { pipeline } | Load::Open { pipeline, .. } = self.load {
            bounds((1..=Self::MAX_PIPELINE).contains(&pipeline), "pipeline", "from 1 to 4096")?;
        }
        if let Load::Open { rate, .. } = self.load {
            bounds((0.001..=Self::MAX_RATE).contains(&rate), "rate", "from 0.001 to 100000000 messages per second")?;
        }
        bounds(self.duration.is_some() || self.messages.is_some(), "duration", "given, unless a number of messages is")?;
        bounds(
            self.load != Load::Bulk || self.messages.is_none(),
            "messages",
            "absent for a bulk load, which has a duration",
        )?;
        let is_one_size = matches!(&self.sizes, Sizes::List(sizes) if sizes.len() == 1);
        bounds(self.framing == Framing::Bytes || is_one_size, "sizes", "a single size for lines and frames")?;
        if let [target] = self.target.addresses() {
            let is_same_family = self.sources.iter().all(|source| source.is_ipv4() == target.is_ipv4());
            bounds(is_same_family, "sources", &format!("of the same address family as {target}"))?;
        }
        Ok(())
    }

    /// Returns the number of messages that a connection may send; the connections count from 0.
    pub(super) fn quota(&self, connection: usize) -> u64 {
        let (connection, connections) = (connection as u64, self.connections as u64);
        self.messages.map_or(u64::MAX, |all| all / connections + u64::from(connection < all % connections))
    }

    /// Returns whether each connection begins with a handshake. A churn has none: it would be most of its traffic.
    pub(super) fn has_handshake(&self) -> bool {
        self.handshake && self.load != Load::Churn
    }

    /// Returns whether one connection shows before all others that the far end is an echo service.
    pub(super) fn has_probe(&self) -> bool {
        self.handshake && !self.has_handshake()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options::new("127.0.0.1".parse().expect("an address"))
    }

    #[test]
    fn the_messages_are_shared_out_to_the_last() {
        let options = Options { messages: Some(1_003), connections: 50, ..options() };
        let quotas: Vec<u64> = (0..50).map(|connection| options.quota(connection)).collect();
        assert_eq!(quotas.iter().sum::<u64>(), 1_003);
        assert!(quotas.iter().all(|quota| (20..=21).contains(quota)));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert_eq!(options().check(), Ok(()));
        for (field, options) in [
            ("connections", Options { connections: 0, ..options() }),
            ("threads", Options { threads: 51, ..options() }),
            ("duration", Options { duration: None, ..options() }),
            ("messages", Options { load: Load::Bulk, messages: Some(1), ..options() }),
            ("rate", Options { load: Load::Open { rate: f64::NAN, pipeline: 1 }, ..options() }),
            ("pipeline", Options { load: Load::Closed { pipeline: 0 }, ..options() }),
            ("sources", Options { sources: vec!["::1".parse().expect("an address")], ..options() }),
        ] {
            let error = options.check().expect_err(field);
            assert_eq!(error.field(), field, "{error}");
        }
    }
}
