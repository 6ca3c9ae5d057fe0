//! A queue of exact deadlines.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Token;

/// A set of deadlines, each with a token. Setting, cancelling and taking a deadline take O(log n).
///
/// [`Wheel`](super::Wheel) suits thousands of deadlines that may be up to one step late.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use edgecho::event::{Deadlines, Token};
///
/// let now = Instant::now();
/// let mut deadlines = Deadlines::default();
/// deadlines.set(now + Duration::from_secs(5), Token::fixed(7));
/// assert_eq!(deadlines.take_due(now), None);
/// assert_eq!(deadlines.take_due(now + Duration::from_secs(5)), Some(Token::fixed(7)));
/// ```
#[derive(Debug, Default)]
pub struct Deadlines {
    due: BTreeSet<(Instant, Token)>,
}

impl Deadlines {
    /// Adds a deadline. A token may have several.
    pub fn set(&mut self, at: Instant, token: Token) {
        self.due.insert((at, token));
    }

    /// Removes a deadline, if it is still set.
    pub fn cancel(&mut self, at: Instant, token: Token) {
        self.due.remove(&(at, token));
    }

    /// Returns whether no deadline is set.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Returns the earliest deadline.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _)| at)
    }

    /// Removes the earliest deadline if it is due at `now`, and returns its token. Repeated calls return all due tokens in order of time.
    pub fn take_due(&mut self, now: Instant) -> Option<Token> {
        if self.next()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, token)| token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn deadlines_are_due_in_order_and_never_early() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut deadlines = Deadlines::default();
        assert_eq!(deadlines.next(), None);
        assert_eq!(deadlines.take_due(at(1_000)), None);

        deadlines.set(at(30), Token::fixed(3));
        deadlines.set(at(10), Token::fixed(1));
        deadlines.set(at(20), Token::fixed(2));
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.take_due(at(9)), None);
        assert_eq!(deadlines.take_due(at(25)), Some(Token::fixed(1)));
        assert_eq!(deadlines.take_due(at(25)), Some(Token::fixed(2)));
        assert_eq!(deadlines.take_due(at(25)), None);
        assert_eq!(deadlines.next(), Some(at(30)));
    }

    #[test]
    fn a_cancelled_deadline_is_never_due_and_another_at_the_same_time_still_is() {
        let at = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.set(at, Token::fixed(1));
        deadlines.set(at, Token::fixed(2));
        deadlines.cancel(at, Token::fixed(1));
        deadlines.cancel(at, Token::fixed(9));
        assert_eq!(deadlines.take_due(at), Some(Token::fixed(2)));
        assert_eq!(deadlines.take_due(at), None);
    }
}
