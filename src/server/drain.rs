//! From a signal to the last byte: the stages that lead there, and how long each may take.

use std::time::{Duration, Instant};

/// How far the way out has been gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No signal yet.
    Serving,
    /// A signal has come. The accept queue is served to its end, and the listeners close. Those who are connected are served as
    /// before, until they leave.
    Draining,
    /// The drain's time is up. Each who is still there is sent what is pending, and then our FIN.
    ClosingAll,
    /// That has taken too long, too: whatever is left is cut off.
    Over,
}

/// The time that the peer of a connection that we close has to send its FIN, once it has acknowledged all that it is owed.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// A deadline that comes later than this was not met because the process did not run: it was stopped, or its machine suspended.
const PAUSE: Duration = Duration::from_millis(100);

/// The drain.
#[derive(Debug)]
pub(super) struct Drain {
    timeout: Duration,
    stage: Stage,
    /// The deadline that was given last.
    deadline: Option<Instant>,
}

/// What a deadline of the drain asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Close every connection in order, until this moment.
    CloseAll(Instant),
    /// Wait until this moment: peers had no time to take what is owed to them while the process did not run.
    Wait(Instant),
    /// Cut off what is left.
    CutOff,
}

impl Drain {
    /// A drain that serves those who are connected for up to `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, stage: Stage::Serving, deadline: None }
    }

    /// Whether a signal has come.
    pub(super) fn has_begun(&self) -> bool {
        self.stage != Stage::Serving
    }

    /// Returns whether its time is up, so that connections are being closed.
    pub(super) fn is_closing(&self) -> bool {
        self.stage == Stage::ClosingAll
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
        self.deadline = Some(now + self.timeout);
        self.deadline
    }

    /// The deadline that was given last has come, at `now`.
    pub(super) fn on_deadline(&mut self, now: Instant) -> Due {
        let is_late = self.deadline.is_some_and(|deadline| now > deadline + PAUSE);
        let until = now + LINGER;
        match self.stage {
            Stage::ClosingAll if is_late => {
                self.deadline = Some(until);
                Due::Wait(until)
            }
            Stage::ClosingAll | Stage::Over => {
                self.stage = Stage::Over;
                Due::CutOff
            }
            Stage::Serving | Stage::Draining => {
                self.stage = Stage::ClosingAll;
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
