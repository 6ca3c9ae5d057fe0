//! Evidence of corruption: what came back from the first wrong byte on.

use std::time::Duration;

use super::diagnosis::{Corruption, Original, diagnose};

/// The time for which a client keeps reading after a wrong byte. The bytes that follow show what happened.
pub(crate) const GATHERING: Duration = Duration::from_millis(200);

/// The most evidence that a client keeps, apart from the rest of its last read.
const MAX_BYTES: usize = 64 * 1024;

/// The bytes of one connection from the first wrong one on. `M` is the owner's type for a moment.
#[derive(Debug)]
pub(crate) struct Evidence<M> {
    position: u64,
    bytes: Vec<u8>,
    since: M,
}

impl<M: Copy> Evidence<M> {
    /// Begins with nothing: the next byte, at `position` of the stream, is wrong.
    pub(crate) fn new(position: u64, since: M) -> Self {
        Self { position, bytes: Vec::new(), since }
    }

    /// Returns the position of the first wrong byte in the stream.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Returns the bytes that came from that position on.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns when the first wrong byte came. The verdict is due [`GATHERING`] later.
    pub(crate) fn since(&self) -> M {
        self.since
    }

    /// Adds bytes that came next. Returns whether there is enough for a verdict: as many bytes as were sent, or 64 KiB.
    #[must_use]
    pub(crate) fn add(&mut self, bytes: &[u8], sent_bytes: u64) -> bool {
        self.bytes.extend_from_slice(bytes);
        self.position + self.bytes.len() as u64 >= sent_bytes || self.bytes.len() >= MAX_BYTES
    }

    /// Returns whether the whole stream began with `prefix`: the right bytes of `original` and the wrong ones after them.
    pub(crate) fn is_of_stream_with(&self, prefix: &[u8], original: &impl Original) -> bool {
        let right = (0..self.position).take(prefix.len()).map(|position| original.byte(position));
        let came = right.chain(self.bytes.iter().copied());
        came.take(prefix.len()).eq(prefix.iter().copied())
    }

    /// Tells what happened, if `sent_bytes` of `original` were sent. `other` finds bytes in the streams of other connections.
    pub(crate) fn diagnose(
        &self,
        original: &impl Original,
        sent_bytes: u64,
        other: impl Fn(&[u8]) -> Option<(u64, u64)>,
    ) -> Corruption {
        diagnose(&self.bytes, original, self.position, sent_bytes, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Pattern;

    #[test]
    fn evidence_is_complete_when_all_that_was_sent_has_come_or_enough_to_tell() {
        let mut evidence = Evidence::new(10, ());
        assert!(!evidence.add(&[1; 89], 100));
        assert!(evidence.add(&[1], 100), "as much as was sent");
        let mut evidence = Evidence::new(10, ());
        assert!(!evidence.add(&vec![1; MAX_BYTES - 1], u64::MAX));
        assert!(evidence.add(&[1], u64::MAX), "enough of an endless stream");
        assert_eq!((evidence.position(), evidence.bytes().len()), (10, MAX_BYTES));
    }

    #[test]
    fn a_stream_that_begins_with_something_else_is_told_from_a_stream_that_changes() {
        let pattern = Pattern::new(1, 2);
        let mut first = [0; 2];
        pattern.fill(0, &mut first);
        let mut evidence = Evidence::new(2, ());
        assert!(!evidence.add(b"PROXY", 64));
        let prefix = [&first[..], b"PROX"].concat();
        assert!(evidence.is_of_stream_with(&prefix, &pattern));
        assert!(!evidence.is_of_stream_with(b"PROX", &pattern));
        assert!(!evidence.is_of_stream_with(&[&prefix[..], b"Y and more"].concat(), &pattern));
    }

    #[test]
    fn a_dropped_byte_is_diagnosed_from_the_bytes_that_follow() {
        let pattern = Pattern::new(1, 2);
        let mut bytes = [0; 64];
        pattern.fill(11, &mut bytes);
        let mut evidence = Evidence::new(10, ());
        assert!(evidence.add(&bytes, 64));
        assert_eq!(evidence.diagnose(&pattern, 75, |_| None), Corruption::Dropped { count: 1 });
    }
}
