//! Statistics. A counter costs an addition; a sum over connections is computed only on request.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fmt, io};

use super::drain::Stage;

/// The reason why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Reason {
    /// The peer sent its FIN, and was sent all bytes that it was owed.
    Peer,
    /// The peer reset the connection, or a call on it failed.
    Reset,
    /// The idle timeout, [`Timeouts::idle`](super::Timeouts::idle).
    Idle,
    /// The write timeout, [`Timeouts::write`](super::Timeouts::write).
    WriteStalled,
    /// The maximum lifetime, [`Timeouts::lifetime`](super::Timeouts::lifetime).
    Lifetime,
    /// The protocol closed it, in order.
    Protocol,
    /// The limit per source address, [`Limits::max_per_ip`](super::Limits::max_per_ip).
    Limit,
    /// The memory limit, [`Limits::memory_limit`](super::Limits::memory_limit): the connection kept memory for a line or frame that did not
    /// become whole.
    Memory,
    /// The drain timeout was over, and the connection was closed in order.
    Drained,
    /// The server closed it although that destroyed bytes: at the end of the drain, by a second signal, when a connection that was being
    /// closed made no progress, or with [`SocketOptions::reset_on_close`](super::SocketOptions::reset_on_close).
    Aborted,
    /// A trusted peer sent no valid header of the PROXY protocol.
    ProxyInvalid,
    /// The header of the PROXY protocol was not whole in time: `ProxyOptions::timeout`.
    ProxyTimeout,
    /// A header of the PROXY protocol is required, and the peer is in none of the networks that may send one: `ProxyOptions::from`.
    ProxyUntrusted,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: &'static [Self] = &[
        Self::Peer,
        Self::Reset,
        Self::Idle,
        Self::WriteStalled,
        Self::Lifetime,
        Self::Protocol,
        Self::Limit,
        Self::Memory,
        Self::Drained,
        Self::Aborted,
        Self::ProxyInvalid,
        Self::ProxyTimeout,
        Self::ProxyUntrusted,
    ];

    /// Returns its name in the statistics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Reset => "reset",
            Self::Idle => "idle",
            Self::WriteStalled => "write_stalled",
            Self::Lifetime => "lifetime",
            Self::Protocol => "protocol",
            Self::Limit => "limit",
            Self::Memory => "memory",
            Self::Drained => "drained",
            Self::Aborted => "aborted",
            Self::ProxyInvalid => "proxy_invalid",
            Self::ProxyTimeout => "proxy_timeout",
            Self::ProxyUntrusted => "proxy_untrusted",
        }
    }
}

/// The text of a log line.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "the peer closed",
            Self::Reset => "the connection was reset",
            Self::Idle => "idle for too long",
            Self::WriteStalled => "the peer took nothing for too long",
            Self::Lifetime => "open for too long",
            Self::Protocol => "the protocol ended it",
            Self::Limit => "its source address is at the connection limit",
            Self::Memory => "it kept memory for a line or frame that did not become whole",
            Self::Drained => "the drain timeout was over",
            Self::Aborted => "cut off",
            Self::ProxyInvalid => "no valid PROXY header",
            Self::ProxyTimeout => "no PROXY header in time",
            Self::ProxyUntrusted => "not in the networks that may connect with a PROXY header",
        })
    }
}

