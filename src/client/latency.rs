//! Durations as the clients count and print them.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that a histogram tells from a longer one: 60 seconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// Returns an empty histogram of latencies in nanoseconds, exact to 3 digits. `saturating_record` counts a latency beyond 60 seconds
/// as 60 seconds.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds and the digits are valid constants")
}

/// Returns a duration in nanoseconds, at most `u64::MAX`.
pub(crate) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Formats nanoseconds as milliseconds with `digits` digits, at most 3 of them after the point.
pub(crate) fn milliseconds(nanoseconds: f64, digits: usize) -> String {
    let millis = nanoseconds / 1e6;
    let before_point = match millis {
        ..1.0 => 0,
        ..10.0 => 1,
        ..100.0 => 2,
        ..1_000.0 => 3,
        _ => digits,
    };
    let decimals = digits.saturating_sub(before_point).min(3);
    format!("{millis:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let text = |micros: f64| milliseconds(micros * 1e3, 3);
        assert_eq!([81.0, 1_234.0, 12_345.0, 123_456.0].map(text), ["0.081", "1.23", "12.3", "123"]);
    }

    #[test]
    fn milliseconds_keep_their_column() {
        for (nanoseconds, text) in [(81_000.0, "0.081"), (12_345_678.0, "12.35"), (123_456_789.0, "123.5"), (6e10, "60000")]
        {
            assert_eq!(milliseconds(nanoseconds, 4), text);
        }
    }
}
