//! The states of an outgoing connection, and how long each may last.

use std::time::Duration;

/// The state of an outgoing connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// connect(2) is in progress.
    Initiated,
    /// The far end has accepted. The kernel has not taken all of the PROXY header and the handshake yet.
    SentHandshake,
    /// The handshake is sent and has not come back whole.
    AwaitingAck,
    /// The connection can be used.
    Connected,
}

/// The time limits of connecting, 3 seconds each by default.
///
/// ```
/// use std::time::Duration;
///
/// use edgecho::client::Timeouts;
///
/// let mut timeouts = Timeouts::default();
/// timeouts.connect = Duration::from_millis(500);
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Timeouts {
    /// The limit for [`State::Initiated`].
    pub connect: Duration,
    /// The limit for [`State::SentHandshake`] and [`State::AwaitingAck`], each.
    pub handshake: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), handshake: Duration::from_secs(3) }
    }
}
