//! A pattern of bytes that identify their position: `flood` sends it and expects it back.

use super::diagnosis::Original;

/// An odd number close to 2^64 divided by the golden ratio. Its multiples are spread evenly (Knuth, volume 3, 6.4).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// The inverse of [`STEP`] modulo 2^64.
const STEP_INVERSE: u64 = 0xf1de_83e1_9937_733d;
const _: () = assert!(STEP.wrapping_mul(STEP_INVERSE) == 1);

const WORD: usize = size_of::<u64>();

/// The number of bytes that identify their position for certain: a whole aligned word, and a few more to confirm it.
const CERTAIN_BYTES: usize = 16;

/// The distance within which bytes are searched that are too few to identify their position.
const NEARBY_BYTES: u64 = 4096;

/// The byte stream of one connection: words of 8 bytes, no two of them the same. Any part of it can be made without the bytes
/// before it, and any 16 bytes of it identify their position. A shift, a repeat or a mix-up with another connection is therefore
/// not only detected but named.
///
/// Each word takes an addition, a shift and an exclusive or, which compilers turn into vector instructions.
///
/// ```
/// use edgecho::client::Pattern;
///
/// let pattern = Pattern::new(1, 42);
/// let mut part = [0; 16];
/// pattern.fill(1_000, &mut part);
/// assert!(pattern.matches(1_000, &part) && !pattern.matches(1_001, &part));
/// assert_eq!(pattern.find_word(&part, 2_000), Some(1_000));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    start: u64,
}

impl Pattern {
    /// Returns the stream of a connection. Each number and each seed give another stream.
    #[must_use]
    pub fn new(seed: u64, connection: u64) -> Self {
        Self { start: mix(seed ^ mix(connection.wrapping_add(STEP))) }
    }

    /// Fills `buffer` with the bytes of the stream from `position` on.
    #[inline]
    pub fn fill(&self, position: u64, buffer: &mut [u8]) {
        let (head, rest) = buffer.split_at_mut(to_next_word(position).min(buffer.len()));
        head.copy_from_slice(&self.word(position).to_le_bytes()[WORD - to_next_word(position)..][..head.len()]);
        let mut sum = self.sum(position + head.len() as u64);
        let mut words = rest.chunks_exact_mut(WORD);
        for word in &mut words {
            word.copy_from_slice(&scramble(sum).to_le_bytes());
            sum = sum.wrapping_add(STEP);
        }
        let tail = words.into_remainder();
        tail.copy_from_slice(&scramble(sum).to_le_bytes()[..tail.len()]);
    }

    /// Returns whether the stream continues with `bytes` at `position`.
    #[inline]
    #[must_use]
    pub fn matches(&self, position: u64, bytes: &[u8]) -> bool {
        let (head, rest) = bytes.split_at(to_next_word(position).min(bytes.len()));
        let expected = self.word(position).to_le_bytes();
        let mut is_same = head == &expected[WORD - to_next_word(position)..][..head.len()];
        let mut sum = self.sum(position + head.len() as u64);
        let (words, tail) = rest.as_chunks::<WORD>();
        // Collects the differences of a block without an early exit, so that several words are compared at a time.
        for block in words.chunks(64) {
            let mut difference = 0;
            for word in block {
                difference |= u64::from_le_bytes(*word) ^ scramble(sum);
                sum = sum.wrapping_add(STEP);
            }
            is_same &= difference == 0;
        }
        is_same && tail == &scramble(sum).to_le_bytes()[..tail.len()]
    }

    /// Returns the index of the first of `bytes` that differs from the stream at `position`.
    #[must_use]
    pub fn first_difference(&self, position: u64, bytes: &[u8]) -> Option<usize> {
        Original::first_difference(self, position, bytes)
    }

    /// Returns the position of `bytes` in the stream, if they end before `end` and hold a whole aligned word, as any 15 bytes do.
    #[must_use]
    pub fn find_word(&self, bytes: &[u8], end: u64) -> Option<u64> {
        let last = end.checked_sub(bytes.len() as u64)?;
        let at_alignment = |skipped: usize| {
            let word = u64::from_le_bytes(bytes.get(skipped..skipped + WORD)?.try_into().ok()?);
            let index = unscramble(word).wrapping_sub(self.start).wrapping_mul(STEP_INVERSE);
            let position = index.checked_mul(WORD as u64)?.checked_sub(skipped as u64)?;
            (position <= last && self.matches(position, bytes)).then_some(position)
        };
        (0..WORD).find_map(at_alignment)
    }

