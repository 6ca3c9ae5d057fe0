//! The timer of the housekeeping of a thread.

use std::time::Duration;

use crate::client::latency::ns;

/// The interval of housekeeping while a thread floods.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);

/// The time at which housekeeping is due, and the time of the last. Both are in nanoseconds since the start of the run.
#[derive(Debug, Default)]
pub(super) struct Timer {
    due_ns: u64,
    done_ns: u64,
}

impl Timer {
    #[inline]
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.due_ns
    }

    pub(super) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Makes housekeeping due within one interval of the last, because an event has changed something.
    pub(super) fn expect_soon(&mut self) {
        self.due_ns = self.due_ns.min(self.done_ns + ns(INTERVAL));
    }

    /// Notes that housekeeping was done, and when it is due next.
    pub(super) fn done(&mut self, now_ns: u64, due_ns: u64) {
        (self.done_ns, self.due_ns) = (now_ns, due_ns);
    }
}
