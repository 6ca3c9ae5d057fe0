//! The bytes of a connection as they stand on the wire: a pattern, cut into lines or frames where the far end wants that.

use super::Pattern;
use super::diagnosis::Original;
use crate::protocol::Frames;

/// What the far end takes as one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// Nothing in particular: bytes.
    #[default]
    Bytes,
    /// A line, which ends with LF.
    Line,
    /// A frame: its length, in 4 bytes with the most significant first, and as many bytes.
    Frame,
}

impl Framing {
    /// How many bytes a message has on the wire beside its own.
    #[must_use]
    pub fn overhead(self) -> u64 {
        match self {
            Self::Bytes => 0,
            Self::Line => 1,
            Self::Frame => 4,
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Line => "line",
            Self::Frame => "frame",
        }
    }

    /// A byte of a message, such that it is no line end.
    pub(super) fn within(self, byte: u8) -> u8 {
        if self == Self::Line && byte == b'\n' { b'\x0b' } else { byte }
    }
}

/// A word of the pattern tells where a run is from. So many places are tried for one: where a length, a line end or a byte that would
/// have been one stands within a word, it does not tell.
const TRIED_BYTES: usize = 64;

/// The bytes of one connection. Messages are of one size, so that each byte is known from its position alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire {
    pattern: Pattern,
    framing: Framing,
    /// Of a message, on the wire; of no meaning for [`Framing::Bytes`].
    message_bytes: u64,
}

impl Wire {
    /// A connection with messages of `size` bytes, each with its framing beside them.
    pub(super) fn new(pattern: Pattern, framing: Framing, size: u32) -> Self {
        Self { pattern, framing, message_bytes: u64::from(size) + framing.overhead() }
    }

    /// Whether a message has anything around its bytes.
    #[inline]
    pub(super) fn is_framed(&self) -> bool {
        self.framing != Framing::Bytes
    }

    /// The first position from `position` on at which a message may end.
    pub(super) fn message_end(&self, position: u64) -> u64 {
        if self.framing == Framing::Bytes { position } else { position.next_multiple_of(self.message_bytes) }
    }

    #[inline]
    pub(super) fn fill(&self, position: u64, buffer: &mut [u8]) {
        self.pattern.fill(position, buffer);
        if self.is_framed() {
            self.frame(position, buffer);
        }
    }

    #[inline]
    pub(super) fn matches(&self, position: u64, bytes: &[u8]) -> bool {
        if self.framing == Framing::Bytes {
            return self.pattern.matches(position, bytes);
        }
        self.matches_framed(position, bytes)
    }

    /// The index of the first of `bytes` that is not what stands from `position` on.
    pub(super) fn first_difference(&self, position: u64, bytes: &[u8]) -> Option<usize> {
        (position..).zip(bytes).position(|(position, &byte)| byte != self.byte(position))
    }

    fn matches_framed(&self, mut position: u64, bytes: &[u8]) -> bool {
        let mut expected = [0; 1024];
        bytes.chunks(expected.len()).all(|chunk| {
            let expected = &mut expected[..chunk.len()];
            self.fill(position, expected);
            position += chunk.len() as u64;
            expected == chunk
        })
    }

    /// Makes what the pattern has put into `buffer` into lines or frames.
    fn frame(&self, position: u64, buffer: &mut [u8]) {
        if self.framing == Framing::Line {
            for byte in &mut *buffer {
                *byte = self.framing.within(*byte);
            }
        }
        // Only the ends or the beginnings of messages are other than the pattern.
        let end = position + buffer.len() as u64;
        let mut start = position - position % self.message_bytes;
        while start < end {
            let (from, bytes): (u64, &[u8]) = match self.framing {
                Framing::Bytes => return,
                Framing::Line => (start + self.message_bytes - 1, b"\n"),
                Framing::Frame => (start, &self.length()),
            };
            for (place, &byte) in (from..).zip(bytes) {
                if (position..end).contains(&place) {
                    buffer[(place - position) as usize] = byte;
                }
            }
            start += self.message_bytes;
        }
    }

    fn length(&self) -> [u8; 4] {
        u32::try_from(self.message_bytes - Framing::Frame.overhead()).unwrap_or(u32::MAX).to_be_bytes()
    }
}

impl Original for Wire {
    fn byte(&self, position: u64) -> u8 {
        let mut byte = [0];
        self.fill(position, &mut byte);
        byte[0]
    }

    fn matches(&self, position: u64, bytes: &[u8]) -> bool {
        Self::matches(self, position, bytes)
    }

    fn find(&self, bytes: &[u8], near: u64, end: u64) -> Option<u64> {
        if self.framing == Framing::Bytes {
            return self.pattern.find(bytes, near, end);
        }
        let last = end.checked_sub(bytes.len() as u64)?;
        let fits = |position: &u64| *position <= last && self.matches(*position, bytes);
        let at = |skipped: usize| {
            let found = self.pattern.find_word(bytes.get(skipped..skipped + size_of::<u64>())?, u64::MAX)?;
            found.checked_sub(skipped as u64).filter(fits)
        };
        let nearby = || {
            let around = (1..=4 * self.message_bytes).flat_map(|away| [near.checked_add(away), near.checked_sub(away)]);
            around.flatten().find(fits)
        };
        (0..TRIED_BYTES).find_map(at).or_else(|| if bytes.len() > 1 { nearby() } else { None })
    }
}

/// A message of one's own, as it stands on the wire.
pub(super) fn wrap(framing: Framing, mut message: Vec<u8>) -> Vec<u8> {
    match framing {
        Framing::Bytes => message,
        Framing::Frame => Frames::encode(&message),
        Framing::Line => {
            for byte in &mut message {
                *byte = framing.within(*byte);
            }
            message.push(b'\n');
            message
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Decoder, Lines};
    use proptest::prelude::*;

    fn bytes(wire: &Wire, position: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![0; length];
        wire.fill(position, &mut buffer);
        buffer
    }

    proptest! {
        #[test]
        fn a_part_is_the_same_however_it_is_made(
            size in 1_u32..70, position in 0_u64..10_000, length in 0_usize..3_000, is_line in prop::bool::ANY,
        ) {
            let framing = if is_line { Framing::Line } else { Framing::Frame };
            let wire = Wire::new(Pattern::new(1, 2), framing, size);
            let part = bytes(&wire, position, length);
            prop_assert_eq!(&bytes(&wire, 0, position as usize + length)[position as usize..], &part[..]);
            prop_assert!(wire.matches(position, &part));
            prop_assert_eq!(wire.first_difference(position, &part), None);
            if length >= 80 && size >= 32 {
                prop_assert_eq!(wire.find(&part, position + 999, u64::MAX), Some(position));
            }
        }
    }

    #[test]
    fn what_stands_on_the_wire_is_lines_or_frames() {
        let count = |decoder: &mut dyn FnMut(&[u8]) -> usize, framing| {
            let wire = Wire::new(Pattern::new(3, 4), framing, 100);
            decoder(&bytes(&wire, 0, (100 + framing.overhead() as usize) * 50))
        };
        let mut pieces = 0;
        let mut take = |piece: &[u8]| {
            pieces += usize::from(piece.len() > 100);
            true
        };
        assert_eq!(count(&mut |stream| Lines::new(100).decode(stream, &mut take).map_or(0, |_| 1), Framing::Line), 1);
        assert_eq!(count(&mut |stream| Frames::new(100).decode(stream, &mut take).map_or(0, |_| 1), Framing::Frame), 1);
        assert_eq!(pieces, 100);
    }
}
