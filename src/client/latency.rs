//! How long things took.

use hdrhistogram::Histogram;

/// The longest latency that is told from a longer one: 60 seconds.
pub(super) const LONGEST_NS: u64 = 60_000_000_000;

/// An empty histogram of latencies in nanoseconds, exact to 3 digits, up to [`LONGEST_NS`]; `saturating_record` counts what is
/// longer as if it were that long.
#[must_use]
pub(super) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds and digits that a histogram can have")
}