/// The statistics of a server.
///
/// ```
/// use edgecho::server::{Reason, Statistics};
///
/// let statistics = Statistics::default();
/// assert_eq!(statistics.closed_for(Reason::Idle), 0);
/// assert!(statistics.to_string().starts_with("accepted 0\n"));
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// The stage of the server.
    pub stage: Stage,
    /// Connections accepted. A connection that waits for a PROXY header is not counted yet.
    pub accepted: u64,
    /// Connections open.
    pub open: u64,
    /// Connections closed, by reason.
    closed: [u64; Reason::ALL.len()],
    /// Bytes read from peers.
    pub received_bytes: u64,
    /// Bytes taken by the kernel for peers.
    pub sent_bytes: u64,
    /// Bytes in memory for all connections together: in outboxes, in unfinished lines and frames, and in input that a protocol has left.
    pub pending_bytes: u64,
    /// The highest value of [`pending_bytes`](Self::pending_bytes).
    pub most_pending_bytes: u64,
    /// Messages of other connections, notices and heartbeats that were not sent to a peer, because the outbox limit was reached.
    pub skipped: u64,
    /// PROXY headers of version 1.
    pub proxy_v1: u64,
    /// PROXY headers of version 2, with the command PROXY.
    pub proxy_v2: u64,
    /// PROXY headers of version 2, with the command LOCAL: connections of the proxy itself, such as health checks.
    pub proxy_local: u64,
    /// Connections that wait for a PROXY header. They count towards [`Limits::max_connections`](super::Limits::max_connections).
    pub proxy_waiting: u64,
    /// Errors of accept4(2), by errno.
    pub accept_errors: BTreeMap<i32, u64>,
    /// Turns of the loop.
    pub turns: u64,
    /// Events that epoll reported.
    pub events: u64,
    /// The longest turn. Turns of a few events, which the budgets keep short, are not timed, unless
    /// [`Config::time_turns`](super::Config::time_turns) is set.
    pub longest_turn: Duration,
    /// The times of all turns, with [`Config::time_turns`](super::Config::time_turns).
    pub turn_times: Option<Box<TurnTimes>>,
}

/// The times of turns: a histogram with fixed bounds, and the sum.
///
/// ```
/// use edgecho::server::TurnTimes;
///
/// let times = TurnTimes::default();
/// assert_eq!((times.counts().iter().sum::<u64>(), times.sum().as_secs()), (0, 0));
/// assert_eq!(times.counts().len(), TurnTimes::BOUNDS.len() + 1);
/// ```
#[derive(Debug, Clone, Default)]
pub struct TurnTimes {
    counts: [u64; Self::BOUNDS.len() + 1],
    sum: Duration,
}

impl TurnTimes {
    /// The upper bounds of the buckets, which they include. One more bucket has no upper bound.
    pub const BOUNDS: &'static [Duration] = &[
        Duration::from_micros(10),
        Duration::from_micros(25),
        Duration::from_micros(50),
        Duration::from_micros(100),
        Duration::from_micros(250),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2_500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(100),
        Duration::from_secs(1),
    ];

    /// Returns the number of turns in each bucket, the last one without an upper bound.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Returns the sum of the times of all turns.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    fn add(&mut self, took: Duration) {
        self.counts[Self::BOUNDS.partition_point(|&bound| bound < took)] += 1;
        self.sum += took;
    }
}

impl Statistics {
    /// Returns statistics without a count, for a server that times all turns or only long ones.
    pub(super) fn new(time_turns: bool) -> Self {
        Self { turn_times: time_turns.then(Box::default), ..Self::default() }
    }

    /// Returns the number of connections that were closed for a reason.
    #[must_use]
    pub fn closed_for(&self, reason: Reason) -> u64 {
        self.closed[reason as usize]
    }

    pub(super) fn count_accept_error(&mut self, error: &io::Error) {
        *self.accept_errors.entry(error.raw_os_error().unwrap_or_default()).or_default() += 1;
    }

    /// Counts clients that were accepted only to be reset.
    pub(super) fn count_aborted(&mut self, count: u64) {
        self.accepted += count;
        self.closed[Reason::Aborted as usize] += count;
    }

    /// Counts a turn of `events` events, and the time that it took, if it was timed.
    #[inline]
    pub(super) fn count_turn(&mut self, events: usize, took: Option<Duration>) {
        self.turns += 1;
        self.events += events as u64;
        if let Some(took) = took {
            self.longest_turn = self.longest_turn.max(took);
            if let Some(times) = &mut self.turn_times {
                times.add(took);
            }
        }
    }

