//! The pending-write buffer: what the peer was not ready to take.

use std::io;

/// Room grows by doubling, and by no more than this many bytes at a time. A push behind a large piece then reserves little.
const LARGEST_GROWTH_BYTES: usize = 256 * 1024;

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
    ///
    /// # Panics
    /// If the memory cannot be had; [`try_push`](Self::try_push) returns an error instead.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.try_push(bytes).expect("memory for pending bytes");
    }

    /// Puts `bytes` behind all that is pending.
    ///
    /// # Errors
    /// [`OutOfMemory`](io::ErrorKind::OutOfMemory): nothing has changed.
    #[inline]
    pub fn try_push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() { Ok(()) } else { self.push_some(bytes) }
    }

    /// Puts what is in `bytes` from `start` on behind all that is pending. If nothing is, the vector is kept, and not copied.
    ///
    /// # Errors
    /// [`OutOfMemory`](io::ErrorKind::OutOfMemory): nothing has changed.
    ///
    /// # Panics
    /// If `start` is beyond the end of `bytes`.
    #[cold]
    #[inline(never)]
    pub fn try_push_owned(&mut self, mut bytes: Vec<u8>, mut start: usize) -> io::Result<()> {
        if !self.is_empty() || start == bytes.len() {
            return self.try_push(&bytes[start..]);
        }
        // What has gone takes no more room than what is left, and the move costs less than the send has.
        if start > bytes.len() / 2 {
            bytes.drain(..start);
            bytes.shrink_to_fit();
            start = 0;
        }
        self.0 = Some(Box::new(Pending { bytes, start }));
        Ok(())
    }

    #[cold]
    #[inline(never)] // or its allocations would take registers from the path that needs none
    fn push_some(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(pending) = &mut self.0 else {
            let mut copy = Vec::new();
            copy.try_reserve_exact(bytes.len())?;
            copy.extend_from_slice(bytes);
            self.0 = Some(Box::new(Pending { bytes: copy, start: 0 }));
            return Ok(());
        };
        // Taking back the room of what has gone costs a copy of what is left, which is no more than has gone: a byte
        // is moved at most once for each byte that was consumed. Draining the front each time would be quadratic.
        if pending.start * 2 >= pending.bytes.len() {
            pending.bytes.drain(..pending.start);
            pending.start = 0;
        }
        if bytes.len() > pending.bytes.capacity() - pending.bytes.len() {
            let growth = pending.bytes.len().min(LARGEST_GROWTH_BYTES);
            pending.bytes.try_reserve_exact(bytes.len().max(growth))?;
        }
        pending.bytes.extend_from_slice(bytes);
        Ok(())
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
    fn an_owned_piece_is_kept_and_not_copied() {
        let mut outbox = Outbox::default();
        let piece = vec![7; 1 << 20];
        let at = piece.as_ptr();
        outbox.try_push_owned(piece, 3).expect("memory");
        assert_eq!((outbox.len(), outbox.pending().as_ptr()), ((1 << 20) - 3, at.wrapping_add(3)));
        outbox.push(b"behind it");
        let capacity = outbox.0.as_ref().map_or(0, |pending| pending.bytes.capacity());
        assert!(capacity <= (1 << 20) + LARGEST_GROWTH_BYTES, "{capacity}");
        outbox.consume((1 << 20) - 3);
        assert_eq!(outbox.pending(), b"behind it");

        let mut outbox = Outbox::default();
        outbox.try_push_owned(vec![7; 1 << 20], (1 << 20) - 5).expect("memory");
        assert_eq!(outbox.pending(), [7; 5]);
        let capacity = outbox.0.as_ref().map_or(0, |pending| pending.bytes.capacity());
        assert!(capacity < 1 << 10, "{capacity} bytes held for 5");
        outbox.try_push_owned(Vec::new(), 0).expect("nothing");
        assert_eq!(outbox.len(), 5);
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
