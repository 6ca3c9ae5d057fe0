//! The decoder of frames.

use std::borrow::Cow;

use super::{DecodeError, Decoder, append};

/// Length in bytes of the number in front of a frame.
const LENGTH_BYTES: usize = 4;

/// Frames: a length, as an unsigned number of 4 bytes with the most significant byte first, and as many bytes. The length may be 0.
///
/// ```
/// use edgecho::protocol::{Decoder, Frames};
///
/// let stream = [Frames::encode(b"one"), Frames::encode(b"")].concat();
/// assert_eq!(stream, [0, 0, 0, 3, b'o', b'n', b'e', 0, 0, 0, 0]);
/// let mut payloads = Vec::new();
/// Frames::new(100).decode(&stream, |frame| {
///     payloads.push(Frames::payload(frame).to_vec());
///     true
/// })?;
/// assert_eq!(payloads, [&b"one"[..], b""]);
/// # Ok::<(), edgecho::protocol::DecodeError>(())
/// ```
#[derive(Debug)]
pub struct Frames {
    max: usize,
    rest: Vec<u8>,
}

impl Frames {
    /// Returns a decoder of frames of up to `max` bytes, without their lengths.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, rest: Vec::new() }
    }

    /// Returns the frame of a payload.
    ///
    /// # Panics
    /// If the payload has 2^32 bytes or more.
    #[must_use]
    pub fn encode(payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a payload of less than 2^32 bytes");
        let mut frame = Vec::with_capacity(LENGTH_BYTES + payload.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    /// Returns the payload of a whole frame.
    #[must_use]
    pub fn payload(frame: &[u8]) -> &[u8] {
        frame.get(LENGTH_BYTES..).unwrap_or_default()
    }

    /// Returns the length of the frame that `bytes` begin with, including the number in front; none if there are too few bytes to tell.
    fn whole(&self, bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
        let Some((length, _)) = bytes.split_first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        if length as usize > self.max {
            Err(DecodeError::TooLong { length: length.into() })
        } else {
            Ok(Some(LENGTH_BYTES + length as usize))
        }
    }

    fn cut<'a>(&mut self, all: &'a [u8], mut take: impl FnMut(Cow<'a, [u8]>) -> bool) -> Result<usize, DecodeError> {
        let mut input = all;
        // First comes the frame that was begun before. It takes no more than the bytes that it lacks.
        while !self.rest.is_empty() {
            let length = self.whole(&self.rest)?.unwrap_or(LENGTH_BYTES);
            let missing = length - self.rest.len();
            if missing == 0 {
                if !take(Cow::Owned(std::mem::take(&mut self.rest))) {
                    return Ok(all.len() - input.len());
                }
                break;
            }
            if input.is_empty() {
                return Ok(all.len());
            }
            let (part, behind) = input.split_at(missing.min(input.len()));
            append(&mut self.rest, part, length)?;
            input = behind;
        }
        while let Some(length) = self.whole(input)? {
            let Some((frame, behind)) = input.split_at_checked(length) else { break };
            input = behind;
            if !take(Cow::Borrowed(frame)) {
                return Ok(all.len() - input.len());
            }
        }
        if !input.is_empty() {
            let length = self.whole(input)?.unwrap_or(LENGTH_BYTES);
            append(&mut self.rest, input, length)?;
        }
        Ok(all.len())
    }
}

impl Decoder for Frames {
    fn decode_pieces<'a>(&mut self, input: &'a [u8], take: impl FnMut(Cow<'a, [u8]>) -> bool) -> Result<usize, DecodeError> {
        self.cut(input, take).inspect_err(|_| self.rest = Vec::new())
    }

    fn rest(&self) -> &[u8] {
        &self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{one_by_one, pieces};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_are_the_same_however_they_are_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20), kept in 0_usize..20,
            cuts in prop::collection::vec(0_usize..400, 0..40),
        ) {
            let whole: Vec<Vec<u8>> = payloads.iter().map(|payload| Frames::encode(payload)).collect();
            let last = Frames::encode(&[7; 16])[..kept].to_vec();
            let stream = [whole.concat(), last.clone()].concat();
            prop_assert_eq!(one_by_one(&mut Frames::new(40), &stream, &cuts), (whole.clone(), Ok(())));
            let mut decoder = Frames::new(40);
            prop_assert_eq!(pieces(&mut decoder, &stream, &cuts), (whole, Ok(())));
            prop_assert_eq!(decoder.rest(), &last[..]);
            prop_assert!(decoder.rest.capacity() <= LENGTH_BYTES + 40, "{}", decoder.rest.capacity());
        }

        #[test]
        fn whatever_comes_is_decoded_or_too_long(stream in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(0_usize..200, 0..8)) {
            let whole = pieces(&mut Frames::new(9), &stream, &[]);
            prop_assert_eq!(pieces(&mut Frames::new(9), &stream, &cuts), whole);
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_known_by_its_length_alone() {
        assert_eq!(Frames::new(4).decode(&5_u32.to_be_bytes(), |_| true), Err(DecodeError::TooLong { length: 5 }));
        assert_eq!(
            Frames::new(4).decode(&u32::MAX.to_be_bytes(), |_| true),
            Err(DecodeError::TooLong { length: u32::MAX.into() })
        );
        let mut decoder = Frames::new(1 << 20);
        let frame = Frames::encode(&vec![1; 1 << 20]);
        for part in frame.chunks(1_000) {
            decoder.decode(part, |whole| whole == frame).expect("within bounds");
            assert!(decoder.rest.capacity() <= frame.len(), "never more than the frame");
            assert!(decoder.rest.capacity() <= 2 * decoder.rest.len().max(1_000), "nor than twice what has come");
        }
        assert!(decoder.rest().is_empty());
    }

    #[test]
    fn a_piece_that_was_begun_before_is_given_with_its_memory() {
        let mut decoder = Frames::new(1 << 20);
        let frame = Frames::encode(&vec![1; 1 << 20]);
        let (first, last) = frame.split_at(frame.len() - 1);
        decoder.decode(first, |_| unreachable!("it is not whole")).expect("within bounds");
        // Room for the last byte: growing may move the memory, as it always does under AddressSanitizer.
        decoder.rest.reserve(1);
        let held = decoder.rest.as_ptr();
        let mut given = None;
        decoder
            .decode_pieces(last, |piece| matches!(piece, Cow::Owned(piece) if given.replace(piece.as_ptr()).is_none()))
            .expect("it fits");
        assert_eq!(given, Some(held), "not copied");
    }
}
