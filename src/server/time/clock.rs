//! The clock, which is read only when a time is needed, and the moment up to which all events are known.

use std::time::{Duration, Instant};

use crate::server::kernel::Kernel;

/// Milliseconds since the server's start, in 64 bits.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    last_read: Instant,
    last_read_ms: u64,
    turn_start_ms: u64,
}

impl Clock {
    pub(super) fn start(kernel: &impl Kernel) -> Self {
        let start = kernel.now();
        Self { start, last_read: start, last_read_ms: 0, turn_start_ms: 0 }
    }

    /// Reads the kernel's clock, and returns milliseconds since the start.
    pub(super) fn read(&mut self, kernel: &impl Kernel) -> u64 {
        self.last_read = kernel.now();
        self.last_read_ms = self.ms(self.last_read);
        self.last_read_ms
    }

    /// Reads the kernel's clock at the beginning of a turn.
    #[inline]
    pub(super) fn begin_turn(&mut self, kernel: &impl Kernel) {
        self.turn_start_ms = self.read(kernel);
    }

    /// Returns the turn that ends at `now` if it took longer than `usual_ms`.
    #[inline]
    pub(super) fn long_turn(&self, now: Instant, usual_ms: u64) -> Option<LongTurn> {
        let turn = LongTurn { start_ms: self.turn_start_ms, end_ms: self.ms(now) };
        (turn.end_ms.saturating_sub(turn.start_ms) > usual_ms).then_some(turn)
    }

    /// Returns the time of the last reading, in milliseconds.
    #[inline]
    pub(super) fn last_read_ms(&self) -> u64 {
        self.last_read_ms
    }

    /// Returns the time of the last reading.
    pub(super) fn last_read(&self) -> Instant {
        self.last_read
    }

    /// Converts milliseconds to a moment.
    pub(super) fn instant(&self, at_ms: u64) -> Instant {
        self.start + Duration::from_millis(at_ms)
    }

    /// Converts a moment to whole milliseconds, rounded down.
    pub(super) fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

/// A turn that took so long that the connections it served count as active at its end: their clients were not answered before, however
/// early in the turn the clock was read. Times are milliseconds of the server's clock.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct LongTurn {
    pub(in crate::server) start_ms: u64,
    pub(in crate::server) end_ms: u64,
}

/// The moment up to which every event has been processed. Deadlines are judged by it, and not by the clock: after a pause (SIGSTOP, a
/// suspended virtual machine, a long turn) the clock has jumped, while the bytes that prove a peer alive are still unread.
///
/// The clock is read before a wait. When a wait returns fewer events than there was room for, all that happened before it has been
/// returned. A full batch leaves some behind. epoll(7) returns each ready descriptor once before it returns one of them again, so after as
/// many events as there are descriptors none of the old ones is left.
#[derive(Debug)]
pub(super) struct Horizon {
    known_until: Instant,
    /// The wait whose events are being collected.
    asked: Option<Asked>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    /// Events from before the wait that may not have been returned yet.
    unreturned: usize,
}

impl Horizon {
    pub(super) fn new(now: Instant) -> Self {
        Self { known_until: now, asked: None }
    }

    /// Notes that a wait begins at `now`, with `watched` descriptors in the epoll set.
    pub(super) fn before_wait(&mut self, now: Instant, watched: usize) {
        self.asked.get_or_insert(Asked { at: now, unreturned: watched });
    }

    /// Notes that the wait has returned `count` events of at most `capacity`, and that all of them have been processed. Returns whether more
    /// is known than before: without that nothing can be due.
    #[inline]
    pub(super) fn after_turn(&mut self, count: usize, capacity: usize) -> bool {
        let Some(Asked { at, unreturned }) = &mut self.asked else { return false };
        if count < capacity || count >= *unreturned {
            self.known_until = *at;
            self.asked = None;
            return true;
        }
        *unreturned -= count;
        false
    }

    /// Returns the moment up to which every event has been processed.
    pub(super) fn known_until(&self) -> Instant {
        self.known_until
    }
}

/// A time of the server's clock in 6 bytes, because each connection keeps two: 48 bits of milliseconds are 8,900 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::server) struct Ms48([u16; 3]);

impl Ms48 {
    /// Later than every time.
    pub(super) const NEVER: Self = Self([u16::MAX; 3]);

    pub(super) fn new(ms: u64) -> Self {
        Self([(ms >> 32) as u16, (ms >> 16) as u16, ms as u16])
    }

    pub(super) fn get(self) -> u64 {
        let [high, middle, low] = self.0.map(u64::from);
        high << 32 | middle << 16 | low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_batch_leaves_events_unknown_until_all_descriptors_had_their_turn() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut horizon = Horizon::new(start);
        horizon.after_turn(3, 4);
        assert_eq!(horizon.known_until(), start, "nothing is known of a wait that no clock was read for");
        horizon.before_wait(at(1), 10);
        horizon.after_turn(4, 4);
        horizon.before_wait(at(2), 10);
        horizon.after_turn(4, 4);
        assert_eq!(horizon.known_until(), start);
        horizon.before_wait(at(3), 10);
        horizon.after_turn(4, 4);
        assert_eq!(horizon.known_until(), at(1), "12 events of 10 descriptors");
        horizon.before_wait(at(4), 10);
        horizon.after_turn(0, 4);
        assert_eq!(horizon.known_until(), at(4));
    }

    #[test]
    fn six_bytes_hold_every_time() {
        assert_eq!(size_of::<Ms48>(), 6);
        for ms in [0, 1, u64::from(u32::MAX), 1 << 32, (1 << 48) - 1] {
            assert_eq!(Ms48::new(ms).get(), ms);
        }
        assert!(Ms48::new(1 << 32) > Ms48::new(u64::from(u32::MAX)));
    }
}
