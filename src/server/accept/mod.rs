//! Accepting: the listeners, and the limits on connections.

mod acceptor;
mod listener;
mod per_source;

pub(super) use listener::{Accepted, Listener, SHORTEST_PAUSE};
pub(super) use per_source::PerSource;
