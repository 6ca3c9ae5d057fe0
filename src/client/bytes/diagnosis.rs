//! The diagnosis of corruption: what happened to bytes that did not come back as they were sent.

use std::fmt;

/// The stream as it was sent. It tells where bytes belong.
pub(crate) trait Original {
    /// Returns the byte at `position`.
    fn byte(&self, position: u64) -> u8;

    /// Returns the position of `bytes` in the stream, if they end before `end`. Bytes that are too few to identify their place are
    /// found only close to `near`.
    fn find(&self, bytes: &[u8], near: u64, end: u64) -> Option<u64>;

    /// Returns whether the stream continues with `bytes` at `position`.
    fn matches(&self, position: u64, bytes: &[u8]) -> bool {
        self.first_difference(position, bytes).is_none()
    }

    /// Returns the index of the first of `bytes` that differs from the stream at `position`.
    fn first_difference(&self, position: u64, bytes: &[u8]) -> Option<usize> {
        (position..).zip(bytes).position(|(position, &byte)| byte != self.byte(position))
    }
}

/// The number of matching bytes in a row that ends a difference.
const IN_STEP_BYTES: usize = 8;

/// The name of the trouble that the far end returns the PROXY header.
pub(crate) const ECHOED_HEADER: &str = "PROXY header echoed";

/// The cause of corruption at the first byte that differs. Positions count from 0 in the stream of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Corruption {
    /// Bytes came back with other values. The bytes after them are in place.
    Changed {
        /// The number of changed bytes.
        count: usize,
        /// The first changed byte as it was sent.
        sent: u8,
        /// The same byte as it came back.
        received: u8,
    },
    /// Bytes did not come back. The bytes after them came in their place.
    Dropped {
        /// The number of missing bytes.
        count: u64,
    },
    /// Bytes that had come back came once more.
    Repeated {
        /// The position of the first repeated byte.
        from: u64,
    },
    /// Bytes came back before bytes that had been sent earlier.
    Reordered {
        /// The position of the first byte that came too early, or `None` if a few bytes changed their order among themselves.
        from: Option<u64>,
    },
    /// Bytes of another connection came.
    Crossed {
        /// The number of the other connection.
        connection: u64,
        /// The position of the bytes in the stream of that connection.
        from: u64,
    },
    /// The PROXY header came back that had been sent before the stream: the far end does not accept the PROXY protocol.
    HeaderEchoed,
    /// Bytes came that no connection had sent. The stream continues after them.
    Inserted {
        /// The number of inserted bytes.
        count: usize,
    },
    /// Bytes came that no connection had sent.
    Foreign {
        /// The first of them, at most 64.
        bytes: Vec<u8>,
    },
}

impl Corruption {
    /// Returns the cause in one word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "changed",
            Self::Dropped { .. } => "dropped",
            Self::Repeated { .. } => "duplicated",
            Self::Reordered { .. } => "reordered",
            Self::Crossed { .. } => "crossed",
            Self::HeaderEchoed => ECHOED_HEADER,
            Self::Inserted { .. } => "inserted",
            Self::Foreign { .. } => "foreign",
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { count, sent, received } => {
                write!(
                    f,
                    "{} came back changed, the first as {received:#04x} instead of {sent:#04x}",
                    Bytes(*count as u64)
                )?;
                match (sent ^ received).count_ones() {
                    1 if *count == 1 => write!(f, " (one bit flipped)"),
                    _ => Ok(()),
                }
            }
            Self::Dropped { count } => write!(f, "{} dropped; the bytes after them came in their place", Bytes(*count)),
            Self::Repeated { from } => write!(f, "duplicated: the bytes from {from} on came twice"),
            Self::Reordered { from: Some(from) } => write!(f, "reordered: the bytes from {from} on came too early"),
            Self::Reordered { from: None } => write!(f, "reordered: the same bytes in another order"),
            Self::Crossed { connection, from } => {
                write!(f, "crossed: the bytes of connection {connection} from {from} on came instead")
            }
            Self::HeaderEchoed => write!(f, "the far end echoed the PROXY header: it does not accept the PROXY protocol"),
            Self::Inserted { count } => write!(f, "{} inserted that no connection had sent", Bytes(*count as u64)),
            Self::Foreign { bytes } => write!(f, "foreign: bytes came that no connection had sent: {}", Quoted(bytes)),
        }
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// Bytes in quotes, escaped where they are not text, cut after 32.
pub(crate) struct Quoted<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 32;
        write!(f, "\"{}\"", self.0[..self.0.len().min(SHOWN)].escape_ascii())?;
        if self.0.len() > SHOWN { write!(f, "…") } else { Ok(()) }
    }
}

