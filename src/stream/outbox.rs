//! A pending-write buffer: bytes that the socket had no room for.

use std::io;

/// Maximum growth of the buffer in bytes. Below it, the capacity doubles. Above it, the capacity grows by this much, so that the unused room
/// of a large outbox stays small.
///
/// The C library grows an allocation of this size by moving its pages (mremap(2)), not its bytes. 64 MiB pushed in pieces of 1 KiB take the
/// same time as with doubling: 0.6 µs per KiB, most of it page faults.
const LARGEST_GROWTH_BYTES: usize = 256 * 1024;

/// A queue of bytes to be sent to a peer.
///
/// The bytes are contiguous, so that one send(2) can offer all of them. An empty outbox holds no memory; it is a null pointer.
///
/// `consume` takes O(1). `push` takes amortised O(n) for n bytes, as long as realloc(3) moves large allocations without copying them.
///
/// ```
/// use edgecho::stream::Outbox;
///
/// let mut outbox = Outbox::default();
/// outbox.push(b"hello, ");
/// outbox.push(b"world");
/// outbox.consume(3); // the kernel has taken 3 bytes
/// assert_eq!(outbox.pending(), b"lo, world");
/// ```
#[derive(Debug, Default)]
pub struct Outbox(Option<Box<Pending>>);

/// A buffer whose bytes from `start` on are pending. The bytes before `start` have been sent.
#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    start: usize,
}

impl Outbox {
    /// Returns whether no bytes are pending.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the number of pending bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending().len()
    }

    /// Returns the pending bytes, oldest first.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |pending| &pending.bytes[pending.start..])
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// If the allocation fails. [`try_push`](Self::try_push) returns an error instead.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.try_push(bytes).expect("memory for pending bytes");
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`OutOfMemory`](io::ErrorKind::OutOfMemory): the allocation failed, and the outbox is unchanged.
    #[inline]
    pub fn try_push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() { Ok(()) } else { self.push_some(bytes) }
    }

    /// Appends `bytes[start..]`. An empty outbox keeps the vector instead of copying it.
    ///
    /// # Errors
    /// [`OutOfMemory`](io::ErrorKind::OutOfMemory): the allocation failed, and the outbox is unchanged.
    ///
    /// # Panics
    /// If `start` is greater than `bytes.len()`.
    #[cold]
    #[inline(never)]
    pub fn try_push_owned(&mut self, mut bytes: Vec<u8>, mut start: usize) -> io::Result<()> {
        if !self.is_empty() || start == bytes.len() {
            return self.try_push(&bytes[start..]);
        }
        // Sent bytes may use at most half of the room. Moving the rest costs less than sending the first half did.
        if start > bytes.len() / 2 {
            bytes.drain(..start);
            bytes.shrink_to_fit();
            start = 0;
        }
        self.0 = Some(Box::new(Pending { bytes, start }));
        Ok(())
    }

    #[cold]
    #[inline(never)] // inlined, the allocations would take registers from the path that needs none
    fn push_some(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(pending) = &mut self.0 else {
            let mut copy = Vec::new();
            copy.try_reserve_exact(bytes.len())?;
            copy.extend_from_slice(bytes);
            self.0 = Some(Box::new(Pending { bytes: copy, start: 0 }));
            return Ok(());
        };
        // Reclaiming the room of sent bytes moves the pending ones, which are no more than the sent ones. So a byte moves at most once for
        // each byte consumed. Draining the front at every push would take quadratic time.
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

    /// Removes the first `count` bytes after they were sent. Frees the memory with the last pending byte.
    ///
    /// # Panics
    /// If `count` is greater than [`len`](Self::len).
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
    fn capacity_is_bounded_by_the_pending_bytes_not_by_the_bytes_sent() {
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
        outbox.push(b"the end");
        let capacity = outbox.0.as_ref().map_or(0, |pending| pending.bytes.capacity());
        assert!(capacity <= (1 << 20) + LARGEST_GROWTH_BYTES, "{capacity}");
        outbox.consume((1 << 20) - 3);
        assert_eq!(outbox.pending(), b"the end");

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
    fn consuming_more_than_is_pending_panics() {
        let mut outbox = Outbox::default();
        outbox.push(b"abc");
        outbox.consume(4);
    }

    proptest! {
        #[test]
        fn an_outbox_is_a_queue(steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..64), 0_usize..96), 0..64)) {
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
