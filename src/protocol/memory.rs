//! A warning about memory that a connection needs and the system does not have.

use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use tracing::warn;

use crate::throttle::Throttle;

/// Limit on the warnings. Memory belongs to the whole process, and any peer can cause them.
static WARNINGS: LazyLock<Mutex<Throttle>> = LazyLock::new(Mutex::default);

/// Warns that the server closes a connection because it cannot hold `length` bytes for it.
#[cold]
pub(crate) fn warn(peer: Option<SocketAddr>, length: u64) {
    if let Some(suppressed) = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now()) {
        warn!(
            peer = peer.map(display),
            length, suppressed, "out of memory: closed a connection, for its bytes cannot be held"
        );
    }
}
