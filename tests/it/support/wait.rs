//! Waiting for events, and measuring on a machine that has other work.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Far longer than any event in a test takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none within [`PATIENCE`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// If it does not within [`PATIENCE`].
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || holds().then_some(()));
}

/// Lets time pass, for tests of which the promise is a time, or that nothing happens.
pub fn pause(time: Duration) {
    let start = Instant::now();
    while let Some(rest) = time.checked_sub(start.elapsed()).filter(|rest| !rest.is_zero()) {
        std::thread::park_timeout(rest);
    }
}

/// Keeps the heaviest tests and those that measure a rate from running at the same time: each holds this guard.
pub fn quiet() -> MutexGuard<'static, ()> {
    static QUIET: Mutex<()> = Mutex::new(());
    QUIET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Repeats a measurement that another process can spoil by taking the CPU, until one round passes.
///
/// # Panics
/// With the reason of the last round, if none of five passes.
pub fn in_one_of_five_rounds(mut measure: impl FnMut() -> Result<(), String>) {
    let mut rounds = (0..5).map(|_| measure());
    let mut last = Err(String::new());
    while last.is_err() {
        let Some(round) = rounds.next() else { break };
        last = round;
    }
    if let Err(reason) = last {
        panic!("in none of five rounds: {reason}");
    }
}