    /// Adds the bytes of one connection.
    pub(super) fn count_bytes(&mut self, received_bytes: u64, sent_bytes: u64) {
        self.received_bytes += received_bytes;
        self.sent_bytes += sent_bytes;
    }

    pub(super) fn count_closed(&mut self, reason: Reason) {
        self.closed[reason as usize] += 1;
    }

    pub(super) fn count_pending(&mut self, before: usize, after: usize) {
        self.pending_bytes = self.pending_bytes - before as u64 + after as u64;
        self.most_pending_bytes = self.most_pending_bytes.max(self.pending_bytes);
    }
}

/// The name of an errno, such as `EMFILE`, or its number if it has no name.
pub(crate) struct ErrnoName(pub(crate) i32);

impl fmt::Display for ErrnoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match nix::errno::Errno::from_raw(self.0) {
            nix::errno::Errno::UnknownErrno => self.0.fmt(f),
            name => fmt::Debug::fmt(&name, f),
        }
    }
}

/// One line per figure: `name value`.
impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "accepted {}", self.accepted)?;
        writeln!(f, "open {}", self.open)?;
        for &reason in Reason::ALL {
            writeln!(f, "closed_{} {}", reason.name(), self.closed_for(reason))?;
        }
        writeln!(f, "received_bytes {}", self.received_bytes)?;
        writeln!(f, "sent_bytes {}", self.sent_bytes)?;
        writeln!(f, "pending_bytes {}", self.pending_bytes)?;
        writeln!(f, "most_pending_bytes {}", self.most_pending_bytes)?;
        writeln!(f, "skipped {}", self.skipped)?;
        writeln!(f, "proxy_v1 {}", self.proxy_v1)?;
        writeln!(f, "proxy_v2 {}", self.proxy_v2)?;
        writeln!(f, "proxy_local {}", self.proxy_local)?;
        writeln!(f, "proxy_waiting {}", self.proxy_waiting)?;
        for (&errno, count) in &self.accept_errors {
            writeln!(f, "accept_errors_{} {count}", ErrnoName(errno))?;
        }
        writeln!(f, "turns {}", self.turns)?;
        writeln!(f, "events {}", self.events)?;
        writeln!(f, "events_a_turn {:.2}", self.events as f64 / self.turns.max(1) as f64)?;
        writeln!(f, "longest_turn_us {}", self.longest_turn.as_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_line_and_every_reason_its_own() {
        let mut statistics = Statistics { accepted: 3, ..Statistics::default() };
        statistics.count_closed(Reason::Idle);
        statistics.count_pending(0, 700);
        statistics.count_pending(700, 0);
        statistics.accept_errors.extend([(libc::EMFILE, 2), (524, 1), (525, 1)]); // the last two have no names
        let text = statistics.to_string();
        for line in [
            "accepted 3",
            "closed_idle 1",
            "closed_reset 0",
            "pending_bytes 0",
            "most_pending_bytes 700",
            "accept_errors_EMFILE 2",
            "accept_errors_524 1",
            "accept_errors_525 1",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} is missing:\n{text}");
        }
        assert!(Reason::ALL.iter().enumerate().all(|(index, &reason)| reason as usize == index));
    }

    #[test]
    fn a_turn_is_counted_in_the_first_bucket_that_it_fits_into() {
        let mut statistics = Statistics::new(true);
        for micros in [0, 10, 11, 1_000_000, 1_000_001] {
            statistics.count_turn(1, Some(Duration::from_micros(micros)));
        }
        let times = statistics.turn_times.expect("turns are timed");
        let counts = times.counts();
        assert_eq!((counts[0], counts[1], counts[12], counts[13]), (2, 1, 1, 1));
        assert_eq!(times.sum(), Duration::from_micros(2_000_022));
        assert!(Statistics::new(false).turn_times.is_none());
    }
}
