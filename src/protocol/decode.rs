//! Cutting a stream into lines or frames, wherever the kernel cut it before. On both ends of the wire: neither knows of sockets.

use std::borrow::Cow;

use super::Reply;

/// What a decoder does.
///
/// ```
/// use edgecho::protocol::{Decoder, Lines};
///
/// let mut lines = Lines::new(100);
/// let mut whole = Vec::new();
/// for part in ["GET a\nGE", "T b\nGET"] {
///     lines.decode(part.as_bytes(), |line| {
///         whole.push(line.to_vec());
///         true
///     })?;
/// }
/// assert_eq!(whole, [b"GET a\n", b"GET b\n"]);
/// assert_eq!(lines.rest(), b"GET");
/// # Ok::<(), edgecho::protocol::DecodeError>(())
/// ```
pub trait Decoder {
    /// Takes all of `input`, and gives `take` each piece that is whole, as it stands on the wire: with its line end, or its length in
    /// front; `false` from it says that this was the last, and what is left of the input is dropped. What is whole within `input`
    /// is not copied.
    ///
    /// # Errors
    /// A [`DecodeError`], for a piece that is longer than it may be, or for which there is no memory. Those before it have been given;
    /// nothing is to follow. The memory of the piece is returned.
    fn decode(&mut self, input: &[u8], mut take: impl FnMut(&[u8]) -> bool) -> Result<(), DecodeError> {
        self.decode_pieces(input, |piece| take(&piece))
    }

    /// Decodes as [`decode`](Self::decode) does. A piece that is whole within `input` is borrowed from there. One that was begun before
    /// is given away with its memory, so that nobody has to copy it.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    fn decode_pieces<'a>(&mut self, input: &'a [u8], take: impl FnMut(Cow<'a, [u8]>) -> bool) -> Result<(), DecodeError>;

    /// What stands behind the last whole piece.
    fn rest(&self) -> &[u8];
}

/// Answers with every piece that is whole, with as few calls as there can be: pieces that stand one behind the other in `input` go
/// out together. `goes_on` says of each whether it is not the last.
pub(super) fn echo_whole(
    decoder: &mut impl Decoder,
    input: &[u8],
    reply: &mut impl Reply,
    mut goes_on: impl FnMut(&[u8]) -> bool,
) -> Result<(), DecodeError> {
    let mut together = 0..0;
    let result = decoder.decode_pieces(input, |piece| {
        let goes_on = goes_on(&piece);
        match piece {
            Cow::Borrowed(piece) => {
                let from = (piece.as_ptr() as usize).wrapping_sub(input.as_ptr() as usize);
                together = if together.is_empty() { from } else { together.start }..from + piece.len();
            }
            // One that was begun in front of the input is the first.
            Cow::Owned(piece) => reply.send_owned(piece),
        }
        goes_on
    });
    if !together.is_empty() {
        reply.send(&input[together]);
    }
    result
}

/// The reason why a stream cannot be decoded any further.
///
/// ```
/// use edgecho::protocol::{DecodeError, Decoder, Frames};
///
/// // The length is enough: nobody has to wait for the frame, or to make room for it.
/// assert_eq!(Frames::new(10).decode(&[0, 0, 0, 11], |_| true), Err(DecodeError::TooLong { length: 11 }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A piece is longer than it may be.
    #[error("{length} bytes are more than allowed")]
    TooLong {
        /// The length in bytes: of a frame, what it says in front; of a line, how much of it has come.
        length: u64,
    },
    /// The memory for a piece cannot be had.
    #[error("out of memory: cannot hold {length} bytes")]
    OutOfMemory {
        /// The length in bytes for which there is no room.
        length: u64,
    },
}

/// Appends `part` to `piece`, which has `longest` bytes at most when it is whole. Room grows as bytes arrive, by doubling, so that no
/// more is reserved than twice what has come, and never more than `longest`.
fn append(piece: &mut Vec<u8>, part: &[u8], longest: usize) -> Result<(), DecodeError> {
    let length = piece.len() + part.len();
    if length > piece.capacity() {
        let room = (piece.capacity() * 2).min(longest).max(length);
        if piece.try_reserve_exact(room - piece.len()).is_err() {
            return Err(DecodeError::OutOfMemory { length: room as u64 });
        }
    }
    piece.extend_from_slice(part);
    Ok(())
}

/// Lines, which end with LF. A CR in front of it belongs to the end, too (RFC 5198 and Telnet write both).
///
/// ```
/// use edgecho::protocol::{DecodeError, Decoder, Lines};
///
/// let mut lines = Lines::new(3);
/// assert!(lines.decode(b"abc\r\n", |line| line == b"abc\r\n").is_ok());
/// assert_eq!(lines.decode(b"abcd\n", |_| true), Err(DecodeError::TooLong { length: 4 }));
/// ```
#[derive(Debug)]
pub struct Lines {
    max: usize,
    rest: Vec<u8>,
}

