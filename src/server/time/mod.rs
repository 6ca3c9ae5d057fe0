//! Time: the clock, timeouts, heartbeats, and the timers of protocols.

mod clock;
mod progress;
mod timeouts;
mod timers;

pub(super) use clock::{Clock, Horizon, Ms48};
pub(super) use progress::PeerProgress;
pub(super) use timeouts::{Heartbeats, wheel_step_ms};
pub(super) use timers::Timers;
