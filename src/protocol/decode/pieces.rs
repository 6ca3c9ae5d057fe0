//! The decoder of any format: the format tells where a piece ends, and the decoder keeps the piece that is not whole yet.

use std::borrow::Cow;

use super::{DecodeError, Decoder, append};

/// The least that is appended at once to a piece of unknown length.
const STEP_BYTES: usize = 512;

/// The error of a [`Format`] that breaks its contract.
const IMPOSSIBLE: DecodeError = DecodeError::Malformed { reason: "the format returned an impossible length" };

/// A format: finds the end of the first piece of a stream.
///
/// ```
/// use edgecho::protocol::{DecodeError, Decoder, Extent, Format, Pieces};
///
/// /// Netstrings: `5:hello,`.
/// struct Netstrings;
///
/// impl Format for Netstrings {
///     fn measure(&mut self, bytes: &[u8]) -> Result<Extent, DecodeError> {
///         let malformed = DecodeError::Malformed { reason: "a length in digits, a colon, the bytes and a comma are expected" };
///         let Some(colon) = bytes.iter().take(10).position(|&byte| byte == b':') else {
///             let is_number = bytes.len() < 10 && bytes.iter().all(u8::is_ascii_digit);
///             return if is_number { Ok(Extent::AtLeast(bytes.len() + 1)) } else { Err(malformed) };
///         };
///         let length = str::from_utf8(&bytes[..colon]).ok().and_then(|digits| digits.parse::<usize>().ok());
///         let whole = colon + 1 + length.ok_or(malformed)? + 1;
///         match bytes.get(whole - 1) {
///             None => Ok(Extent::AtLeast(whole)),
///             Some(b',') => Ok(Extent::Whole(whole)),
///             Some(_) => Err(malformed),
///         }
///     }
/// }
///
/// let mut pieces = Pieces::new(Netstrings, 1024);
/// let mut whole = Vec::new();
/// for part in ["5:he", "llo,0:,3", ":"] {
///     pieces.decode(part.as_bytes(), |piece| {
///         whole.push(piece.to_vec());
///         true
///     })?;
/// }
/// assert_eq!((whole, pieces.rest()), (vec![b"5:hello,".to_vec(), b"0:,".to_vec()], &b"3:"[..]));
/// assert_eq!(Pieces::new(Netstrings, 100).decode(b"5000:", |_| true), Err(DecodeError::TooLong { length: 5006 }));
/// # Ok::<(), DecodeError>(())
/// ```
pub trait Format {
    /// Finds the end of the piece that `bytes` begin with. `bytes` is never empty.
    ///
    /// While the answer is [`Extent::AtLeast`], the next call has the same bytes and at least one more. After [`Extent::Whole`], the next
    /// call begins behind that piece. So a format may remember how far it has looked.
    ///
    /// # Errors
    /// A [`DecodeError`], if no piece can begin like that. The stream is then not decoded any further.
    fn measure(&mut self, bytes: &[u8]) -> Result<Extent, DecodeError>;
}

/// The extent of a piece, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The piece is whole, and has this length in bytes: from 1 to the number of bytes that there are.
    Whole(usize),
    /// The piece has at least this length in bytes. A format that knows no better says one more than there are.
    AtLeast(usize),
}

/// Pieces of a [`Format`], of a limited length.
///
/// The memory of an unfinished piece grows as its bytes arrive: never above the limit, nor above twice what has come, and 512 bytes.
#[derive(Debug)]
pub struct Pieces<F> {
    format: F,
    max: usize,
    rest: Vec<u8>,
    /// The least number of bytes of the piece in `rest`.
    needed: usize,
}

impl<F: Format> Pieces<F> {
    /// Returns a decoder of pieces of up to `max` bytes, as they stand on the wire. A longer one is
    /// [`TooLong`](DecodeError::TooLong) as soon as its format can tell, or when `max` bytes have come.
    #[must_use]
    pub fn new(format: F, max: usize) -> Self {
        Self { format, max, rest: Vec::new(), needed: 1 }
    }

