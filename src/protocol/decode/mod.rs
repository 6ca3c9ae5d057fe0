//! Decoders: cut a stream into pieces, such as lines, wherever the network has cut it. They know nothing of sockets, so both ends of a
//! connection use them.

mod frames;
mod lines;
mod pieces;

use std::borrow::Cow;

use super::reply::Reply;

pub use frames::Frames;
pub use lines::Lines;
pub use pieces::{Extent, Format, Pieces};

/// Cuts a stream into pieces, and keeps the piece that is not whole yet.
///
/// [`Lines`] and [`Frames`] are decoders. For another format, implement [`Format`] and use [`Pieces`].
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
    /// Gives `take` each whole piece of the stream, which `input` continues, as it stands on the wire: with its line end, or with the
    /// length in front of it. Keeps what follows the last whole piece. `take` returns whether to go on; after `false`, the input
    /// behind that piece is not looked at. Pieces that are whole within `input` are not copied.
    ///
    /// Returns the number of bytes of `input` that were taken: all of them, unless `take` has returned `false`. Decode the others later
    /// (see [`Reply::leave`]), or drop them.
    ///
    /// # Errors
    /// A [`DecodeError`]. The pieces before the error have been given to `take`, and the kept memory is freed. The stream cannot be
    /// decoded any further.
    fn decode(&mut self, input: &[u8], mut take: impl FnMut(&[u8]) -> bool) -> Result<usize, DecodeError> {
        self.decode_pieces(input, |piece| take(&piece))
    }

    /// Decodes like [`decode`](Self::decode). A piece that is whole within `input` is borrowed from it. A piece that was begun before is
    /// given with its memory, so that it need not be copied.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    fn decode_pieces<'a>(&mut self, input: &'a [u8], take: impl FnMut(Cow<'a, [u8]>) -> bool) -> Result<usize, DecodeError>;

    /// Returns the bytes behind the last whole piece, which the decoder keeps.
    fn rest(&self) -> &[u8];
}

/// Answers with every whole piece, in as few calls as possible: pieces that follow each other in `input` are sent together. `goes_on`
/// returns false for the last piece.
pub(super) fn echo_whole(
    decoder: &mut impl Decoder,
    input: &[u8],
    reply: &mut impl Reply,
    mut goes_on: impl FnMut(&[u8]) -> bool,
) -> Result<usize, DecodeError> {
    let mut together = 0..0;
    let result = decoder.decode_pieces(input, |piece| {
        let goes_on = goes_on(&piece);
        match piece {
            Cow::Borrowed(piece) => {
                let from = (piece.as_ptr() as usize).wrapping_sub(input.as_ptr() as usize);
                together = if together.is_empty() { from } else { together.start }..from + piece.len();
            }
            // A piece that was begun before the input is the first.
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
/// // The length is enough: the decoder does not wait for the frame, and makes no room for it.
/// assert_eq!(Frames::new(10).decode(&[0, 0, 0, 11], |_| true), Err(DecodeError::TooLong { length: 11 }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A piece is longer than allowed.
    #[error("{length} bytes are more than allowed")]
    TooLong {
        /// Length in bytes. Of a frame: the announced length. Of a line: the bytes that have come.
        length: u64,
    },
    /// The system has no memory for a piece.
    #[error("out of memory: cannot hold {length} bytes")]
    OutOfMemory {
        /// Length in bytes that was asked for.
        length: u64,
    },
    /// The stream breaks the rules of the format.
    #[error("{reason}")]
    Malformed {
        /// The rule that is broken.
        reason: &'static str,
    },
}

/// Appends `part` to `piece`, which has at most `longest` bytes when it is whole. Room grows as bytes arrive, by doubling: never above
/// `longest`, and never above twice what has come.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a stream that is cut into parts. Returns the pieces, and the result.
    pub(super) fn pieces(
        decoder: &mut impl Decoder,
        stream: &[u8],
        cuts: &[usize],
    ) -> (Vec<Vec<u8>>, Result<(), DecodeError>) {
        let mut pieces = Vec::new();
        let mut from = 0;
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]).collect();
        cuts.sort_unstable();
        for to in cuts {
            let result = decoder.decode(&stream[from..to], |piece| {
                pieces.push(piece.to_vec());
                true
            });
            match result {
                Ok(taken) => assert_eq!(taken, to - from, "all of it"),
                Err(error) => return (pieces, Err(error)),
            }
            from = to;
        }
        (pieces, Ok(()))
    }

    /// Decodes a stream that is cut into parts, one piece at a time: what was not taken is offered again.
    pub(super) fn one_by_one(
        decoder: &mut impl Decoder,
        stream: &[u8],
        cuts: &[usize],
    ) -> (Vec<Vec<u8>>, Result<(), DecodeError>) {
        let mut pieces = Vec::new();
        let mut from = 0;
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]).collect();
        cuts.sort_unstable();
        for to in cuts {
            while from < to {
                let count = pieces.len();
                let result = decoder.decode(&stream[from..to], |piece| {
                    pieces.push(piece.to_vec());
                    false
                });
                match result {
                    Ok(taken) => from += taken,
                    Err(error) => return (pieces, Err(error)),
                }
                assert!(pieces.len() <= count + 1, "no piece follows `false`");
            }
        }
        (pieces, Ok(()))
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
        assert_eq!((lines.rest(), lines.capacity()), (&b""[..], 0));
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
}
