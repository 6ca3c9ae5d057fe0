//! What a flood is to do.

use std::net::IpAddr;
use std::time::Duration;

use super::sizes::Sizes;
use crate::client::connector::Timeouts;
use crate::client::target::Target;
use crate::client::wire::Framing;

/// What each connection does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// Sends the next message when one has come back.
    Closed {
        /// How many messages may be on their way on each connection.
        pipeline: usize,
    },
    /// Sends by a schedule, whatever comes back; a message that is due waits only for its turn on its connection.
    Open {
        /// Messages a second, over all connections.
        rate: f64,
        /// How many messages may be on their way on each connection.
        pipeline: usize,
    },
    /// Streams without waiting.
    Bulk,
    /// Connects, has one message come back, closes, over and over.
    Churn,
}

impl Load {
    pub(super) fn is_open_loop(&self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

/// How much of what comes back is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Nothing; only that no more comes back than was sent. A stream is then made of the same bytes over and over, and what comes back in large
    /// pieces is not even copied from the kernel.
    Off,
    /// The first and the last 8 bytes of each read: what shifts the stream is seen, a change in its middle is not.
    Sample,
    /// Every byte.
    Full,
}

impl Verify {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Sample => "sample",
            Self::Full => "full",
        }
    }
}

/// What to do, and how.
///
/// ```
/// use edgecho::client::flood::{Load, Options};
///
/// let options = Options { connections: 8, load: Load::Bulk, ..Options::new("127.0.0.1".parse()?) };
/// assert!(options.check().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    /// The far end. The first of its addresses that can be connected to is used.
    pub target: Target,
    /// How many connections are open at the same time, from 1 to [`Options::MAX_CONNECTIONS`].
    pub connections: usize,
    /// How many threads share them, each with a descriptor table of its own; from 1 to [`Options::MAX_THREADS`], and to the number of
    /// connections.
    pub threads: usize,
    /// What each connection does.
    pub load: Load,
    /// How long to measure. Without it, [`messages`](Self::messages) makes the end.
    pub duration: Option<Duration>,
    /// How many messages to send, over all connections.
    pub messages: Option<u64>,
    /// How large they are, without their framing.
    pub sizes: Sizes,
    /// What the far end takes as one message. With lines and frames, all are of one size.
    pub framing: Framing,
    /// How long to go on before anything counts.
    pub warmup: Duration,
    /// Over how long to spread the opening of the connections.
    pub ramp_up: Duration,
    /// The addresses that connections come from, in turn; the system's choice if there are none.
    pub sources: Vec<IpAddr>,
    /// End each connection with our FIN, and take it as a loss if not everything comes back before the far end's.
    pub half_close: bool,
    /// What the patterns and the sizes are made from.
    pub seed: u64,
    /// How much to compare.
    pub verify: Verify,
    /// When a message is late. After twice that, it is lost.
    pub timeout: Duration,
    /// How long to look for events again and again before sleeping.
    pub busy_poll: Duration,
    /// Whether to ask each connection for a handshake (with [`Load::Churn`], one before all others).
    pub handshake: bool,
    /// How long connecting may take.
    pub connect: Timeouts,
    /// How often to try again when a first connection is refused.
    pub retry: u32,
}

/// Why options make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionsError(pub(super) String);

impl Options {
    /// The most connections: a million.
    pub const MAX_CONNECTIONS: usize = 1_000_000;
    /// The most threads.
    pub const MAX_THREADS: usize = 256;
    /// How many messages may be on their way on one connection.
    pub const MAX_PIPELINE: usize = 4096;
    /// The highest rate, in messages a second.
    pub const MAX_RATE: f64 = 1e8;
    /// The most addresses to come from.
    pub const MAX_SOURCES: usize = 65_536;

