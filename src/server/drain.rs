//! From a signal to the last byte: the stages that lead there, and how long each may take.

use std::time::{Duration, Instant};

use super::timing::LINGER;

/// How far the way out has been gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No signal yet.
    Serving,
    /// A signal has come. The accept queue is served to its end, and the listeners close. Those who are connected are served as
    /// before, until they leave.
    Draining,
    /// The drain's time is up. Each who is still there is sent what is pending, and then our FIN.
    Closing,
    /// That has taken too long, too: whatever is left is cut off.
    Over,
}

/// The drain.
#[derive(Debug)]
pub(super) struct Drain {
    timeout: Duration,
    stage: Stage,
}

/// What a deadline of the drain asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Close every connection in order, until this moment.
    CloseAll(Instant),
    /// Cut off what is left.
    CutOff,
}

impl Drain {
    /// A drain that serves those who are connected for up to `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, stage: Stage::Serving }
    }

    /// Whether a signal has come.
    pub(super) fn has_begun(&self) -> bool {
        self.stage != Stage::Serving
    }

    /// Returns whether its time is up, so that connections are being closed.
    pub(super) fn is_closing(&self) -> bool {
        self.stage == Stage::Closing
    }

    /// Whether nothing is waited for any longer.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// A signal has come at `now`. Gives the deadline of the drain that it begins; or none if there is a drain already, and this
    /// signal means that all is to end at once.
    pub(super) fn on_signal(&mut self, now: Instant) -> Option<Instant> {
        if self.has_begun() {
            return None;
        }
        self.stage = Stage::Draining;
        Some(now + self.timeout)
    }

    /// The deadline that was given last has come, at `now`.
    pub(super) fn on_deadline(&mut self, now: Instant) -> Due {
        if matches!(self.stage, Stage::Closing | Stage::Over) {
            self.stage = Stage::Over;
            return Due::CutOff;
        }
        self.stage = Stage::Closing;
        Due::CloseAll(now + LINGER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_serves_then_closes_then_cuts_off() {
        let now = Instant::now();
        let mut drain = Drain::new(Duration::from_secs(5));
        assert!(!drain.has_begun());
        assert_eq!(drain.on_signal(now), Some(now + Duration::from_secs(5)));
        assert!(drain.has_begun());
        assert_eq!(drain.on_deadline(now), Due::CloseAll(now + LINGER));
        assert_eq!(drain.on_deadline(now), Due::CutOff);
    }

    #[test]
    fn a_second_signal_ends_at_once_at_any_stage() {
        let now = Instant::now();
        let mut drain = Drain::new(Duration::ZERO);
        drain.on_signal(now);
        assert_eq!(drain.on_signal(now), None);
        drain.on_deadline(now);
        assert_eq!(drain.on_signal(now), None);
    }
}