/// Tells what happened to `received`, whose first byte differs from `original` at `position`. The stream has been sent up to
/// `sent_end`. `other` finds bytes in the streams of other connections, as the number of the connection and the position.
pub(crate) fn diagnose(
    received: &[u8],
    original: &impl Original,
    position: u64,
    sent_end: u64,
    other: impl Fn(&[u8]) -> Option<(u64, u64)>,
) -> Corruption {
    let expected = Expected { original, position, sent_end };
    let changed = expected.changed(received);
    // A short difference is best described by itself; a long one may be bytes from another place.
    let misplaced = &received[..changed.unwrap_or(received.len())];
    if changed.is_none_or(|count| count >= 16) {
        if let Some(from) = original.find(misplaced, position, sent_end).or_else(|| expected.find_first(misplaced)) {
            return if from < position {
                Corruption::Repeated { from }
            } else if changed.is_some() || expected.comes_later(received) {
                Corruption::Reordered { from: Some(from) }
            } else {
                Corruption::Dropped { count: from - position }
            };
        }
        if let Some((connection, from)) = find_prefix(misplaced, &other) {
            return Corruption::Crossed { connection, from };
        }
    }
    match changed {
        Some(count) if count > 1 && expected.is_permutation(&received[..count]) => Corruption::Reordered { from: None },
        Some(count) => Corruption::Changed { count, sent: original.byte(position), received: received[0] },
        None => match expected.resumes(received) {
            Some(count) => Corruption::Inserted { count },
            None => Corruption::Foreign { bytes: received[..received.len().min(64)].to_vec() },
        },
    }
}

/// Finds `bytes`, or their first 16: the start of a run may come from another place although the rest does not.
fn find_prefix<T>(bytes: &[u8], find: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    find(bytes).or_else(|| find(bytes.get(..16)?))
}

/// The bytes that should have come.
struct Expected<'a, O> {
    original: &'a O,
    position: u64,
    sent_end: u64,
}

