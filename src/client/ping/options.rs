//! The options of a ping.

use std::time::Duration;

use super::report::Format;
use crate::client::bytes::Framing;
use crate::client::connect::{ProxyVersion, Timeouts};
use crate::client::target::Target;

/// The options of a ping.
///
/// ```
/// use edgecho::client::ping::Options;
///
/// let mut options = Options::new("127.0.0.1".parse()?);
/// options.count = Some(10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The far end.
    pub target: Target,
    /// The number of echoes to request; `None` continues until a signal.
    pub count: Option<u64>,
    /// The time from one request to the next. With zero, the next request follows the echo, or its timeout.
    pub interval: Duration,
    /// The size of a payload in bytes, without its framing; from 1 to [`Options::MAX_SIZE`].
    pub size: usize,
    /// The message boundaries that the far end expects.
    pub framing: Framing,
    /// The time after which an echo is reported as lost, and for which the last one is awaited.
    pub timeout: Duration,
    /// The time to busy-poll for an echo before blocking.
    pub busy_poll: Duration,
    /// Begin each connection with a handshake.
    pub handshake: bool,
    /// Begin each connection with a PROXY header of this version, before the handshake. It holds the addresses of the connection.
    pub send_proxy: Option<ProxyVersion>,
    /// The time limits for connecting.
    pub connect: Timeouts,
    /// The number of retries when the first connection is refused.
    pub retry: u32,
    /// The format of the report.
    pub format: Format,
    /// Report only the header and the summary.
    pub is_quiet: bool,
}

impl Options {
    /// The maximum size of a payload: 16 MiB.
    pub const MAX_SIZE: usize = 16 << 20;

    /// Returns the defaults: 64 bytes every second without end, a timeout of 3 seconds, a report as text.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            count: None,
            interval: Duration::from_secs(1),
            size: 64,
            framing: Framing::Bytes,
            timeout: Duration::from_secs(3),
            busy_poll: Duration::ZERO,
            handshake: true,
            send_proxy: None,
            connect: Timeouts::default(),
            retry: 0,
            format: Format::Text { timestamps: false },
            is_quiet: false,
        }
    }
}
