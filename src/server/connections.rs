//! The connections of a server.

use std::fmt::Display;

use tracing::debug;

use super::connection::{Connection, Peer};
use super::statistics::Reason;
use super::time::Ms48;
use crate::stream::Stream;
use crate::sys::epoll::EpollFlags;

/// What every connection is watched for from the start. `RDHUP` makes the FIN an edge of its own, `PRI` the urgent byte.
pub(super) const INTEREST: EpollFlags = EpollFlags::IN.union(EpollFlags::RDHUP).union(EpollFlags::PRI);

/// A connection, and what the server keeps about it. Times are milliseconds of the server's clock.
pub(super) struct Slot<S, T> {
    pub(super) connection: Connection<S, T>,
    pub(super) peer: Peer,
    /// Time of opening.
    pub(super) since_ms: Ms48,
    /// Time of the last activity: bytes from the peer, or acknowledged by it. Read only where a timeout needs it.
    pub(super) active_ms: u64,
    /// The timer that is meant: a token that comes sooner is stale. [`Ms48::NEVER`] if there is none.
    pub(super) timer_ms: Ms48,
    /// How much of [`Statistics::pending_bytes`](super::Statistics::pending_bytes) is this connection's.
    pub(super) counted_bytes: u32,
    /// Why we are closing it, if we are.
    pub(super) closing: Option<Reason>,
    pub(super) place: Place,
}

/// The queue that holds a connection, if any. An event does not serve a connection that is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: an event serves it.
    Nowhere,
    /// In the ready queue.
    Ready,
    /// In a queue for memory, or for the moment at which its rate lets it go on.
    HeldBack,
}

impl<S: Stream, T> Slot<S, T> {
    pub(super) fn log_closed(&self, now_ms: u64, reason: impl Display) {
        debug!(
            peer = %self.peer,
            received_bytes = self.connection.received_bytes(),
            sent_bytes = self.connection.sent_bytes(),
            lasted_ms = now_ms - self.since_ms.get(),
            "closed: {reason}"
        );
    }
}
