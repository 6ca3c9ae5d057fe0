//! The drain: the stages from the first signal to the last byte, and the deadline of each.

use std::time::{Duration, Instant};

/// The stage of a server: serving, or on its way to the end. A server without a drain delay goes from `Serving` to `Draining`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Stage {
    /// No signal yet.
    #[default]
    Serving,
    /// A signal has come, and the drain delay, [`Timeouts::drain_delay`](super::Timeouts::drain_delay), runs. New clients are accepted and
    /// all limits hold, as before. A load balancer has this time to see that the server is no longer ready.
    Leaving,
    /// The drain has begun. The clients in the backlogs are accepted, and the listeners close. Open connections are served as before, until
    /// they end.
    Draining,
    /// The drain timeout is over. Each open connection is sent its pending bytes, and then our FIN.
    Closing,
    /// Closing has taken too long, too, or the server ends at once: the connections that are left are cut off.
    Over,
}

impl Stage {
    /// All stages, in the order in which a server passes them.
    pub const ALL: &'static [Self] = &[Self::Serving, Self::Leaving, Self::Draining, Self::Closing, Self::Over];

    /// Returns its name in metrics and health checks.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Leaving => "leaving",
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
    delay: Duration,
    timeout: Duration,
    stage: Stage,
    /// The last deadline that was returned.
    deadline: Option<Instant>,
    /// The time of this stage has begun again, after a pause.
    is_extended: bool,
}

/// The action that is due at a signal or at a deadline of the drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Serve as before, until this moment.
    Leave(Instant),
    /// Accept the clients in the backlogs, close the listeners, and serve open connections until this moment.
    Drain(Instant),
    /// Close every connection in order, until this moment.
    CloseAll(Instant),
    /// Wait until this moment: a load balancer or a peer had no time to act while the process did not run. At most once in a stage.
    Wait(Instant),
    /// Cut off the connections that are left.
    CutOff,
}

impl Drain {
    /// Returns a drain that begins `delay` after the signal, and then serves open connections for up to `timeout`.
    pub(super) fn new(delay: Duration, timeout: Duration) -> Self {
        Self { delay, timeout, stage: Stage::Serving, deadline: None, is_extended: false }
    }

    /// Returns the time between the signal and the drain.
    pub(super) fn delay(&self) -> Duration {
        self.delay
    }

    /// Returns the stage.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Returns whether a signal has come: the server is on its way to the end, although it may still accept.
    pub(super) fn is_signalled(&self) -> bool {
        self.stage != Stage::Serving
    }

