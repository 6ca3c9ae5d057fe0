//! Connecting: from connect(2) to a connection that can be used.

mod backoff;
mod connector;
mod dial;
mod error;
mod handshake;
mod probe;
mod proxy;
mod service;
mod state;

pub use backoff::Backoff;
pub use connector::{Connector, INTEREST, Step};
pub(crate) use dial::{check_source, dial};
pub use error::ConnectError;
pub use handshake::{HANDSHAKE_BYTES, Handshake};
pub(crate) use probe::Probe;
pub use proxy::{ProxyHeader, ProxyVersion};
pub use state::{State, Timeouts};
