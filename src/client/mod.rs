//! The other end of the wire: `ping` and `flood`, for any service that echoes over TCP.
//!
//! Both stand on the same parts: a [`Target`] is whom to call, a [`Connector`] leads from connect(2) to the proof that the far end is
//! an echo service, a [`Pattern`] is what to send, and a [`Corruption`] says what has become of it.

mod backoff;
mod connect_error;
mod connector;
mod diagnosis;
mod dial;
pub mod flood;
mod latency;
mod pattern;
pub mod ping;
mod probe;
pub mod send;
mod target;
mod wire;

pub use backoff::Backoff;
pub use connect_error::ConnectError;
pub use connector::{Connector, HANDSHAKE_BYTES, Handshake, INTEREST, State, Step, Timeouts};
pub use diagnosis::Corruption;
pub use pattern::Pattern;
pub use target::{DEFAULT_PORT, Target, TargetError};
pub use wire::Framing;