impl Lines {
    /// Lines of up to `max` bytes, not counting their ends.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, rest: Vec::new() }
    }

    /// Takes what stands behind the last whole line, with its memory.
    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }

    /// How long a line is without its end.
    fn length(line: &[u8]) -> usize {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line).len()
    }

    fn check(&self, line: &[u8]) -> Result<(), DecodeError> {
        let length = Self::length(line);
        if length > self.max { Err(DecodeError::TooLong { length: length as u64 }) } else { Ok(()) }
    }

    fn cut<'a>(&mut self, mut input: &'a [u8], mut take: impl FnMut(Cow<'a, [u8]>) -> bool) -> Result<(), DecodeError> {
        let longest = self.max.saturating_add(b"\r\n".len());
        while let Some(end) = input.iter().position(|&byte| byte == b'\n') {
            let (line, behind) = input.split_at(end + 1);
            input = behind;
            let goes_on = if self.rest.is_empty() {
                self.check(line)?;
                take(Cow::Borrowed(line))
            } else {
                append(&mut self.rest, line, longest)?;
                let line = std::mem::take(&mut self.rest);
                self.check(&line)?;
                take(Cow::Owned(line))
            };
            if !goes_on {
                return Ok(());
            }
        }
        // A CR at the end may belong to an LF that is still to come: it makes no line too long.
        let length = self.rest.len() + input.len();
        let last = input.last().or(self.rest.last());
        if length - usize::from(last == Some(&b'\r')) > self.max {
            return Err(DecodeError::TooLong { length: length as u64 });
        }
        append(&mut self.rest, input, longest)
    }
}

impl Decoder for Lines {
    fn decode_pieces<'a>(&mut self, input: &'a [u8], take: impl FnMut(Cow<'a, [u8]>) -> bool) -> Result<(), DecodeError> {
        self.cut(input, take).inspect_err(|_| self.rest = Vec::new())
    }

    fn rest(&self) -> &[u8] {
        &self.rest
    }
}

/// How many bytes say how long a frame is.
const LENGTH_BYTES: usize = 4;

/// Frames: a length, as an unsigned number of 4 bytes with the most significant first, and as many bytes. 0 is a length.
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
    /// Frames of up to `max` bytes, not counting their lengths.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, rest: Vec::new() }
    }

    /// The frame of a payload.
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

    /// The payload of a whole frame.
    #[must_use]
    pub fn payload(frame: &[u8]) -> &[u8] {
        frame.get(LENGTH_BYTES..).unwrap_or_default()
    }

    /// How long the frame is that `bytes` begin with, its length included; none if too few of them are there to tell.
    fn whole(&self, bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
        let Some((length, _)) = bytes.split_first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        if length as usize > self.max {
            Err(DecodeError::TooLong { length: length.into() })
        } else {
            Ok(Some(LENGTH_BYTES + length as usize))
        }
    }

    fn cut<'a>(&mut self, mut input: &'a [u8], mut take: impl FnMut(Cow<'a, [u8]>) -> bool) -> Result<(), DecodeError> {
        // First the frame that was begun before: it is filled up, and never by more than it has.
        while !self.rest.is_empty() {
            let length = self.whole(&self.rest)?.unwrap_or(LENGTH_BYTES);
            let missing = length - self.rest.len();
            if missing == 0 {
                if !take(Cow::Owned(std::mem::take(&mut self.rest))) {
                    return Ok(());
                }
                break;
            }
            if input.is_empty() {
                return Ok(());
            }
            let (part, behind) = input.split_at(missing.min(input.len()));
            append(&mut self.rest, part, length)?;
            input = behind;
        }
        while let Some(length) = self.whole(input)? {
            let Some((frame, behind)) = input.split_at_checked(length) else { break };
            input = behind;
            if !take(Cow::Borrowed(frame)) {
                return Ok(());
            }
        }
        if !input.is_empty() {
            let length = self.whole(input)?.unwrap_or(LENGTH_BYTES);
            append(&mut self.rest, input, length)?;
        }
        Ok(())
    }
}

impl Decoder for Frames {
    fn decode_pieces<'a>(&mut self, input: &'a [u8], take: impl FnMut(Cow<'a, [u8]>) -> bool) -> Result<(), DecodeError> {
        self.cut(input, take).inspect_err(|_| self.rest = Vec::new())
    }