    /// Returns the word that holds the byte at `position`.
    #[inline]
    fn word(&self, position: u64) -> u64 {
        scramble(self.sum(position))
    }

    #[inline]
    fn sum(&self, position: u64) -> u64 {
        self.start.wrapping_add((position / WORD as u64).wrapping_mul(STEP))
    }
}

impl Original for Pattern {
    fn byte(&self, position: u64) -> u8 {
        self.word(position).to_le_bytes()[position as usize % WORD]
    }

    /// Searches for fewer than 16 bytes close to `near` only, as they may not identify their position. A single byte is not searched.
    fn find(&self, bytes: &[u8], near: u64, end: u64) -> Option<u64> {
        let found = self.find_word(bytes, end);
        if found.is_some() || bytes.len() >= CERTAIN_BYTES || bytes.len() < 2 {
            return found;
        }
        let last = end.checked_sub(bytes.len() as u64)?;
        // The closest place first, a later one before an earlier one: a loss is more common than a repeat.
        (1..=NEARBY_BYTES).find_map(|distance| {
            let candidates = [near.checked_add(distance), near.checked_sub(distance)];
            candidates.into_iter().flatten().find(|&position| position <= last && self.matches(position, bytes))
        })
    }

    fn matches(&self, position: u64, bytes: &[u8]) -> bool {
        Self::matches(self, position, bytes)
    }
}

/// Returns the number of bytes from `position` to the next word; 0 if a word begins there.
#[inline]
fn to_next_word(position: u64) -> usize {
    position.wrapping_neg() as usize % WORD
}

/// Mixes the upper bits, which change most from word to word, into the lower ones. [`unscramble`] undoes it.
#[inline]
const fn scramble(sum: u64) -> u64 {
    sum ^ (sum >> 29)
}

const fn unscramble(word: u64) -> u64 {
    word ^ (word >> 29) ^ (word >> 58)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
const fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(pattern: Pattern, position: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![0; length];
        pattern.fill(position, &mut buffer);
        buffer
    }

    proptest! {
        #[test]
        fn a_part_is_the_same_however_it_is_made(seed: u64, connection in 0_u64..1 << 24, position in 0_u64..1 << 40, length in 0_usize..1_200) {
            let pattern = Pattern::new(seed, connection);
            let whole = bytes(pattern, position, length);
            for (place, &byte) in (position..).zip(&whole) {
                prop_assert_eq!(byte, pattern.byte(place));
            }
            prop_assert!(pattern.matches(position, &whole));
            prop_assert_eq!(pattern.first_difference(position, &whole), None);
        }

        #[test]
        fn a_changed_byte_is_seen_wherever_it_is(position in 0_u64..10_000, length in 1_usize..1_200, at: prop::sample::Index, bit in 0_u32..8) {
            let pattern = Pattern::new(1, 2);
            let mut part = bytes(pattern, position, length);
            let at = at.index(length);
            part[at] ^= 1 << bit;
            prop_assert!(!pattern.matches(position, &part));
            prop_assert_eq!(pattern.first_difference(position, &part), Some(at));
        }

        #[test]
        fn sixteen_bytes_tell_where_they_are_from(seed: u64, position in 0_u64..1 << 40, length in CERTAIN_BYTES..200) {
            let pattern = Pattern::new(seed, 7);
            let part = bytes(pattern, position, length);
            prop_assert_eq!(pattern.find(&part, 0, u64::MAX), Some(position));
            prop_assert_eq!(pattern.find(&part, 0, position + length as u64 - 1), None, "not yet sent");
            prop_assert_eq!(Pattern::new(seed, 8).find(&part, 0, 1 << 41), None, "another connection's");
        }

        #[test]
        fn no_shift_passes(position in 0_u64..5_000, shift in 1_u64..5_000, length in 8_usize..100) {
            let pattern = Pattern::new(3, 4);
            prop_assert!(!pattern.matches(position, &bytes(pattern, position + shift, length)));
        }
    }

    #[test]
    fn a_few_bytes_are_found_nearby() {
        let pattern = Pattern::new(5, 6);
        assert_eq!(pattern.find(&bytes(pattern, 1_003, 4), 1_002, 2_000), Some(1_003));
        assert_eq!(pattern.find(&bytes(pattern, 990, 4), 1_000, 1_010), Some(990));
        assert_eq!(pattern.find(&bytes(pattern, 990, 1), 1_000, 1_010), None);
    }
}
