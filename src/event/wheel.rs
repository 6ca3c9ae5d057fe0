//! A timing wheel for thousands of coarse deadlines (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987).

use super::Token;

const SLOTS: usize = 256;

/// A timing wheel of 256 slots, each for one step of time.
///
/// Setting and taking a deadline take O(1). A deadline within reach of the slots is never early and at most one step late. A deadline beyond
/// them is due in the last slot, before its time, and the owner sets it again. A deadline cannot be cancelled: when its token is due, the
/// owner checks whether it still applies.
///
/// Time is in milliseconds since an origin of the owner's choice. The wheel has no clock: each call passes the time. So a wheel that was
/// empty for a month is as exact as a new one.
///
/// [`Deadlines`](super::Deadlines) suits few deadlines that must be exact.
///
/// ```
/// use edgecho::event::{Token, Wheel};
///
/// let mut wheel = Wheel::new(10);
/// assert_eq!(wheel.set(0, 25, Token::fixed(1)), 30);
/// assert_eq!(wheel.take_due(29), None);
/// assert_eq!(wheel.take_due(30), Some(vec![Token::fixed(1)]));
/// ```
#[derive(Debug)]
pub struct Wheel {
    step_ms: u64,
    slots: Vec<Vec<Token>>,
    /// One bit per slot, set if the slot holds a token.
    occupied: [u64; SLOTS / 64],
    /// The last step whose tokens have been taken.
    taken: u64,
    /// The next step that holds a token, or `u64::MAX` if there is none.
    next: u64,
}

impl Wheel {
    /// Creates an empty wheel with steps of `step_ms` milliseconds, at least 1.
    #[must_use]
    pub fn new(step_ms: u64) -> Self {
        Self { step_ms: step_ms.max(1), slots: vec![Vec::new(); SLOTS], occupied: [0; SLOTS / 64], taken: 0, next: u64::MAX }
    }

    /// Returns the step in milliseconds.
    #[inline]
    #[must_use]
    pub fn step_ms(&self) -> u64 {
        self.step_ms
    }

    /// Adds a deadline at `at_ms`, rounded up to a step, or in the last slot if that is farther away than the wheel reaches. Returns the time at
    /// which `token` will be due, in milliseconds.
    pub fn set(&mut self, now_ms: u64, at_ms: u64, token: Token) -> u64 {
        self.advance(now_ms);
        let furthest = self.taken + SLOTS as u64 - 1;
        let step = at_ms.div_ceil(self.step_ms).clamp(self.taken + 1, furthest);
        let slot = (step % SLOTS as u64) as usize;
        self.slots[slot].push(token);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.next = self.next.min(step);
        step * self.step_ms
    }

    /// Turns the wheel to `now_ms`, but not past a token that has not been taken.
    fn advance(&mut self, now_ms: u64) {
        let now = now_ms / self.step_ms;
        self.taken = self.taken.max(now.min(self.next - 1));
    }