    /// Returns whether the drain has begun: the server accepts only the clients that are in the backlogs.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::Serving | Stage::Leaving)
    }

    /// Returns whether the drain timeout is over, so that connections are being closed.
    pub(super) fn is_closing(&self) -> bool {
        self.stage == Stage::Closing
    }

    /// Returns whether connections are being cut off.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Begins the delay or the drain at a signal that came at `now`. Returns `None` if a signal has come before: this one ends the server at
    /// once.
    pub(super) fn on_signal(&mut self, now: Instant) -> Option<Due> {
        if self.is_signalled() {
            return None;
        }
        if self.delay.is_zero() {
            return Some(self.begin(now));
        }
        Some(Due::Leave(self.enter(Stage::Leaving, now + self.delay)))
    }

    fn begin(&mut self, now: Instant) -> Due {
        Due::Drain(self.enter(Stage::Draining, now + self.timeout))
    }

    fn enter(&mut self, stage: Stage, until: Instant) -> Instant {
        self.stage = stage;
        self.deadline = Some(until);
        self.is_extended = false;
        until
    }

    fn extend(&mut self, until: Instant) -> Due {
        self.deadline = Some(until);
        self.is_extended = true;
        Due::Wait(until)
    }

    /// Ends all stages: the connections that are left are cut off.
    pub(super) fn end_at_once(&mut self) {
        self.stage = Stage::Over;
    }

    /// Returns the action that is due, because the last deadline has passed at `now`.
    ///
    /// After a pause a stage has its time again, but only once. A process that gets too little CPU time is late at every deadline, and a service
    /// manager would kill it in the end.
    pub(super) fn on_deadline(&mut self, now: Instant) -> Due {
        let was_paused = !self.is_extended && self.deadline.is_some_and(|deadline| now > deadline + PAUSE);
        match self.stage {
            // The process may have been stopped for the whole delay, so that no health check was answered.
            Stage::Leaving if was_paused => self.extend(now + self.delay),
            Stage::Leaving => self.begin(now),
            Stage::Closing if was_paused => self.extend(now + LINGER),
            Stage::Closing | Stage::Over => {
                self.end_at_once();
                Due::CutOff
            }
            Stage::Serving | Stage::Draining => Due::CloseAll(self.enter(Stage::Closing, now + LINGER)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_serves_then_closes_then_cuts_off() {
        let now = Instant::now();
        let mut drain = Drain::new(Duration::ZERO, Duration::from_secs(5));
        assert!(!drain.has_begun());
        assert_eq!(drain.on_signal(now), Some(Due::Drain(now + Duration::from_secs(5))));
        assert!(drain.has_begun());
        assert_eq!(drain.on_deadline(now), Due::CloseAll(now + LINGER));
        assert_eq!(drain.on_deadline(now), Due::CutOff);
    }

    #[test]
    fn a_pause_does_not_count_against_peers_that_are_being_closed() {
        let now = Instant::now();
        let mut drain = Drain::new(Duration::ZERO, Duration::from_secs(5));
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
        let mut drain = Drain::new(Duration::from_secs(1), Duration::ZERO);
        drain.on_signal(now);
        for stage in [Stage::Leaving, Stage::Draining, Stage::Closing, Stage::Over] {
            assert_eq!((drain.stage(), drain.on_signal(now)), (stage, None));
            drain.on_deadline(now);
        }
    }

    #[test]
    fn the_drain_begins_when_the_delay_is_over() {
        let now = Instant::now();
        let mut drain = Drain::new(Duration::from_secs(10), Duration::from_secs(5));
        let begins = now + Duration::from_secs(10);
        assert_eq!(drain.on_signal(now), Some(Due::Leave(begins)));
        assert!(drain.is_signalled() && !drain.has_begun());
        assert_eq!(drain.on_deadline(begins), Due::Drain(begins + Duration::from_secs(5)));
        assert!(drain.has_begun());
    }

    /// Passes each deadline a minute late, up to the last one. Returns the stages after each of them.
    fn stages_of_a_process_that_is_always_late(delay: Duration) -> Vec<Stage> {
        let mut drain = Drain::new(delay, Duration::from_secs(5));
        let mut now = Instant::now();
        drain.on_signal(now);
        let pass = |_| {
            now = drain.deadline.expect("a deadline") + Duration::from_secs(60);
            drain.on_deadline(now);
            drain.stage()
        };
        (0..8).map(pass).collect()
    }

    #[test]
    fn a_process_that_is_always_late_gives_each_stage_its_time_twice_at_most() {
        use Stage::{Closing, Draining, Leaving, Over};
        let stages = stages_of_a_process_that_is_always_late(Duration::ZERO);
        assert_eq!(stages, [Closing, Closing, Over, Over, Over, Over, Over, Over]);
        let stages = stages_of_a_process_that_is_always_late(Duration::from_secs(10));
        assert_eq!(stages, [Leaving, Draining, Closing, Closing, Over, Over, Over, Over]);
    }

    #[test]
    fn a_pause_at_the_end_of_the_delay_begins_the_delay_again() {
        let now = Instant::now();
        let delay = Duration::from_secs(10);
        let mut drain = Drain::new(delay, Duration::from_secs(5));
        drain.on_signal(now);
        let resumed = now + Duration::from_secs(50);
        assert_eq!(drain.on_deadline(resumed), Due::Wait(resumed + delay));
        assert_eq!(drain.stage(), Stage::Leaving);
        assert_eq!(drain.on_deadline(resumed + delay), Due::Drain(resumed + delay + Duration::from_secs(5)));
    }
}
