//! The pending-write buffer: what the peer was not ready to take.

/// Bytes on their way to a peer, in order. Both ends work in O(1) (amortised), the bytes are in one piece so that one send(2)
/// can offer them all, and an empty outbox holds no memory: it is a null pointer.
///
/// ```
/// use edgecho::stream::Outbox;
///
/// let mut outbox = Outbox::default();
/// outbox.push(b"hello, ");
/// outbox.push(b"world");
/// outbox.consume(3); // the kernel took so many
/// assert_eq!(outbox.pending(), b"lo, world");
/// ```
#[derive(Debug, Default)]
pub struct Outbox(Option<Box<Pending>>);

/// The bytes from `start` on are pending; those before it have gone.
#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    start: usize,
}

impl Outbox {
    /// Whether nothing is pending.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many bytes are pending.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending().len()
    }

    /// The bytes that are pending, the oldest first.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |pending| &pending.bytes[pending.start..])
    }

    /// Puts `bytes` behind all that is pending.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.push_some(bytes);
        }
    }

    #[cold]
    #[inline(never)] // or its allocations would take registers from the path that needs none
    fn push_some(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            None => self.0 = Some(Box::new(Pending { bytes: bytes.to_vec(), start: 0 })),
            Some(pending) => {
                // Taking back the room of what has gone costs a copy of what is left, which is no more than has gone: a byte
                // is moved at most once for each byte that was consumed. Draining the front each time would be quadratic.
                if pending.start * 2 >= pending.bytes.len() {
                    pending.bytes.drain(..pending.start);
                    pending.start = 0;
                }
                pending.bytes.extend_from_slice(bytes);
            }
        }
    }

    /// Drops the first `count` bytes: they have gone. The memory goes with the last of them.
    ///
    /// # Panics
    /// If `count` is more than [`len`](Self::len).
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "{count} bytes consumed of {}", self.len());
        if let Some(pending) = &mut self.0 {
            pending.start += count;
            if pending.start == pending.bytes.len() {
                self.0 = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn an_empty_outbox_holds_no_memory() {
        let mut outbox = Outbox::default();
        assert_eq!(size_of::<Outbox>(), size_of::<usize>());
        outbox.push(&[]);
        assert!(outbox.0.is_none());
        outbox.push(b"abc");
        outbox.consume(3);
        assert!(outbox.0.is_none() && outbox.is_empty());
    }

    #[test]
    fn room_is_bounded_by_what_is_pending_not_by_what_has_passed() {
        let mut outbox = Outbox::default();
        for _ in 0..10_000 {
            outbox.push(&[7; 1_000]);
            if outbox.len() > 3_000 {
                outbox.consume(1_000);
            }
        }
        let capacity = outbox.0.as_ref().map_or(0, |pending| pending.bytes.capacity());
        assert!(capacity <= 16_384, "{capacity} bytes held for {}", outbox.len());
    }

    #[test]
    #[should_panic(expected = "4 bytes consumed of 3")]
    fn consuming_more_than_is_there_is_a_defect() {
        let mut outbox = Outbox::default();
        outbox.push(b"abc");
        outbox.consume(4);
    }

    proptest! {
        #[test]
        fn it_is_a_queue(steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..64), 0_usize..96), 0..64)) {
            let mut outbox = Outbox::default();
            let mut model = VecDeque::new();
            for (bytes, count) in steps {
                outbox.push(&bytes);
                model.extend(bytes);
                let count = count.min(outbox.len());
                outbox.consume(count);
                model.drain(..count);
                prop_assert_eq!(outbox.pending(), model.make_contiguous() as &[u8]);
                prop_assert_eq!(outbox.len(), model.len());
                prop_assert_eq!(outbox.is_empty(), model.is_empty());
            }
        }
    }
}