    /// Returns the format.
    pub fn format(&mut self) -> &mut F {
        &mut self.format
    }

    fn cut<'a>(&mut self, all: &'a [u8], mut take: impl FnMut(Cow<'a, [u8]>) -> bool) -> Result<usize, DecodeError> {
        let mut input = all;
        loop {
            if self.rest.is_empty() {
                if input.is_empty() {
                    return Ok(all.len());
                }
                // No more than a piece may have: so the answer is the same however the stream is cut.
                match measure(&mut self.format, &input[..self.max.max(1).min(input.len())], self.max)? {
                    Extent::Whole(length) => {
                        let (piece, behind) = input.split_at(length);
                        input = behind;
                        if !take(Cow::Borrowed(piece)) {
                            return Ok(all.len() - input.len());
                        }
                    }
                    Extent::AtLeast(length) => {
                        append(&mut self.rest, input, length)?;
                        self.needed = length;
                        return Ok(all.len());
                    }
                }
                continue;
            }
            // The piece that was begun before takes what it lacks. If that is not known, it takes as much as it has, so that the format
            // looks at each byte twice on average.
            let before = self.rest.len();
            let lacks = (self.needed - before).max(before.max(STEP_BYTES).min(self.max - before));
            let part = &input[..lacks.min(input.len())];
            append(&mut self.rest, part, self.max)?;
            if self.rest.len() < self.needed {
                return Ok(all.len());
            }
            let rest = std::mem::take(&mut self.rest);
            match measure(&mut self.format, &rest, self.max)? {
                Extent::Whole(length) if length < self.needed => return Err(IMPOSSIBLE),
                Extent::Whole(length) => {
                    // What follows the piece is still in the input.
                    input = &input[length - before..];
                    let mut piece = rest;
                    piece.truncate(length);
                    if !take(Cow::Owned(piece)) {
                        return Ok(all.len() - input.len());
                    }
                }
                Extent::AtLeast(length) => {
                    (self.rest, self.needed) = (rest, length);
                    input = &input[part.len()..];
                    if input.is_empty() {
                        return Ok(all.len());
                    }
                }
            }
        }
    }
}

/// Asks the format, and checks the answer.
fn measure(format: &mut impl Format, bytes: &[u8], max: usize) -> Result<Extent, DecodeError> {
    let extent = format.measure(bytes)?;
    let (Extent::Whole(length) | Extent::AtLeast(length)) = extent;
    let is_possible = match extent {
        Extent::Whole(length) => (1..=bytes.len()).contains(&length),
        Extent::AtLeast(length) => length > bytes.len(),
    };
    if !is_possible {
        return Err(IMPOSSIBLE);
    }
    if length > max { Err(DecodeError::TooLong { length: length as u64 }) } else { Ok(extent) }
}

impl<F: Format> Decoder for Pieces<F> {
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

    /// A digit, and as many bytes. Knows the length of a piece at its first byte.
    struct Digits;

    impl Format for Digits {
        fn measure(&mut self, bytes: &[u8]) -> Result<Extent, DecodeError> {
            let digit = char::from(bytes[0]).to_digit(10).ok_or(DecodeError::Malformed { reason: "a digit is expected" })?;
            let length = 1 + digit as usize;
            Ok(if length <= bytes.len() { Extent::Whole(length) } else { Extent::AtLeast(length) })
        }
    }

    /// Text up to a semicolon. Knows the length of a piece at its last byte, and remembers how far it has looked.
    #[derive(Default)]
    struct Statements {
        looked_at: usize,
        looks: usize,
    }

    impl Format for Statements {
        fn measure(&mut self, bytes: &[u8]) -> Result<Extent, DecodeError> {
            assert!(self.looked_at < bytes.len(), "at least one more byte");
            self.looks += 1;
            let end = bytes[self.looked_at..].iter().position(|&byte| byte == b';').map(|at| self.looked_at + at + 1);
            self.looked_at = if end.is_some() { 0 } else { bytes.len() };
            Ok(end.map_or(Extent::AtLeast(bytes.len() + 1), Extent::Whole))
        }
    }

