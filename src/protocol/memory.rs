//! Memory that cannot be had, for a connection that needs it.

use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use tracing::warn;

use crate::throttle::Throttle;

/// Memory belongs to the whole process, and so does the limit on warnings about it. Any peer can cause them.
static WARNINGS: LazyLock<Mutex<Throttle>> = LazyLock::new(Mutex::default);

/// Warns that a connection, of this peer if it is known, is closed because the memory for `length` bytes cannot be had.
#[cold]
pub(crate) fn warn(peer: Option<SocketAddr>, length: u64) {
    if let Some(suppressed) = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now()) {
        warn!(
            peer = peer.map(display),
            length, suppressed, "out of memory: closed a connection, for its bytes cannot be held"
        );
    }
}
