//! Words and numbers that several reports share.

use std::time::Duration;

use crate::client::bytes::Framing;
use crate::client::flood::options::{Load, Options};
use crate::client::latency::milliseconds;

/// The quantiles of the reports, with their names.
pub(super) const QUANTILES: [(f64, &str); 6] =
    [(0.5, "p50"), (0.75, "p75"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")];

/// Formats a duration with units: `500ms`, `10s`, `1m 30s`.
pub(super) fn short(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(duration)
}

/// Describes a load in one line, for a headline: `50 connections, 1 thread, closed loop, 64 bytes, verify full`.
#[must_use]
pub fn describe(options: &Options) -> String {
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let depth = |pipeline| if pipeline == 1 { String::new() } else { format!(", {pipeline} in flight on each") };
    let load = match options.load {
        Load::Closed { pipeline } => format!("closed loop{}", depth(pipeline)),
        Load::Open { rate, pipeline } => format!("open loop of {rate} messages/s{}", depth(pipeline)),
        Load::Bulk => "bulk".to_owned(),
        Load::Churn => "churn".to_owned(),
    };
    let size = match options.framing {
        _ if options.load == Load::Bulk => String::new(),
        Framing::Bytes => format!(", {} bytes", options.sizes),
        framing => format!(", {}s of {} bytes", framing.name(), options.sizes),
    };
    let proxy = options.send_proxy.map_or(String::new(), |version| format!(", PROXY {}", version.name()));
    format!(
        "{}, {}, {load}{size}{proxy}, verify {}",
        plural(options.connections, "connection"),
        plural(options.threads, "thread"),
        options.verify.name()
    )
}

/// Formats nanoseconds as milliseconds with four digits, at most 3 of them after the point: `0.081`, `12.35`, `123.5`.
#[must_use]
pub fn millis(nanoseconds: f64) -> String {
    milliseconds(nanoseconds, 4)
}
