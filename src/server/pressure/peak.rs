//! The peak of pending memory, after which memory is given back to the system.

use std::time::Duration;

/// The least peak that is worth giving back.
const MIN_PEAK_BYTES: u64 = 4 << 20;

/// Time between the end of a peak and the trim.
pub(in crate::server) const TRIM_AFTER: Duration = Duration::from_secs(1);

/// The most that the connections have held since memory was last given back.
#[derive(Debug, Default)]
pub(super) struct Peak {
    peak_bytes: u64,
    pending_bytes: u64,
    is_trim_scheduled: bool,
}

impl Peak {
    /// Notes that the connections hold `pending_bytes` now.
    pub(super) fn note(&mut self, pending_bytes: u64) {
        self.pending_bytes = pending_bytes;
        self.peak_bytes = self.peak_bytes.max(pending_bytes);
    }

    /// Schedules a trim, if a peak is over and no trim is scheduled. Returns whether it was scheduled now.
    pub(super) fn schedule_trim(&mut self) -> bool {
        self.is_over() && !std::mem::replace(&mut self.is_trim_scheduled, true)
    }

    /// Gives memory back to the system, if the peak is still over: the C library keeps what was freed between two pieces that are in use.
    pub(super) fn trim(&mut self) {
        self.is_trim_scheduled = false;
        if self.is_over() {
            self.peak_bytes = self.pending_bytes;
            crate::sys::memory::trim();
        }
    }

    /// Returns whether the connections hold far less than they did, after a peak that is worth giving back.
    fn is_over(&self) -> bool {
        self.peak_bytes >= MIN_PEAK_BYTES && self.pending_bytes <= self.peak_bytes / 8
    }
}
