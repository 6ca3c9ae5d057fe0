//! The schedule of an open loop: when messages are due, whatever comes back.

/// The due times of all messages. Message k, counted from 0 over all connections, is due k intervals after the start, on connection
/// k modulo their number. The number of a message on its connection determines its due time, so waiting messages need no memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    connections: u64,
}

impl Schedule {
    pub(super) fn new(start_ns: u64, messages_per_second: f64, connections: u64) -> Self {
        Self { start_ns, interval_ns: 1e9 / messages_per_second, connections }
    }

    /// Returns when message `count` of a connection is due, counted from 0.
    #[inline]
    pub(super) fn due_ns(&self, connection: u64, count: u64) -> u64 {
        self.start_ns + ((count * self.connections + connection) as f64 * self.interval_ns) as u64
    }

    /// Returns the number of messages of a connection that are due before `end_ns`.
    pub(super) fn count_before(&self, connection: u64, end_ns: u64) -> u64 {
        let intervals = end_ns.saturating_sub(self.start_ns) as f64 / self.interval_ns;
        // A little more than the messages of this connection can be: rounding decides about the last.
        let most = (intervals / self.connections as f64) as u64 + 2;
        most - self.count_since(connection, 0, most, end_ns)
    }

    /// Returns the number of messages of a connection, from `from` up to and without `to`, that are due at `since_ns` or later.
    pub(super) fn count_since(&self, connection: u64, from: u64, to: u64, since_ns: u64) -> u64 {
        // The times ascend, so a binary search finds the first one.
        let (mut low, mut high) = (from, to.max(from));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.due_ns(connection, middle) < since_ns { low = middle + 1 } else { high = middle }
        }
        to.saturating_sub(low)
    }
}

/// A cursor over the connections of one thread, in the order in which their messages are due.
#[derive(Debug)]
pub(super) struct Cursor {
    schedule: Schedule,
    /// The connections are `first`, `first + step` and so on: `len` of them.
    first: u64,
    step: u64,
    len: usize,
    round: u64,
    place: usize,
}

impl Cursor {
    /// Returns a cursor over the connections `first`, `first + step` and so on: `len` of them.
    pub(super) fn new(schedule: Schedule, first: u64, step: u64, len: usize) -> Self {
        Self { schedule, first, step, len, round: 0, place: 0 }
    }

    /// Returns when the next message of any of them is due.
    #[inline]
    pub(super) fn next_ns(&self) -> u64 {
        self.schedule.due_ns(self.first + self.place as u64 * self.step, self.round)
    }

    /// Returns the index, within this thread, of the next connection that has a message due at `now_ns`.
    #[inline]
    pub(super) fn take_due(&mut self, now_ns: u64) -> Option<usize> {
        if self.len == 0 || self.next_ns() > now_ns {
            return None;
        }
        let place = self.place;
        self.place += 1;
        if self.place == self.len {
            self.place = 0;
            self.round += 1;
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_at_even_intervals_over_all_connections() {
        let schedule = Schedule::new(1_000, 1e6, 4);
        let mut due: Vec<u64> =
            (0..4).flat_map(|connection| (0..3).map(move |count| schedule.due_ns(connection, count))).collect();
        due.sort_unstable();
        assert_eq!(due, (0..12).map(|k| 1_000 + k * 1_000).collect::<Vec<_>>());
    }

    #[test]
    fn threads_share_the_schedule_without_a_gap() {
        let schedule = Schedule::new(0, 1e9, 5);
        let mut cursors = [Cursor::new(schedule, 0, 2, 3), Cursor::new(schedule, 1, 2, 2)];
        let mut taken = Vec::new();
        for now in 0..20 {
            for (thread, cursor) in cursors.iter_mut().enumerate() {
                while let Some(place) = cursor.take_due(now) {
                    taken.push(thread as u64 + 2 * place as u64);
                }
            }
        }
        assert_eq!(taken, (0..20).map(|k| k % 5).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_due_since_a_moment_is_counted() {
        let schedule = Schedule::new(1_000, 1e6, 4);
        for since_ns in [0, 1_000, 1_001, 17_000, 100_000_000] {
            let expected = (2..50).filter(|&count| schedule.due_ns(1, count) >= since_ns).count() as u64;
            assert_eq!(schedule.count_since(1, 2, 50, since_ns), expected, "since {since_ns}");
        }
        assert_eq!(schedule.count_since(1, 5, 5, 0), 0);
    }

    #[test]
    fn what_is_due_before_a_moment_is_counted() {
        let schedule = Schedule::new(1_000, 1e6, 4);
        for end_ns in [0, 1_000, 1_001, 5_000, 17_000, 17_001] {
            for connection in 0..4 {
                let expected = (0..50).filter(|&count| schedule.due_ns(connection, count) < end_ns).count() as u64;
                assert_eq!(schedule.count_before(connection, end_ns), expected, "{connection} before {end_ns}");
            }
        }
    }

    #[test]
    fn a_long_run_does_not_drift() {
        let schedule = Schedule::new(0, 50_000.0, 50);
        let day = 24 * 3_600 * 50_000 / 50;
        assert_eq!(schedule.due_ns(0, day), 24 * 3_600 * 1_000_000_000);
    }
}
