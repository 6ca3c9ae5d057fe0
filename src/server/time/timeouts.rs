//! Timeouts: the times that each connection keeps, and the next action that they ask for.

use std::time::Duration;

use super::clock::Ms48;
use super::progress::Progress;
use crate::server::config::Timeouts;
use crate::server::drain::LINGER;
use crate::server::statistics::Reason;

/// Looks at a peer's progress per timeout. A stalled peer is closed late by this part of the timeout at most.
const LOOKS_PER_TIMEOUT: u32 = 8;

/// Returns the time without progress after which a peer counts as stalled: a fifth more than the write timeout. A receiver acknowledges in
/// pieces: it opens its window when a whole segment has been read, which over loopback can be 128 KiB. With the default of 30 seconds a
/// peer that reads 4 KB/s takes 31 of them for that.
fn stall_time(write_timeout: Duration) -> Duration {
    write_timeout + write_timeout / 5
}

/// Bytes that a peer may have acknowledged before its stall time grows.
const SMALL_HISTORY_BYTES: u64 = 15 << 20;

/// Acknowledged bytes from which the stall time no longer grows.
const LARGEST_HISTORY_BYTES: u64 = 32 << 20;

/// Returns the stall time for a peer that has acknowledged `acknowledged_bytes`. A kernel whose receive buffer is full acknowledges nothing
/// until a sixteenth of the buffer has been read. The buffer of a peer that has read fast grows, to 32 MiB where tcp(7), `tcp_rmem`, allows
/// it: at 32 KiB/s a sixteenth of that takes 64 seconds. It is never larger than what the peer has taken.
fn stall_time_after(write_timeout: Duration, acknowledged_bytes: u64) -> Duration {
    let counted = acknowledged_bytes.clamp(SMALL_HISTORY_BYTES, LARGEST_HISTORY_BYTES);
    stall_time(write_timeout).mul_f64(counted as f64 / SMALL_HISTORY_BYTES as f64)
}

/// The write timeout for connections that the server closes, and for unfinished pieces at the memory limit, if none is configured.
const DEFAULT_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the step of the wheel: a sixteenth of the shortest timeout, so that none is late by more, and at most a second. A stalled peer is
/// closed late by at most two steps and the time between two looks: half as much again as the write timeout is never passed. A second is also
/// the step where no timeout asks for less, so that the loop wakes for its timers no more than once a second.
pub(super) fn wheel_step_ms(timeouts: &Timeouts, heartbeat: Option<Duration>) -> u64 {
    let shortest = [timeouts.idle, timeouts.write, timeouts.lifetime, heartbeat].into_iter().flatten().min();
    shortest.map_or(1_000, |shortest| (shortest.as_millis() as u64 / 16).clamp(1, 1_000))
}

/// The times of one connection, in milliseconds of the server's clock. Packed, because every idle connection keeps one.
#[derive(Debug, Clone, Copy)]
#[repr(Rust, packed(4))]
pub(in crate::server) struct Times {
    /// Time of the last activity: bytes from the peer, or acknowledged by it. Read only if a timeout needs it.
    active_ms: u64,
    opened_ms: Ms48,
    /// Time of the next check; a token that comes sooner is stale. [`Ms48::NEVER`] if none is scheduled.
    pub(super) check_ms: Ms48,
}

impl Times {
    /// Returns the times of a connection that is opened at `now_ms`.
    pub(in crate::server) fn new(now_ms: u64) -> Self {
        Self { active_ms: now_ms, opened_ms: Ms48::new(now_ms), check_ms: Ms48::NEVER }
    }

    /// Notes that the connection is active at `now_ms`.
    #[inline]
    pub(in crate::server) fn set_active(&mut self, now_ms: u64) {
        self.active_ms = now_ms;
    }

    /// Returns the time of the last activity.
    pub(in crate::server) fn active_ms(&self) -> u64 {
        self.active_ms
    }

    /// Returns the time of opening.
    pub(in crate::server) fn opened_ms(&self) -> u64 {
        self.opened_ms.get()
    }
}

/// The facts about a connection that its timeouts depend on.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct Facts {
    /// Bytes are pending.
    pub(in crate::server) needs_room: bool,
    /// The server closes the connection.
    pub(in crate::server) is_closing: bool,
}

/// The next action for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Action {
    /// A timeout: close the connection, unless the peer has made progress.
    Close(Reason),
    /// Look at the peer's progress.
    Look,
    /// Send a heartbeat: the connection has been quiet for long enough.
    Heartbeat,
}

impl Timeouts {
    /// Returns the time without progress after which the server gives up what it wants to end.
    pub(super) fn patience(&self) -> Duration {
        stall_time(self.write.unwrap_or(DEFAULT_WRITE_TIMEOUT))
    }

    /// Returns the same for a peer that has acknowledged `acknowledged_bytes`.
    pub(super) fn patience_after(&self, acknowledged_bytes: u64) -> Duration {
        stall_time_after(self.write.unwrap_or(DEFAULT_WRITE_TIMEOUT), acknowledged_bytes)
    }

    /// Returns the next action for a connection, and its time in milliseconds. `heartbeat` has the interval and the time of the last
    /// heartbeat.
    pub(super) fn next_action(
        &self,
        times: Times,
        facts: Facts,
        progress: Option<Progress>,
        heartbeat: Option<(Duration, u64)>,
    ) -> Option<(u64, Action)> {
        // Both ends of a time span are whole milliseconds, rounded down: one millisecond more, so that nothing is due early.
        let after = |since_ms: u64, time: Duration| since_ms.saturating_add(time.as_millis() as u64 + 1);
        if facts.is_closing {
            return progress.map(|progress| (after(progress.looked_at_ms, LINGER / LOOKS_PER_TIMEOUT), Action::Look));
        }
        let write = self.write.filter(|_| facts.needs_room);
        [
            write.zip(progress).map(|(timeout, progress)| {
                let closes_at = after(progress.since_ms, stall_time_after(timeout, progress.acknowledged_bytes));
                let looks_at = after(progress.looked_at_ms, timeout / LOOKS_PER_TIMEOUT);
                if closes_at <= looks_at {
                    (closes_at, Action::Close(Reason::WriteStalled))
                } else {
                    (looks_at, Action::Look)
                }
            }),
            self.idle.map(|timeout| (after(times.active_ms, timeout), Action::Close(Reason::Idle))),
            self.lifetime.map(|timeout| (after(times.opened_ms(), timeout), Action::Close(Reason::Lifetime))),
            // Quiet since the last bytes, or since the last heartbeat.
            heartbeat.map(|(every, last_ms)| (after(last_ms.max(times.active_ms), every), Action::Heartbeat)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|&(at_ms, _)| at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_connection_take_20_bytes() {
        assert_eq!((size_of::<Times>(), align_of::<Times>()), (20, 4));
    }
}