    /// Defaults for a target: 50 connections, a closed loop, 64 bytes, 10 seconds, one thread, everything compared.
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
            connect: Timeouts::default(),
            retry: 0,
        }
    }

    /// Checks the bounds, and that options go together.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    pub fn check(&self) -> Result<(), OptionsError> {
        let bounds = |is_good: bool, flag: &str, bounds: &str| {
            if is_good { Ok(()) } else { Err(OptionsError(format!("--{flag} takes {bounds}"))) }
        };
        let times = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
        bounds((1..=Self::MAX_CONNECTIONS).contains(&self.connections), "connections", "from 1 to 1000000")?;
        bounds((1..=Self::MAX_THREADS).contains(&self.threads), "threads", "from 1 to 256")?;
        bounds(self.threads <= self.connections, "threads", "no more than there are connections")?;
        bounds(self.duration.is_none_or(|time| times.contains(&time)), "duration", "from 1ms to 1day")?;
        bounds(self.messages != Some(0), "messages", "at least 1")?;
        bounds(self.warmup <= *times.end(), "warmup", "from 0s to 1day")?;
        bounds(self.ramp_up <= *times.end(), "ramp-up", "from 0s to 1day")?;
        bounds((times.start()..=&Duration::from_secs(3600)).contains(&&self.timeout), "timeout", "from 1ms to 1h")?;
        bounds(self.busy_poll <= Duration::from_secs(1), "busy-poll", "from 0s to 1s")?;
        bounds(self.sources.len() <= Self::MAX_SOURCES, "source", "up to 65536 addresses")?;
        if let Load::Closed { pipeline } | Load::Open { pipeline, .. } = self.load {
            bounds((1..=Self::MAX_PIPELINE).contains(&pipeline), "pipeline", "from 1 to 4096")?;
        }
        if let Load::Open { rate, .. } = self.load {
            bounds((0.001..=Self::MAX_RATE).contains(&rate), "rate", "from 0.001 to 100000000 messages a second")?;
        }
        if self.duration.is_none() && self.messages.is_none() {
            return Err(OptionsError("a flood needs an end: give --duration or --messages".to_owned()));
        }
        if self.load == Load::Bulk && self.messages.is_some() {
            return Err(OptionsError("--bulk has no messages to count: give --duration instead of --messages".to_owned()));
        }
        if self.framing != Framing::Bytes && !matches!(&self.sizes, Sizes::List(sizes) if sizes.len() == 1) {
            return Err(OptionsError(format!("--protocol {} takes one --size", self.framing.name())));
        }
        let families = |is_ipv4: fn(&IpAddr) -> bool| self.sources.iter().any(is_ipv4);
        if let [target] = self.target.addresses()
            && families(if target.is_ipv4() { IpAddr::is_ipv6 } else { IpAddr::is_ipv4 })
        {
            return Err(OptionsError(format!("--source is of another family than {target}")));
        }
        Ok(())
    }

    /// How many messages a connection, of which the first is number 0, may send.
    pub(super) fn quota(&self, connection: usize) -> u64 {
        let (connection, connections) = (connection as u64, self.connections as u64);
        self.messages.map_or(u64::MAX, |all| all / connections + u64::from(connection < all % connections))
    }

    /// Whether each connection is to have a handshake. Of a churn it would be the most part.
    pub(super) fn has_handshake(&self) -> bool {
        self.handshake && self.load != Load::Churn
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
        for (word, options) in [
            ("--connections", Options { connections: 0, ..options() }),
            ("--threads", Options { threads: 51, ..options() }),
            ("needs an end", Options { duration: None, ..options() }),
            ("--bulk", Options { load: Load::Bulk, messages: Some(1), ..options() }),
            ("--rate", Options { load: Load::Open { rate: f64::NAN, pipeline: 1 }, ..options() }),
            ("--pipeline", Options { load: Load::Closed { pipeline: 0 }, ..options() }),
            ("--source", Options { sources: vec!["::1".parse().expect("an address")], ..options() }),
        ] {
            let error = options.check().expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
