//! What a ping is to do.

use std::time::Duration;

use super::report::Format;
use crate::client::connector::Timeouts;
use crate::client::target::Target;
use crate::client::wire::Framing;

/// What to do, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The far end.
    pub target: Target,
    /// How many echoes to ask for; none for as many as there is time for.
    pub count: Option<u64>,
    /// How long from one to the next. Zero sends the next when the last has come back, or its time is up.
    pub interval: Duration,
    /// How many bytes each has, from 1 to [`Options::MAX_SIZE`].
    pub size: usize,
    /// What the far end takes as one message; the size is without it.
    pub framing: Framing,
    /// How long an echo may take before it is reported as lost, and how long the last is waited for.
    pub timeout: Duration,
    /// How long to look for an echo again and again before sleeping.
    pub busy_poll: Duration,
    /// Whether to ask for a handshake.
    pub handshake: bool,
    /// How long connecting may take.
    pub connect: Timeouts,
    /// How often to try again when the first connection is refused.
    pub retry: u32,
    /// How to report.
    pub format: Format,
    /// Report only the header and the summary.
    pub is_quiet: bool,
}

impl Options {
    /// The largest payload: 16 MiB.
    pub const MAX_SIZE: usize = 16 << 20;
}
