//! The troubles of a run: what went wrong, how often, and the first cases of each kind.

use std::collections::BTreeMap;

/// The number of examples that are kept of each trouble.
const EXAMPLES: usize = 3;

/// The trouble of a peer that returns every byte after our FIN, and does not send its own.
pub(super) const NO_FIN: &str = "not closed by the peer";

/// One kind of trouble. Times are in seconds from the start of the measured time; a time before it is negative.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Trouble {
    /// The number of cases.
    pub count: u64,
    /// The time of the first case.
    pub at_s: f64,
    /// The time of the last case.
    pub last_at_s: f64,
    /// The first few cases.
    pub examples: Vec<Example>,
}

/// One case of a trouble.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Example {
    /// The time, as in [`Trouble`].
    pub at_s: f64,
    /// The case in words.
    pub text: String,
}

/// The troubles so far, by name. Times are in nanoseconds since the start of the run.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<&'static str, Cases>);

#[derive(Debug, Clone)]
struct Cases {
    count: u64,
    first_ns: u64,
    last_ns: u64,
    examples: Vec<(u64, String)>,
}

impl Troubles {
    /// Counts cases of a trouble. Describes them if they are among the first of their kind.
    pub(super) fn note(&mut self, name: &'static str, count: u64, now_ns: u64, describe: impl FnOnce() -> String) {
        let cases = self.0.entry(name).or_insert(Cases::NONE);
        cases.count += count;
        cases.first_ns = cases.first_ns.min(now_ns);
        cases.last_ns = cases.last_ns.max(now_ns);
        if cases.examples.len() < EXAMPLES {
            cases.examples.push((now_ns, describe()));
        }
    }

    /// Adds the cases of another thread.
    pub(super) fn add(&mut self, other: &Self) {
        for (name, other) in &other.0 {
            self.0.entry(name).or_insert(Cases::NONE).add(other);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the troubles with their times from `start_ns` on.
    pub(super) fn since(self, start_ns: u64) -> Vec<(&'static str, Trouble)> {
        self.0.into_iter().map(|(name, cases)| (name, cases.since(start_ns))).collect()
    }
}

impl Cases {
    const NONE: Self = Self { count: 0, first_ns: u64::MAX, last_ns: 0, examples: Vec::new() };

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.iter().take(room).cloned());
    }

    fn since(mut self, start_ns: u64) -> Trouble {
        let at_s = |at_ns: u64| (at_ns as f64 - start_ns as f64) / 1e9;
        self.examples.sort_by_key(|&(at_ns, _)| at_ns); // several threads add theirs
        Trouble {
            count: self.count,
            at_s: at_s(self.first_ns),
            last_at_s: at_s(self.last_ns),
            examples: self.examples.into_iter().map(|(at_ns, text)| Example { at_s: at_s(at_ns), text }).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cases_are_counted_and_the_first_few_are_kept_in_order() {
        let mut one = Troubles::default();
        for number in 0..5 {
            one.note("lost", 2, 100 - number, || format!("number {number}"));
        }
        let mut all = Troubles::default();
        all.add(&one);
        let [(name, trouble)] = &all.since(98)[..] else { panic!("one trouble") };
        assert_eq!((*name, trouble.count, trouble.examples.len()), ("lost", 10, EXAMPLES));
        assert_eq!((trouble.at_s, trouble.last_at_s), (-2e-9, 2e-9), "{trouble:?}");
        assert!(trouble.examples.is_sorted_by_key(|example| example.at_s), "{trouble:?}");
    }
}
