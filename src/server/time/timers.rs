//! The timers of protocols: exact, each with an owner and a number. The wheel, in contrast, is for timeouts, most of which never come.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::protocol::{SessionId, Timer};

/// The owner of a timer: a connection, or `None` for the server.
type Owner = Option<SessionId>;

/// The moment of a timer, and its order among timers of the same moment.
type Place = (Instant, u64);

/// A set of timers. Setting, cancelling and taking cost O(log n).
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<Place, (Owner, Timer)>,
    places: BTreeMap<(Owner, u32), Place>,
    set: u64,
}

impl Timers {
    /// Sets a timer from `now` on. It replaces one of the same owner and number. A time that is too far away for the clock never comes.
    pub(super) fn set(&mut self, owner: Owner, timer: Timer, now: Instant) {
        self.cancel(owner, timer.number);
        if let Some(at) = now.checked_add(timer.after) {
            self.insert(owner, timer, at);
        }
    }

    fn insert(&mut self, owner: Owner, timer: Timer, at: Instant) {
        self.set += 1;
        let place = (at, self.set);
        self.due.insert(place, (owner, timer));
        self.places.insert((owner, timer.number), place);
    }

    /// Takes a timer back, if it is set.
    pub(super) fn cancel(&mut self, owner: Owner, number: u32) {
        if let Some(place) = self.places.remove(&(owner, number)) {
            self.due.remove(&place);
        }
    }

    /// Takes back all timers of a connection that has gone.
    pub(super) fn forget(&mut self, owner: SessionId) {
        if self.places.is_empty() {
            return;
        }
        while let Some((&key, _)) = self.places.range((Some(owner), 0)..=(Some(owner), u32::MAX)).next() {
            self.cancel(key.0, key.1);
        }
    }

    /// Returns whether no timer is set.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Returns the moment of the next timer.
    #[inline]
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Takes the earliest timer that is due at `now`. A repeating timer is set again, by its schedule and not by the clock, so that delays do
    /// not add up.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Owner, u32)> {
        if self.next()? > now {
            return None;
        }
        let ((at, _), (owner, timer)) = self.due.pop_first()?;
        self.places.remove(&(owner, timer.number));
        if let Some(next) = timer.every.and_then(|every| next_in_schedule(at, every.max(Timer::SHORTEST_INTERVAL), now)) {
            self.insert(owner, timer, next);
        }
        Some((owner, timer.number))
    }
}

/// Returns the first moment after `now` of a schedule with a moment at `at` and then at intervals of `every`; `None` if it is too far away for
/// the clock.
pub(super) fn next_in_schedule(at: Instant, every: Duration, now: Instant) -> Option<Instant> {
    let passed = now.saturating_duration_since(at);
    let into_interval = passed.as_nanos() % every.as_nanos();
    let left = every - Duration::from_nanos(u64::try_from(into_interval).ok()?);
    at.checked_add(passed)?.checked_add(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slotmap::SlotMap;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn timers_come_in_order_and_those_of_one_moment_in_the_order_in_which_they_were_set() {
        let start = Instant::now();
        let mut timers = Timers::default();
        for (number, after) in [(3, 20), (1, 10), (2, 20), (4, 5)] {
            timers.set(None, Timer::once(number, ms(after)), start);
        }
        assert_eq!(timers.next(), Some(start + ms(5)));
        assert_eq!(timers.take_due(start + ms(4)), None);
        let numbers: Vec<_> = std::iter::from_fn(|| timers.take_due(start + ms(30))).map(|(_, number)| number).collect();
        assert_eq!(numbers, [4, 1, 3, 2]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_timer_that_repeats_keeps_to_its_schedule_however_late_it_is_taken() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.set(None, Timer::every(1, ms(100)), start);
        let mut now = start;
        for round in 1..=36_000_u64 {
            now = start + ms(100 * round) + Duration::from_micros(900); // each time nearly a millisecond late
            assert_eq!(timers.take_due(now), Some((None, 1)));
        }
        assert_eq!(timers.next(), Some(start + ms(100 * 36_001)), "an hour later it has not drifted at all");
        assert_eq!(timers.take_due(now + ms(1_000)), Some((None, 1)), "a server that sleeps through ten of them gets one");
        assert_eq!(timers.take_due(now + ms(1_000)), None);
        assert_eq!(timers.next(), Some(start + ms(100 * 36_011)));
    }

    #[test]
    fn no_time_is_too_short_or_too_long_for_a_timer() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.set(None, Timer { number: 1, after: Duration::ZERO, every: Some(Duration::ZERO) }, start);
        timers.set(None, Timer::once(2, Duration::MAX), start);
        timers.set(None, Timer { number: 3, after: ms(1), every: Some(Duration::MAX) }, start);
        let due = |timers: &mut Timers, at| {
            std::iter::from_fn(|| timers.take_due(at)).map(|(_, number)| number).collect::<Vec<_>>()
        };
        assert_eq!(due(&mut timers, start), [1], "a repeating timer comes once in a turn");
        assert_eq!(due(&mut timers, start + ms(500)), [3, 1]);
        assert_eq!(timers.next(), Some(start + ms(501)));
        assert_eq!(due(&mut timers, start + Duration::from_secs(1 << 32)), [1]);
    }

    #[test]
    fn the_timers_of_a_connection_go_with_it() {
        let mut ids = SlotMap::<SessionId, ()>::with_key();
        let (one, other) = (ids.insert(()), ids.insert(()));
        let start = Instant::now();
        let mut timers = Timers::default();
        for owner in [Some(one), Some(other), None] {
            timers.set(owner, Timer::once(1, ms(1)), start);
            timers.set(owner, Timer::every(u32::MAX, ms(1)), start);
        }
        timers.forget(one);
        let mut owners: Vec<_> = std::iter::from_fn(|| timers.take_due(start + ms(1))).map(|(owner, _)| owner).collect();
        owners.dedup();
        assert!(!owners.contains(&Some(one)) && owners.contains(&Some(other)) && owners.contains(&None));
        timers.forget(other);
        timers.cancel(None, u32::MAX);
        assert!(timers.due.is_empty() && timers.places.is_empty());
    }

    proptest! {
        #[test]
        fn never_early_and_each_as_often_as_it_was_set(steps in prop::collection::vec((0_u32..5, 0_u64..50, prop::bool::ANY, 0_u64..40), 1..60)) {
            let start = Instant::now();
            let mut timers = Timers::default();
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            let mut now = start;
            for (number, after, is_cancelled, passes) in steps {
                timers.set(None, Timer::once(number, ms(after)), now);
                model.insert(number, now + ms(after));
                if is_cancelled {
                    timers.cancel(None, number);
                    model.remove(&number);
                }
                now += ms(passes);
                while let Some((_, number)) = timers.take_due(now) {
                    let at = model.remove(&number).expect("it was set, and comes once");
                    prop_assert!(at <= now, "early");
                }
                prop_assert!(model.values().all(|&at| at > now), "late");
            }
        }
    }
}
