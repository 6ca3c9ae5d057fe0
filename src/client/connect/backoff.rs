//! The pauses between attempts.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses that double from 100 ms to 5 s. Each is shortened by up to a half at random, so that connections that failed together do
/// not retry together.
///
/// ```
/// use std::time::Duration;
///
/// use edgecho::client::Backoff;
///
/// let mut backoff = Backoff::default();
/// let first = backoff.pause(&mut fastrand::Rng::new());
/// assert!((Duration::from_millis(50)..=Duration::from_millis(100)).contains(&first));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Returns the number of pauses so far.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the next pause.
    pub fn pause(&mut self, random: &mut fastrand::Rng) -> Duration {
        let doubled = FIRST.saturating_mul(1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX));
        self.attempts += 1;
        doubled.min(LONGEST).mul_f64(0.5 + random.f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_are_never_the_same_for_all() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut backoff = Backoff::default();
        let mut base = FIRST;
        for _ in 0..80 {
            let pause = backoff.pause(&mut random);
            assert!(pause >= base / 2 && pause <= base, "{pause:?} of {base:?}");
            base = (base * 2).min(LONGEST);
        }
        assert_eq!(backoff.attempts(), 80);
        let first = |seed| Backoff::default().pause(&mut fastrand::Rng::with_seed(seed));
        assert_ne!(first(1), first(2));
    }
}