impl<O: Original> Expected<'_, O> {
    /// Returns the number of bytes that differ before the stream is in step again, in place, or `None` if it never is.
    fn changed(&self, received: &[u8]) -> Option<usize> {
        let mut run = 0;
        for (index, &byte) in received.iter().enumerate() {
            run = if byte == self.original.byte(self.position + index as u64) { run + 1 } else { 0 };
            if run == IN_STEP_BYTES {
                return Some(index + 1 - IN_STEP_BYTES);
            }
        }
        // Everything has come: matching bytes at the end show as much as can be seen, and so does a single byte.
        let is_all = self.position + received.len() as u64 >= self.sent_end;
        (is_all && (run > 0 || received.len() == 1)).then(|| received.len() - run)
    }

    /// Finds the first 16 bytes alone, for when not all of them belong together.
    fn find_first(&self, received: &[u8]) -> Option<u64> {
        self.original.find(received.get(..16)?, self.position, self.sent_end)
    }

    /// Returns whether the bytes that should come first come later.
    fn comes_later(&self, received: &[u8]) -> bool {
        let length = IN_STEP_BYTES.min((self.sent_end - self.position) as usize);
        received.windows(length).skip(1).any(|window| self.original.matches(self.position, window))
    }

    /// Returns the number of bytes in front of the expected ones.
    fn resumes(&self, received: &[u8]) -> Option<usize> {
        received.windows(IN_STEP_BYTES).position(|window| self.original.matches(self.position, window))
    }

    /// Returns whether the expected bytes have come in another order.
    fn is_permutation(&self, received: &[u8]) -> bool {
        let mut expected: Vec<u8> = (self.position..).take(received.len()).map(|place| self.original.byte(place)).collect();
        let mut received = received.to_vec();
        expected.sort_unstable();
        received.sort_unstable();
        expected == received
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Pattern;

    const SENT: u64 = 512;

    fn stream() -> (Pattern, Vec<u8>) {
        let pattern = Pattern::new(42, 1);
        let mut bytes = vec![0; SENT as usize];
        pattern.fill(0, &mut bytes);
        (pattern, bytes)
    }

    /// Returns the first difference and the diagnosis of a stream that came back as `received`.
    fn verdict(received: &[u8]) -> (usize, Corruption) {
        let pattern = stream().0;
        let first = pattern.first_difference(0, received).expect("something differs");
        let other = |bytes: &[u8]| Pattern::new(42, 2).find(bytes, first as u64, 10_000).map(|from| (2, from));
        (first, diagnose(&received[first..], &pattern, first as u64, SENT, other))
    }

    #[test]
    fn a_flipped_bit_is_named_with_both_values() {
        let mut bytes = stream().1;
        bytes[100] ^= 0x10;
        let (at, corruption) = verdict(&bytes);
        assert_eq!((at, corruption.name()), (100, "changed"));
        assert!(corruption.to_string().contains("one bit flipped"), "{corruption}");
        let mut bytes = stream().1;
        *bytes.last_mut().expect("a byte") ^= 1;
        assert_eq!(verdict(&bytes).1.name(), "changed");
    }

    #[test]
    fn what_is_missing_is_counted() {
        for (at, count) in [(0, 1), (100, 1), (64, 64), (3, 200), (509, 1)] {
            let mut bytes = stream().1;
            bytes.drain(at..at + count);
            assert_eq!(verdict(&bytes), (at, Corruption::Dropped { count: count as u64 }));
        }
    }

    #[test]
    fn what_comes_twice_is_told_from_what_is_new() {
        for (at, count) in [(0, 64), (100, 1), (256, 32)] {
            let mut bytes = stream().1;
            let again = bytes[at..at + count].to_vec();
            bytes.splice(at + count..at + count, again);
            assert_eq!(verdict(&bytes), (at + count, Corruption::Repeated { from: at as u64 }), "{count} bytes at {at}");
        }
    }

    #[test]
    fn another_order_is_told_from_a_loss() {
        let mut bytes = stream().1;
        let (left, right) = bytes.split_at_mut(128);
        left[64..].swap_with_slice(&mut right[..64]);
        assert_eq!(verdict(&bytes), (64, Corruption::Reordered { from: Some(128) }));
        let mut bytes = stream().1;
        bytes.swap(10, 11);
        assert_eq!(verdict(&bytes), (10, Corruption::Reordered { from: None }));
        let mut bytes = stream().1;
        bytes[32..400].rotate_left(16);
        assert_eq!(verdict(&bytes), (32, Corruption::Reordered { from: Some(48) }));
    }

    #[test]
    fn the_bytes_of_another_connection_are_named_with_it() {
        let mut bytes = stream().1;
        Pattern::new(42, 2).fill(64, &mut bytes[128..192]);
        assert_eq!(verdict(&bytes), (128, Corruption::Crossed { connection: 2, from: 64 }));
    }

    #[test]
    fn what_nobody_has_sent_is_shown() {
        let mut bytes = stream().1;
        bytes.splice(64..64, *b"HTTP/1.1 400");
        assert_eq!(verdict(&bytes), (64, Corruption::Inserted { count: 12 }));
        let noise = [0xfe; 100];
        let (at, corruption) = verdict(&noise);
        assert_eq!((at, corruption.name()), (0, "foreign"));
        assert!(corruption.to_string().contains("\\xfe"), "{corruption}");
    }
}
