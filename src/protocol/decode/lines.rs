//! The decoder of lines.

use std::borrow::Cow;

use super::{DecodeError, Decoder, append};

/// Lines, which end with LF. A CR in front of it belongs to the line end, too (RFC 5198 and Telnet write both).
///
/// ```
/// use edgecho::protocol::{DecodeError, Decoder, Lines};
///
/// let mut lines = Lines::new(3);
/// assert_eq!(lines.decode(b"abc\r\n", |line| line == b"abc\r\n"), Ok(5));
/// assert_eq!(lines.decode(b"abcd\n", |_| true), Err(DecodeError::TooLong { length: 4 }));
/// ```
#[derive(Debug)]
pub struct Lines {
    max: usize,
    rest: Vec<u8>,
}

impl Lines {
    /// Returns a decoder of lines of up to `max` bytes, without their ends.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, rest: Vec::new() }
    }

    /// Takes the bytes behind the last whole line, with their memory.
    pub(in crate::protocol) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }

    /// Returns the length of a line without its end.
    fn length(line: &[u8]) -> usize {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line).len()
    }

    fn check(&self, line: &[u8]) -> Result<(), DecodeError> {
        let length = Self::length(line);
        if length > self.max { Err(DecodeError::TooLong { length: length as u64 }) } else { Ok(()) }
    }

    fn cut<'a>(&mut self, whole: &'a [u8], mut take: impl FnMut(Cow<'a, [u8]>) -> bool) -> Result<usize, DecodeError> {
        let mut input = whole;
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
                return Ok(whole.len() - input.len());
            }
        }
        // A CR at the end may belong to an LF that is still to come: it does not make a line too long.
        let length = self.rest.len() + input.len();
        let last = input.last().or(self.rest.last());
        if length - usize::from(last == Some(&b'\r')) > self.max {
            return Err(DecodeError::TooLong { length: length as u64 });
        }
        append(&mut self.rest, input, longest)?;
        Ok(whole.len())
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.rest.capacity()
    }
}

impl Decoder for Lines {
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
        fn lines_are_the_same_however_they_are_cut(
            lines in prop::collection::vec("[a-c\r]{0,12}", 0..20), last in "[a-c]{0,12}", cuts in prop::collection::vec(0_usize..400, 0..40),
        ) {
            let whole: Vec<Vec<u8>> = lines.iter().map(|line| format!("{line}\n").into_bytes()).collect();
            let stream = [whole.concat(), last.clone().into_bytes()].concat();
            let mut decoder = Lines::new(16);
            prop_assert_eq!(one_by_one(&mut decoder, &stream, &cuts), (whole.clone(), Ok(())));
            prop_assert_eq!(decoder.rest(), last.as_bytes());
            let mut decoder = Lines::new(16);
            prop_assert_eq!(pieces(&mut decoder, &stream, &cuts), (whole, Ok(())));
            prop_assert_eq!(decoder.rest(), last.as_bytes());
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
        assert!(Lines::new(4).decode(b"abcde", |_| true).is_err(), "too long even without an end");
        assert!(Lines::new(4).decode(b"abcd\r", |_| true).is_ok(), "an LF may follow");
        assert!(Lines::new(0).decode(b"\n\r\n", |_| true).is_ok());
    }

    #[test]
    fn nothing_follows_the_last_that_is_wanted() {
        let mut seen = 0;
        let taken = Lines::new(9).decode(b"a\nquit\nb\n", |line| {
            seen += 1;
            line != b"quit\n"
        });
        assert_eq!((seen, taken), (2, Ok("a\nquit\n".len())));
    }
}
