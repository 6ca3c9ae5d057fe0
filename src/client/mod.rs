//! The other end of the wire: `ping` and `flood`.
mod backoff;
mod connector;
mod diagnosis;
mod dial;
mod latency;
mod pattern;
mod probe;
mod target;
pub use backoff::Backoff;
pub use connector::{ConnectError, Connector, HANDSHAKE_BYTES, Handshake, INTEREST, State, Step, Timeouts};
pub use diagnosis::Corruption;
pub use pattern::Pattern;
pub use target::{DEFAULT_PORT, Target, TargetError};
pub mod flood;
pub mod ping;
