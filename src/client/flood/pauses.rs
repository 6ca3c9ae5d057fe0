//! The pauses in which flood itself keeps a connection from sending: while it gathers evidence of corruption, and before it replaces
//! an ended connection. The service does not cause them, so the latency excludes them.

/// The pauses of one connection and of its replacements. Times are in nanoseconds since the start of the run.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// The start of the present pause; 0 if there is none.
    since_ns: u64,
    /// Past pauses that a message may have waited for, in order.
    past: Vec<(u64, u64)>,
}

impl Pauses {
    /// Begins a pause, unless one is in progress.
    pub(super) fn begin(&mut self, now_ns: u64) {
        if self.since_ns == 0 {
            self.since_ns = now_ns.max(1);
        }
    }

    /// Ends the present pause, if any, and returns its length. Remembers it for [`shift`](Self::shift) if `is_scheduled`.
    pub(super) fn end(&mut self, now_ns: u64, is_scheduled: bool) -> Option<u64> {
        let since_ns = std::mem::take(&mut self.since_ns);
        if since_ns == 0 {
            return None;
        }
        if is_scheduled {
            self.past.push((since_ns, now_ns));
        }
        Some(now_ns.saturating_sub(since_ns))
    }

    /// Returns the due time of a message, later by the pauses that it waited for. Due times must ascend from call to call.
    #[inline]
    pub(super) fn shift(&mut self, due_ns: u64) -> u64 {
        if self.past.is_empty() { due_ns } else { self.shift_past(due_ns) }
    }

    #[cold]
    fn shift_past(&mut self, due_ns: u64) -> u64 {
        let over = self.past.iter().take_while(|&&(_, until_ns)| until_ns <= due_ns).count();
        self.past.drain(..over);
        let waited_ns = |&(since_ns, until_ns): &(u64, u64)| until_ns.saturating_sub(since_ns.max(due_ns));
        due_ns + self.past.iter().map(waited_ns).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_from_behind_the_pauses_that_it_has_waited_for() {
        let mut pauses = Pauses::default();
        assert_eq!(pauses.shift(5), 5);
        assert_eq!(pauses.end(10, true), None);
        pauses.begin(100);
        pauses.begin(150); // the same one goes on
        assert_eq!(pauses.end(200, true), Some(100));
        pauses.begin(300);
        assert_eq!(pauses.end(350, true), Some(50));
        assert_eq!(pauses.shift(40), 40 + 100 + 50, "it was due before both");
        assert_eq!(pauses.shift(120), 200 + 50, "it became due in the first");
        assert_eq!(pauses.shift(200), 200 + 50);
        assert_eq!(pauses.shift(349), 350);
        assert_eq!((pauses.shift(350), pauses.past.len()), (350, 0), "it has waited for none");
    }

    #[test]
    fn without_a_schedule_nothing_is_remembered() {
        let mut pauses = Pauses::default();
        pauses.begin(100);
        assert_eq!(pauses.end(200, false), Some(100));
        assert_eq!(pauses.shift(50), 50);
    }
}