    fn rest(&self) -> &[u8] {
        &self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a decoder makes of a stream that is cut into parts.
    fn pieces(decoder: &mut impl Decoder, stream: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Result<(), DecodeError>) {
        let mut pieces = Vec::new();
        let mut from = 0;
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]).collect();
        cuts.sort_unstable();
        for to in cuts {
            let result = decoder.decode(&stream[from..to], |piece| {
                pieces.push(piece.to_vec());
                true
            });
            if result.is_err() {
                return (pieces, result);
            }
            from = to;
        }
        (pieces, Ok(()))
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_are_cut(
            lines in prop::collection::vec("[a-c\r]{0,12}", 0..20), last in "[a-c]{0,12}", cuts in prop::collection::vec(0_usize..400, 0..40),
        ) {
            let whole: Vec<Vec<u8>> = lines.iter().map(|line| format!("{line}\n").into_bytes()).collect();
            let stream = [whole.concat(), last.clone().into_bytes()].concat();
            let mut decoder = Lines::new(16);
            prop_assert_eq!(pieces(&mut decoder, &stream, &cuts), (whole, Ok(())));
            prop_assert_eq!(decoder.rest(), last.as_bytes());
        }

        #[test]
        fn frames_are_the_same_however_they_are_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20), kept in 0_usize..20,
            cuts in prop::collection::vec(0_usize..400, 0..40),
        ) {
            let whole: Vec<Vec<u8>> = payloads.iter().map(|payload| Frames::encode(payload)).collect();
            let last = Frames::encode(&[7; 16])[..kept].to_vec();
            let mut decoder = Frames::new(40);
            let (found, result) = pieces(&mut decoder, &[whole.concat(), last.clone()].concat(), &cuts);
            prop_assert_eq!((found, result), (whole, Ok(())));
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
    fn a_line_may_have_just_as_many_bytes_as_it_may() {
        for end in ["\n", "\r\n"] {
            for cut in 0..8 {
                let line = format!("abcd{end}");
                assert_eq!(pieces(&mut Lines::new(4), line.as_bytes(), &[cut]).1, Ok(()), "{line:?} cut at {cut}");
                let line = format!("abcde{end}");
                assert!(pieces(&mut Lines::new(4), line.as_bytes(), &[cut]).1.is_err(), "{line:?} cut at {cut}");
            }
        }
        assert!(Lines::new(4).decode(b"abcde", |_| true).is_err(), "it need not end to be too long");
        assert!(Lines::new(4).decode(b"abcd\r", |_| true).is_ok(), "an LF may follow");
        assert!(Lines::new(0).decode(b"\n\r\n", |_| true).is_ok());
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
    fn the_bytes_of_a_piece_that_is_not_whole_are_counted() {
        use crate::protocol::{Frame, Line, Protocol};
        let (mut lines, mut frames) = (Lines::new(100), Frames::new(100));
        for (part, line, frame) in [(&b"\0\0"[..], 2, 2), (b"\0\x03a", 5, 5), (b"b", 6, 6), (b"c", 7, 0), (b"\n", 0, 1)] {
            lines.decode(part, |_| true).expect("a short line");
            frames.decode(part, |_| true).expect("a short frame");
            assert_eq!((Line::default().held_bytes(&lines), Frame::default().held_bytes(&frames)), (line, frame));
        }
    }

    #[test]
    fn a_piece_that_was_begun_before_is_given_with_its_memory() {
        let mut decoder = Frames::new(1 << 20);
        let frame = Frames::encode(&vec![1; 1 << 20]);
        let (first, last) = frame.split_at(frame.len() - 1);
        decoder.decode(first, |_| unreachable!("it is not whole")).expect("within bounds");
        let held = decoder.rest.as_ptr();
        let mut given = None;
        decoder
            .decode_pieces(last, |piece| matches!(piece, Cow::Owned(piece) if given.replace(piece.as_ptr()).is_none()))
            .expect("it fits");
        assert_eq!(given, Some(held), "not copied");
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error_and_returns_what_was_held() {
        let mut piece = vec![0; 8];
        // More than there is address space for.
        assert!(piece.try_reserve_exact(isize::MAX as usize).is_err());
        assert_eq!(append(&mut piece, b"abc", 100), Ok(()));
        assert!(piece.capacity() <= 16);
        let mut lines = Lines::new(4);
        lines.decode(b"abc", |_| true).expect("a short line");
        assert_eq!(lines.decode(b"de", |_| true), Err(DecodeError::TooLong { length: 5 }));
        assert_eq!((lines.rest(), lines.rest.capacity()), (&b""[..], 0));
    }

    #[test]
    fn nothing_follows_the_last_that_is_wanted() {
        let mut seen = 0;
        Lines::new(9)
            .decode(b"a\nquit\nb\n", |line| {
                seen += 1;
                line != b"quit\n"
            })
            .expect("short lines");
        assert_eq!(seen, 2);
    }
}