    /// Returns whether no token is set.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next == u64::MAX
    }

    /// Returns the time at which the next token is due, in milliseconds.
    #[inline]
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        (self.next != u64::MAX).then(|| self.next * self.step_ms)
    }

    /// Removes and returns all tokens that are due at `now_ms`: in the order of their steps, and within a step in the order in which they were
    /// set. A token set afterwards is due later than `now_ms`.
    pub fn take_due(&mut self, now_ms: u64) -> Option<Vec<Token>> {
        let now = now_ms / self.step_ms;
        let mut due = Vec::new();
        while self.next <= now {
            let slot = (self.next % SLOTS as u64) as usize;
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            if due.is_empty() {
                due = std::mem::take(&mut self.slots[slot]);
            } else {
                due.append(&mut std::mem::take(&mut self.slots[slot]));
            }
            self.taken = self.next;
            let is_occupied = |step: &u64| {
                let slot = (*step % SLOTS as u64) as usize;
                self.occupied[slot / 64] & 1 << (slot % 64) != 0
            };
            self.next = (self.taken + 1..self.taken + SLOTS as u64).find(is_occupied).unwrap_or(u64::MAX);
        }
        // Turn the wheel only after all tokens are taken: then a token set next is measured from `now`, not from before a long pause.
        self.taken = self.taken.max(now);
        (!due.is_empty()).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take_all(wheel: &mut Wheel, now_ms: u64) -> Vec<Token> {
        std::iter::from_fn(|| wheel.take_due(now_ms)).flatten().collect()
    }

    #[test]
    fn a_deadline_is_due_in_its_step() {
        let mut wheel = Wheel::new(10);
        wheel.set(0, 25, Token::fixed(1));
        wheel.set(0, 30, Token::fixed(2));
        wheel.set(0, 31, Token::fixed(3));
        assert_eq!(wheel.next_ms(), Some(30));
        assert_eq!(take_all(&mut wheel, 29), []);
        assert_eq!(take_all(&mut wheel, 30), [Token::fixed(1), Token::fixed(2)]);
        assert_eq!(wheel.next_ms(), Some(40));
        assert_eq!(take_all(&mut wheel, 1_000_000), [Token::fixed(3)]);
        assert_eq!(wheel.next_ms(), None);
    }

    #[test]
    fn a_deadline_beyond_the_last_slot_is_due_when_the_wheel_has_turned() {
        let mut wheel = Wheel::new(1);
        assert_eq!(wheel.set(0, 1_000, Token::fixed(1)), 255);
        assert_eq!(wheel.next_ms(), Some(255));
        assert_eq!(take_all(&mut wheel, 255), [Token::fixed(1)]);
    }

    #[test]
    fn a_wheel_that_was_empty_for_months_is_as_exact_as_a_new_one() {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        for (step, now) in [(1, 20 * DAY_MS), (1_000, 25 * DAY_MS), (7, u64::from(u32::MAX) - 3), (1, 1 << 42)] {
            let mut wheel = Wheel::new(step);
            let comes = wheel.set(now, now + 10 * step, Token::fixed(1));
            assert!((now + 10 * step..=now + 11 * step).contains(&comes), "{comes} at {now}");
            assert_eq!(take_all(&mut wheel, now + 9 * step), []);
            assert_eq!(take_all(&mut wheel, comes), [Token::fixed(1)]);
        }
    }

    #[test]
    fn after_a_pause_of_months_every_deadline_is_due_once() {
        let mut wheel = Wheel::new(1);
        wheel.set(0, 100, Token::fixed(1));
        wheel.set(0, 200, Token::fixed(2));
        let now = 50 * 24 * 60 * 60 * 1_000;
        let mut came = 0;
        while let Some(due) = wheel.take_due(now) {
            came += due.len();
            for token in due {
                wheel.set(now, now + 1_000_000, token);
            }
        }
        assert_eq!(came, 2, "set from a time before the pause, each would be due 17,000,000 times");
    }

    proptest! {
        #[test]
        fn never_early_and_at_most_a_step_late(
            step in 1_u64..50, start in prop_oneof![Just(0), 0_u64..1 << 45, Just(u64::from(u32::MAX) - 500), Just((1 << 31) - 500)],
            steps in prop::collection::vec((0_u64..3_000, prop_oneof![9 => 0_u64..200, 1 => 0_u64..3_000_000_000]), 1..80),
        ) {
            let mut wheel = Wheel::new(step);
            let mut set = Vec::new();
            let mut now = start;
            for (index, (ahead, passed)) in (0..).zip(steps) {
                let at = now + ahead.min(step * 250);
                wheel.set(now, at, Token::fixed(index));
                set.push((at, Token::fixed(index)));
                now += passed;
                let came = take_all(&mut wheel, now);
                for token in &came {
                    let place = set.iter().position(|(_, other)| other == token).expect("the token was set, and is due once");
                    prop_assert!(set.swap_remove(place).0 <= now, "early");
                }
                prop_assert!(set.iter().all(|&(at, _)| at + 2 * step > now), "late: {set:?} at {now}");
            }
        }
    }
}
