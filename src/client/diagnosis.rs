//! What happened to bytes that did not come back as they were sent.

use std::fmt;

/// What was sent, as far as it can be asked where something belongs.
pub(super) trait Original {
    /// The byte at `position`.
    fn byte(&self, position: u64) -> u8;

    /// The position at which `bytes` stand, if all of them do so in front of `end`; if they are too few to tell, only close to `near`.
    fn find(&self, bytes: &[u8], near: u64, end: u64) -> Option<u64>;

    /// Whether `bytes` are those from `position` on.
    fn matches(&self, position: u64, bytes: &[u8]) -> bool {
        (position..).zip(bytes).all(|(position, &byte)| byte == self.byte(position))
    }
}

/// How many bytes in step again show that a difference is over.
const IN_STEP_BYTES: usize = 8;

/// What happened at the first byte that differs. Positions are counted from 0, in the stream of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Corruption {
    /// Bytes came back with another value, and what follows them is in its place.
    Changed {
        /// How many bytes.
        count: usize,
        /// The value of the first as it was sent.
        sent: u8,
        /// Its value as it came back.
        received: u8,
    },
    /// Bytes did not come back, and what follows them came in their place.
    Dropped {
        /// How many bytes.
        count: u64,
    },
    /// Bytes that had come back came once more.
    Repeated {
        /// The position of the first of them.
        from: u64,
    },
    /// Bytes came back before others that had been sent before them.
    Reordered {
        /// The position of the first byte that came too early; none if the order is another within a few bytes.
        from: Option<u64>,
    },
    /// Bytes that another connection had sent.
    Crossed {
        /// The number of that connection.
        connection: u64,
        /// Their position in its stream.
        from: u64,
    },
    /// Bytes that nobody had sent, behind which the stream goes on as it should.
    Inserted {
        /// How many bytes.
        count: usize,
    },
    /// Bytes that nobody had sent.
    Foreign {
        /// The first of them.
        bytes: Vec<u8>,
    },
}

impl Corruption {
    /// In a word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "changed",
            Self::Dropped { .. } => "dropped",
            Self::Repeated { .. } => "duplicated",
            Self::Reordered { .. } => "reordered",
            Self::Crossed { .. } => "crossed",
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
            Self::Dropped { count } => write!(f, "{} dropped: what follows came in their place", Bytes(*count)),
            Self::Repeated { from } => write!(f, "duplicated: the bytes from {from} on came once more"),
            Self::Reordered { from: Some(from) } => write!(f, "reordered: the bytes from {from} on came first"),
            Self::Reordered { from: None } => write!(f, "reordered: the same bytes in another order"),
            Self::Crossed { connection, from } => {
                write!(f, "crossed: here came the bytes of connection {connection} from {from} on")
            }
            Self::Inserted { count } => write!(f, "{} inserted that nobody had sent", Bytes(*count as u64)),
            Self::Foreign { bytes } => write!(f, "here came bytes that nobody had sent: {}", Quoted(bytes)),
        }
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// Bytes as text, as far as they are, and cut short.
pub(super) struct Quoted<'a>(pub(super) &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 32;
        write!(f, "\"{}\"", self.0[..self.0.len().min(SHOWN)].escape_ascii())?;
        if self.0.len() > SHOWN { write!(f, "…") } else { Ok(()) }
    }
}

/// Says what happened to `received`, of which the first byte is not the one at `position` of `original`. So much of the stream has
/// been sent as stands in front of `sent_end`; `other` finds bytes in the streams of the other connections.
pub(super) fn diagnose(
    received: &[u8],
    original: &impl Original,
    position: u64,
    sent_end: u64,
    other: impl Fn(&[u8]) -> Option<(u64, u64)>,
) -> Corruption {
    let expected = Expected { original, position, sent_end };
    let changed = expected.changed(received);
    // Few bytes that differ are told best by themselves; many may be whole ones from elsewhere.
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

/// The first bytes of a run may be from elsewhere though those behind them are not.
fn find_prefix<T>(bytes: &[u8], find: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    find(bytes).or_else(|| find(bytes.get(..16)?))
}

/// What should have come.
struct Expected<'a, O> {
    original: &'a O,
    position: u64,
    sent_end: u64,
}

impl<O: Original> Expected<'_, O> {
    /// How many bytes differ before the stream is in step again, in place; none if it does not get there.
    fn changed(&self, received: &[u8]) -> Option<usize> {
        let mut run = 0;
        for (index, &byte) in received.iter().enumerate() {
            run = if byte == self.original.byte(self.position + index as u64) { run + 1 } else { 0 };
            if run == IN_STEP_BYTES {
                return Some(index + 1 - IN_STEP_BYTES);
            }
        }
        // All is there: what is equal at the end shows as much as there is to be seen, and so does a single byte.
        let is_all = self.position + received.len() as u64 >= self.sent_end;
        (is_all && (run > 0 || received.len() == 1)).then(|| received.len() - run)
    }

    /// Where the first bytes belong, if not all of them belong together.
    fn find_first(&self, received: &[u8]) -> Option<u64> {
        self.original.find(received.get(..16)?, self.position, self.sent_end)
    }

    /// Whether what should stand first comes further behind.
    fn comes_later(&self, received: &[u8]) -> bool {
        let length = IN_STEP_BYTES.min((self.sent_end - self.position) as usize);
        received.windows(length).skip(1).any(|window| self.original.matches(self.position, window))
    }

    /// After how many bytes comes what should stand first.
    fn resumes(&self, received: &[u8]) -> Option<usize> {
        received.windows(IN_STEP_BYTES).position(|window| self.original.matches(self.position, window))
    }

    /// Whether the same bytes stand here as there should, in another order.
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

    /// What is said about a stream that came back as `received`.
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