    proptest! {
        #[test]
        fn pieces_of_known_length_are_the_same_however_they_are_cut(stream in "[0-9x]{0,60}", cuts in prop::collection::vec(0_usize..60, 0..12)) {
            let whole = pieces(&mut Pieces::new(Digits, 8), stream.as_bytes(), &[]);
            prop_assert_eq!(pieces(&mut Pieces::new(Digits, 8), stream.as_bytes(), &cuts), whole.clone());
            prop_assert_eq!(one_by_one(&mut Pieces::new(Digits, 8), stream.as_bytes(), &cuts), whole);
        }

        #[test]
        fn pieces_of_unknown_length_are_the_same_however_they_are_cut(stream in "([a-c]{0,9};|[a-c]{600,2500};){0,9}[a-c]{0,9}", cuts in prop::collection::vec(0_usize..9_000, 0..12)) {
            for max in [2_000, 10_000] {
                let whole = pieces(&mut Pieces::new(Statements::default(), max), stream.as_bytes(), &[]);
                let mut decoder = Pieces::new(Statements::default(), max);
                prop_assert_eq!(pieces(&mut decoder, stream.as_bytes(), &cuts), whole.clone());
                prop_assert!(decoder.rest.capacity() <= (2 * decoder.rest.len() + STEP_BYTES).min(max), "{}", decoder.rest.capacity());
                let mut decoder = Pieces::new(Statements::default(), max);
                prop_assert_eq!(one_by_one(&mut decoder, stream.as_bytes(), &cuts), whole);
            }
        }
    }

    #[test]
    fn a_piece_may_have_as_many_bytes_as_allowed_and_no_more() {
        for cut in 0..12 {
            let longest = pieces(&mut Pieces::new(Statements::default(), 10), b"123456789;", &[cut]);
            assert_eq!(longest, (vec![b"123456789;".to_vec()], Ok(())));
            let (found, result) = pieces(&mut Pieces::new(Statements::default(), 10), b"1234567890;", &[cut]);
            assert_eq!((found.len(), result), (0, Err(DecodeError::TooLong { length: 11 })), "cut at {cut}");
        }
        assert_eq!(
            Pieces::new(Digits, 5).decode(b"5", |_| true),
            Err(DecodeError::TooLong { length: 6 }),
            "by its length alone"
        );
        assert_eq!(Pieces::new(Digits, 0).decode(b"0", |_| true), Err(DecodeError::TooLong { length: 1 }));
    }

    #[test]
    fn a_long_piece_is_looked_at_in_ever_larger_steps() {
        let mut decoder = Pieces::new(Statements::default(), 1 << 20);
        decoder.decode(b"a", |_| true).expect("within bounds");
        decoder.decode(&[b'a'; 1 << 19], |_| true).expect("within bounds");
        assert!(decoder.format().looks < 16, "{}", decoder.format().looks);
    }

    #[test]
    fn a_format_that_returns_an_impossible_length_is_an_error() {
        struct Wrong(Vec<Extent>);
        impl Format for Wrong {
            fn measure(&mut self, _bytes: &[u8]) -> Result<Extent, DecodeError> {
                Ok(self.0.remove(0))
            }
        }
        for wrong in [Extent::Whole(0), Extent::Whole(4), Extent::AtLeast(3), Extent::AtLeast(0)] {
            assert_eq!(Pieces::new(Wrong(vec![wrong]), 10).decode(b"abc", |_| true), Err(IMPOSSIBLE), "{wrong:?}");
        }
        let mut decoder = Pieces::new(Wrong(vec![Extent::AtLeast(4), Extent::Whole(2)]), 10);
        assert_eq!(decoder.decode(b"abc", |_| true), Ok(3));
        assert_eq!(decoder.decode(b"d", |_| true), Err(IMPOSSIBLE));
    }
}
