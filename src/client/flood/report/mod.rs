//! What is said of a flood: a table for people, JSON for programs, a log for HdrHistogram's tools.

mod assertion;
mod json;
mod log;
mod text;

pub use assertion::{Assertion, AssertionError, Verdict};
pub use json::write as write_json;
pub use log::{HdrLog, HdrLogFile};
pub use text::{millis, write as write_text, write_interim, write_summary};

use std::time::Duration;

use super::{Load, Options};
use crate::client::Framing;

/// The quantiles that are shown, and what they are called.
const QUANTILES: [(f64, &str); 6] =
    [(0.5, "p50"), (0.75, "p75"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")];

/// Seconds as people write them: `500ms`, `10s`, `1m 30s`.
fn short(duration: Duration) -> humantime::FormattedDuration {
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
    format!(
        "{}, {}, {load}{size}, verify {}",
        plural(options.connections, "connection"),
        plural(options.threads, "thread"),
        options.verify.name()
    )
}
