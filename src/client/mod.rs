//! The clients `ping`, `flood` and `send`, for any service that echoes over TCP.
//!
//! `ping` and `flood` share their parts. A [`Target`] names the far end. A [`Connector`] leads from connect(2) to the proof that
//! the far end is an echo service. A [`Pattern`] provides the bytes to send, and a [`Corruption`] tells what happened to bytes that
//! came back wrong.

mod bytes;
mod connect;
pub mod flood;
mod latency;
pub mod ping;
pub mod send;
mod target;

pub use bytes::{Corruption, Framing, Pattern};
pub use connect::{
    Backoff, ConnectError, Connector, HANDSHAKE_BYTES, Handshake, INTEREST, ProxyHeader, ProxyVersion, State, Step, Timeouts,
};
pub use target::{DEFAULT_PORT, Target, TargetError};
