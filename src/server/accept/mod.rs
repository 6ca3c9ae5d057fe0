//! Accepting connections: the listeners, their pauses, and the limits on connections.

mod acceptor;
mod listener;
mod per_source;

pub(super) use acceptor::{ACCEPTS_PER_TURN, Acceptor, Arrival};
pub(super) use listener::{Listener, SHORTEST_PAUSE};
