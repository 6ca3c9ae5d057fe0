//! The bytes of a connection on the wire: a pattern, in lines or frames if the far end expects them.

use super::diagnosis::Original;
use super::pattern::Pattern;
use crate::protocol::Frames;

/// The message boundaries that the far end expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Framing {
    /// None: a stream of bytes.
    #[default]
    Bytes,
    /// Lines, each ended by LF.
    Line,
    /// Frames: a length (4 bytes, big-endian), then that many bytes.
    Frame,
}

impl Framing {
    /// Returns the number of bytes that framing adds to a message.
    #[must_use]
    pub fn overhead(self) -> u64 {
        match self {
            Self::Bytes => 0,
            Self::Line => 1,
            Self::Frame => 4,
        }
    }

    /// Returns the name of the framing: `bytes`, `line` or `frame`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Line => "line",
            Self::Frame => "frame",
        }
    }

    /// Returns `byte` as a message may hold it: in a line, LF becomes VT.
    fn within(self, byte: u8) -> u8 {
        if self == Self::Line && byte == b'\n' { b'\x0b' } else { byte }
    }
}

/// The number of offsets at which a whole word of the pattern is looked for, to identify the position of bytes. A word that holds a
/// length, a line end or a replaced LF does not identify its position.
const TRIED_BYTES: usize = 64;

/// The bytes of one connection. Framed messages have one size, so that the position alone determines each byte.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    pattern: Pattern,
    framing: Framing,
    /// The size of a message on the wire; meaningless for [`Framing::Bytes`].
    message_bytes: u64,
}

impl Wire {
    /// Returns the stream of a connection with messages of `size` bytes, without their framing.
    pub(crate) fn new(pattern: Pattern, framing: Framing, size: u32) -> Self {
        Self { pattern, framing, message_bytes: u64::from(size) + framing.overhead() }
    }

    /// Returns whether messages have a line end or a length.
    #[inline]
    pub(crate) fn is_framed(&self) -> bool {
        self.framing != Framing::Bytes
    }

    /// Returns the first position from `position` on at which a message may end.
    pub(crate) fn message_end(&self, position: u64) -> u64 {
        if self.framing == Framing::Bytes { position } else { position.next_multiple_of(self.message_bytes) }
    }

    #[inline]
    pub(crate) fn fill(&self, position: u64, buffer: &mut [u8]) {
        self.pattern.fill(position, buffer);
        if self.is_framed() {
            self.frame(position, buffer);
        }
    }

    #[inline]
    pub(crate) fn matches(&self, position: u64, bytes: &[u8]) -> bool {
        if self.framing == Framing::Bytes {
            return self.pattern.matches(position, bytes);
        }
        self.matches_framed(position, bytes)
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

    /// Turns the pattern in `buffer` into lines or frames.
    fn frame(&self, position: u64, buffer: &mut [u8]) {
        if self.framing == Framing::Line {
            for byte in &mut *buffer {
                *byte = self.framing.within(*byte);
            }
        }
        // Only the ends of lines and the beginnings of frames differ from the pattern.
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

/// Returns a message with its framing. In a line, LF becomes VT.
pub(crate) fn wrap(framing: Framing, mut message: Vec<u8>) -> Vec<u8> {
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
