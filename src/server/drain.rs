//! The drain: the stages from the first signal to the last byte, and the deadline of each.

use std::time::{Duration, Instant};

/// The stage of a server: serving, or on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Stage {
    /// No signal yet.
    #[default]
    Serving,
    /// A signal has come. The clients in the backlogs are accepted, and the listeners close. Open connections are served as before, until
    /// they end.
    Draining,
    /// The drain timeout is over. Each open connection is sent its pending bytes, and then our FIN.
    Closing,
    /// Closing has taken too long, too: the connections that are left are cut off.
    Over,
}

impl Stage {
    /// All stages, in the order in which a server passes them.
    pub const ALL: &'static [Self] = &[Self::Serving, Self::Draining, Self::Closing, Self::Over];

    /// Returns its name in metrics and health checks.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Closing => "closing",
            Self::Over => "over",
        }
    }
}

/// The time that the peer of a connection being closed has to send its FIN, once it has acknowledged all bytes that it is owed.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// A deadline that is met later than this was missed because the process did not run: it was stopped, or its machine suspended.
const PAUSE: Duration = Duration::from_millis(100);

/// The stages of a drain.
#[derive(Debug)]
pub(super) struct Drain {
    timeout: Duration,
    stage: Stage,
    /// The last deadline that was returned.
    deadline: Option<Instant>,
}

/// The action that is due at a deadline of the drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Close every connection in order, until this moment.
    CloseAll(Instant),
    /// Wait until this moment: peers had no time to take their bytes while the process did not run.
    Wait(Instant),
    /// Cut off the connections that are left.
    CutOff,
}

impl Drain {
    /// Returns a drain that serves open connections for up to `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, stage: Stage::Serving, deadline: None }
    }

    /// Returns the stage.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Returns whether the drain has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.stage != Stage::Serving
    }

    /// Returns whether the drain timeout is over, so that connections are being closed.
    pub(super) fn is_closing(&self) -> bool {
        self.stage == Stage::Closing
    }

    /// Returns whether connections are being cut off.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Begins the drain at a signal that came at `now`, and returns its deadline. Returns `None` if the drain has begun before: this signal
    /// ends the server at once.
    pub(super) fn on_signal(&mut self, now: Instant) -> Option<Instant> {
        if self.has_begun() {
            return None;
        }
        self.stage = Stage::Draining;
        self.deadline = Some(now + self.timeout);
        self.deadline
    }

    /// Returns the action that is due, because the last deadline has passed at `now`.
    pub(super) fn on_deadline(&mut self, now: Instant) -> Due {
        let is_late = self.deadline.is_some_and(|deadline| now > deadline + PAUSE);
        let until = now + LINGER;
        match self.stage {
            Stage::Closing if is_late => {
                self.deadline = Some(until);
                Due::Wait(until)
            }
            Stage::Closing | Stage::Over => {
                self.stage = Stage::Over;
                Due::CutOff
            }
            Stage::Serving | Stage::Draining => {
                self.stage = Stage::Closing;
                self.deadline = Some(until);
                Due::CloseAll(until)
            }
        }
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
    fn a_pause_does_not_count_against_peers_that_are_being_closed() {
        let now = Instant::now();
        let mut drain = Drain::new(Duration::from_secs(5));
        drain.on_signal(now);
        let closed = now + Duration::from_secs(5);
        assert_eq!(drain.on_deadline(closed), Due::CloseAll(closed + LINGER));
        let resumed = closed + Duration::from_secs(40);
        assert_eq!(drain.on_deadline(resumed), Due::Wait(resumed + LINGER));
        assert_eq!(drain.on_deadline(resumed + LINGER), Due::CutOff);
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
